"""The study of BRCA1: labels read as their sources mean them, figures that others compute too, a run gone on with."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from genomamba.commands.reproduce import run_reproduce
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from genomamba.studies.brca1 import by_model, judges
from genomamba.studies.brca1.findings import auroc, interval
from genomamba.studies.brca1.head import exons, learnt
from genomamba.studies.brca1.labelled import FROM_HG19, labelled, stretch
from genomamba.studies.brca1.options import Brca1Options
from genomamba.variants.causal import CausalScorer
from genomamba.variants.scores import score_sites
from mamba_data_prep.errors import UserError
from mamba_training.bundle import save_bundle

FIRST = 43_100_000
COLUMNS = ["position (hg19)", "reference", "alt", "func.class", "consequence", "CADD.score"]
SETTINGS = [f"first_base={FIRST}", "window=32", "reverse_complement=false", "sequence=brca1.fa", "findlay=table.xlsx",
            "clinvar=clinvar.vcf"]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, make_bases: Callable[[int, int], str]) -> Path:
    """3,000 bases; 60 measured changes, three at a position; ClinVar records, 18 of judged changes of BRCA1."""
    folder = tmp_path / "data"
    folder.mkdir()
    bases = make_bases(3000, 8)
    (folder / "brca1.fa").write_text(f">17 piece\n{bases.lower()[:1500]}\n{bases[1500:]}\n")
    rows, records, rng = [], [], np.random.default_rng(1)
    for number, place in enumerate(range(1200, 1800, 30)):
        reference = bases[place]
        for alternative in "ACGT".replace(reference, ""):
            label, consequence = [("LOF", "Nonsense"), ("FUNC", "Missense"), ("INT", "Synonymous")][rng.integers(3)]
            rows.append((FIRST + place - FROM_HG19, reference, alternative, label, consequence, float(number)))
        info = f"CLNSIG={['Pathogenic', 'Likely_benign'][number % 2]};GENEINFO=BRCA1:672;MC=SO:1|missense_variant"
        other = "ACGT".replace(reference, "")[0]
        records.append(f"17\t{FIRST + place}\t.\t{reference}\t{other}\t.\t.\t{info}")
    records[0] = records[0].replace("BRCA1:672", "NBR2:1")
    records[1] = (
        records[1].replace("GENEINFO=", "GENEINFO=NBR2:10230|").replace("|missense", "|intron_variant,SO:2|stop_gained")
    )
    records[1] = records[1].removesuffix("_variant")
    records[2] = records[2].replace("CLNSIG=Pathogenic", "CLNSIG=Uncertain_significance")
    with pd.ExcelWriter(folder / "table.xlsx") as file:
        pd.DataFrame(rows, columns=pd.Index(COLUMNS)).to_excel(file, startrow=2, index=False)
    head = "##fileformat=VCFv4.1\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (folder / "clinvar.vcf").write_text(head + "\n".join(records) + "\n")
    return folder


@pytest.fixture
def options(data: Path) -> Brca1Options:
    values = dict(one.split("=") for one in SETTINGS)
    return Brca1Options.model_validate({**values, "first_base": FIRST, "window": 32, "reverse_complement": False})


def test_labels_are_read_as_their_sources_mean_them(data: Path, options: Brca1Options) -> None:
    measured, judged = (labelled(name, options, data) for name in ("findlay", "clinvar"))
    assert (len(measured), len(judged)) == (60, 18)
    assert {one.rank for one in measured} == {0, 1, 3}
    assert all(one.harmful == (one.consequence == "Nonsense") for one in measured)
    assert [one.harmful for one in judged[:3]] == [False, False, True]
    assert (judged[0].consequence, judged[1].consequence) == ("stop_gained", "missense_variant")
    assert judged[0].cadd is None


def test_the_stretch_may_be_text_of_the_other_strand(data: Path, options: Brca1Options) -> None:
    forward = stretch(options, data)
    turned = forward.bases.tobytes().translate(bytes.maketrans(b"ACGT", b"TGCA"))[::-1]
    (data / "other.txt.gz").write_bytes(gzip.compress(turned[:70] + b"\n" + turned[70:] + b"\n"))
    other = options.model_copy(update={"sequence": "other.txt.gz", "reverse_complement": True})
    assert np.array_equal(stretch(other, data).bases, forward.bases)
    with pytest.raises(UserError, match="does not reach so far"):
        forward.at(FIRST - 1, FIRST + 4)


def test_a_wrong_beginning_is_noticed(data: Path, options: Brca1Options) -> None:
    with pytest.raises(UserError, match="references are not the bases of the stretch") as caught:
        labelled("findlay", options.model_copy(update={"first_base": FIRST - 1}), data)
    assert "of 60 differ" in str(caught.value.found)


def test_the_auroc_is_that_of_scikit_learn_ties_and_weights_included() -> None:
    rng = np.random.default_rng(2)
    scores, harmful, weights = rng.integers(0, 9, 200) / 8, rng.random(200) < 0.3, rng.integers(0, 4, 200).astype(float)
    assert auroc(scores, harmful) == pytest.approx(roc_auc_score(harmful, scores))
    expected = roc_auc_score(harmful, scores, sample_weight=weights)
    assert auroc(scores, harmful, weights) == pytest.approx(float(expected))


def test_the_interval_is_wider_where_changes_come_in_threes() -> None:
    rng = np.random.default_rng(3)
    one = rng.normal(0, 1, 100)
    harmful = rng.random(100) < 0.5
    scores, labels = np.repeat(one + harmful, 3), np.repeat(harmful, 3)
    low, high = interval(scores, labels, np.repeat(np.arange(100), 3))
    naive_low, naive_high = interval(scores, labels, np.arange(300))
    assert low < auroc(scores, labels) < high
    assert high - low > 1.4 * (naive_high - naive_low)


def test_the_markov_ratio_is_the_definition(data: Path, options: Brca1Options) -> None:
    """Counted word by word: p_k = (n_k + 100 p_{k-1}) / (sum of n_k + 100), on both strands, without BRCA1."""
    known = stretch(options, data)
    changes = labelled("findlay", options, data)[:4]
    text = known.bases.tobytes().decode()
    first, last = (one.position - FIRST for one in (changes[0], changes[-1]))

    def complement(bases: str) -> str:
        return bases[::-1].translate(str.maketrans("ACGT", "TGCA"))

    outside = [text[: first - 1000], text[last + 1000 :]]
    strands = [*outside, *map(complement, outside)]

    def p(context: str, base: str) -> float:
        shorter = p(context[1:], base) if context else 0.25
        n = {b: sum(s.startswith(context + b, i) for s in strands for i in range(len(s))) for b in "ACGT"}
        return (n[base] + 100 * shorter) / (sum(n.values()) + 100)

    def likelihood(bases: str) -> float:
        return sum(float(np.log2(p(bases[i - 5 : i], bases[i]))) for i in range(5, len(bases)))

    found = judges._by_markov(changes, known)
    for one, ratio in zip(changes[::3], found[::3], strict=True):
        at = one.position - FIRST
        old = text[at - 5 : at + 6]
        new = old[:5] + one.alternative + old[6:]
        both = [likelihood(turn(new)) - likelihood(turn(old)) for turn in (str, complement)]
        assert ratio == pytest.approx(sum(both) / 2, abs=1e-6)


def test_the_study_runs_and_goes_on_after_a_stop(
    data: Path, tmp_path: Path, make_language_model: Callable[..., GenomeLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"lm": {}, "masked": {"kind": "masked", "bidirectional": "add"}}
    for name, kind in kinds.items():
        network = make_language_model(**kind)
        assert network.table is not None
        config = {
            "kind": BUNDLE_KIND, "model": network.config.model_dump(), "table": network.table.shape.model_dump(),
            "objective": network.objective.config.model_dump(), "window": 64,
        }  # fmt: skip
        save_bundle(tmp_path / name, network.state_dict(), config, "# A language model\n")
    asked = {
        "name": "brca1",
        "data": data,
        "out": tmp_path / "out",
        "overrides": [*SETTINGS, f"models=[{tmp_path / 'lm'}, {tmp_path / 'masked'}]"],
    }
    monkeypatch.setattr(by_model, "_SITES", 7)
    real, seen = by_model._sequences, []

    def stopped(*arguments: object) -> object:
        seen.append(1)
        if len(seen) == 10:
            raise KeyboardInterrupt
        return real(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(by_model, "_sequences", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_reproduce(**asked)
    found = run_reproduce(**asked, resume=True)
    assert len(seen) == 10 + 13 + 20 + 2 * 18  # seven of the twenty positions were kept
    rows = {row["judge"]: row for row in found["tables"]["Findlay, function measured"]}
    assert rows["the consequence alone"]["AUROC"] == 1.0
    assert all(row["low"] <= row["AUROC"] <= row["high"] for row in rows.values() if row["low"] is not None)
    assert "Evo 2 7B, zero-shot, as published" in rows
    assert {f"{tmp_path / name}, log-likelihood ratio" for name in kinds} <= set(rows)
    heads = found["tables"]["ClinVar, clinical judgement, learnt from other exons"]
    assert heads == []  # eighteen changes without a gap are one exon
    assert (tmp_path / "out" / "plot.png").stat().st_size > 1000
    assert "Single changes of BRCA1" in (tmp_path / "out" / "README.md").read_text()


def test_ratios_and_vectors_are_those_of_the_command(data: Path, options: Brca1Options, make_language_model) -> None:
    model = make_language_model()
    changes, known = labelled("findlay", options, data)[:3], stretch(options, data)
    site = by_model._sequences(changes, known, 32)
    (rows,) = by_model._rows([site], CausalScorer(model))
    (scores,) = score_sites([site], CausalScorer(model))
    assert np.allclose(rows[:, :4], scores)
    assert np.allclose(np.linalg.norm(rows[:, 4:], axis=1), rows[:, 3])


def test_exons_are_parted_by_gaps(data: Path, options: Brca1Options) -> None:
    changes = labelled("findlay", options, data)
    assert set(exons(changes)) == {0}
    apart = [*changes[:30], *(replace(one, position=one.position + 1000) for one in changes[30:])]
    assert exons(apart).tolist() == [0] * 30 + [1] * 30


def test_a_head_never_sees_the_exon_it_judges() -> None:
    """What follows from the exon alone cannot be learnt from other exons; what follows from a feature can."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(8), 40)
    features = np.concatenate([rng.normal(size=(320, 3)), np.eye(8)[groups]], axis=1)
    told = (features[:, 0] > 0).astype(float)
    assert roc_auc_score(told, learnt(features, told, groups)) > 0.9
    of_exon = np.isin(groups, [1, 3, 4, 6]).astype(float)
    assert roc_auc_score(of_exon, learnt(features, of_exon, groups)) < 0.6
    assert np.isnan(learnt(features, told, np.zeros(320, int))).all()


def test_the_interval_of_a_difference_is_paired() -> None:
    rng = np.random.default_rng(6)
    harmful = rng.random(300) < 0.5
    noise = rng.normal(size=300)
    better, worse = harmful + noise, 0.8 * harmful + noise
    low, high = interval(better, harmful, np.arange(300), less=worse)
    assert 0 < low < auroc(better, harmful) - auroc(worse, harmful) < high
    alone = interval(better, harmful, np.arange(300))
    assert high - low < (alone[1] - alone[0]) / 2
