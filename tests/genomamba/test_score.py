"""`genomamba score`: every number beside a plain recomputation in float64, in every format, whole or in pieces."""

from __future__ import annotations

import functools
import gzip
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pybigtools
import pytest
import torch

from genomamba import tokens
from genomamba.commands import score as room
from genomamba.commands.score import run_score
from genomamba.language_model.model import GenomeLM
from genomamba.prediction import scored
from genomamba.prediction.partial import partial_path
from mamba_data_prep.errors import Interrupted, UserError

LETTERS = {"A": "T", "C": "G", "G": "C", "T": "A"}


def other_strand(sequence: str) -> str:
    return "".join(LETTERS.get(letter, letter) for letter in reversed(sequence))


@functools.cache
def exactly(model: GenomeLM) -> GenomeLM:
    table = None if model.table is None else model.table.shape
    exact = GenomeLM(model.config, table, model.objective.config).double().eval()
    exact.load_state_dict(model.state_dict())
    return exact


@functools.cache
def forward(model: GenomeLM, sequence: str) -> np.ndarray:
    """log2 of each base's probability given those before it, from logits of the whole sequence."""
    found = np.full(len(sequence), np.nan)
    if len(sequence) > 1:
        with torch.no_grad():
            p = model(torch.from_numpy(tokens.encode(sequence))[None])[0, :, 7:11].softmax(1).log2().numpy()
        for place, letter in enumerate(sequence):
            if place and letter in LETTERS:
                found[place] = p[place - 1, "ACGT".index(letter)]
    return found


def told(model: GenomeLM, sequence: str, strands: str = "both") -> np.ndarray:
    """What `score` is to say of every base of a sequence."""
    one, other = forward(model, sequence), forward(model, other_strand(sequence))[::-1]
    if strands != "both":
        return one if strands == "forward" else other
    return np.array([b if np.isnan(a) else a if np.isnan(b) else (a + b) / 2 for a, b in zip(one, other, strict=True)])


def along(track: Any, name: str, length: int) -> np.ndarray:
    """The values of a bigWig along a record; NaN where it has none."""
    found = np.full(length, np.nan)
    for start, end, value in track.records(name):
        found[start:end] = value
    return found


@pytest.fixture(scope="module")
def causal(make_language_model: Callable[..., GenomeLM]) -> GenomeLM:
    return make_language_model()


@pytest.fixture(scope="module")
def lm(causal: GenomeLM, save_language_model: Callable[[GenomeLM], Path]) -> Path:
    return save_language_model(causal)


@pytest.fixture
def records(make_bases: Callable[[int, int], str]) -> dict[str, str]:
    """Records of many lengths, one with N inside, one of N alone, one empty, one of one base."""
    found = {f"r{i}": make_bases(5 + 37 * i, i) for i in range(7)}
    found["r3"] = found["r3"][:20] + "NNNRN" + found["r3"][25:]
    return {**found, "none": "", "unknown": "NNNN", "one": "A", "last": make_bases(333, 9)}


@pytest.fixture(params=[2**14, 50], ids=["whole", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(room, "CausalScorer", functools.partial(scored.CausalScorer, longest=request.param))
    return request.param


@pytest.mark.parametrize("strands", ["both", "forward", "reverse"])
def test_records_are_scored_as_a_plain_recomputation_says(
    strands: Any, pieces: int, causal: GenomeLM, lm: Path, records: dict[str, str], write_fasta: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    result = run_score(model=lm, fasta=write_fasta(records), out=tmp_path / "out.tsv", strands=strands)
    table = pd.read_csv(tmp_path / "out.tsv", sep="\t")
    assert table.columns.tolist() == [
        "seq_id", "start", "end", "strand", "length", "n_frac", "scored", "log2_likelihood", "bits", "bits_per_base",
    ]  # fmt: skip
    assert table["seq_id"].tolist() == list(records)
    assert set(table["strand"]) == {{"both": ".", "forward": "+", "reverse": "-"}[strands]}
    exact = exactly(causal)
    for row, sequence in zip(table.itertuples(), records.values(), strict=True):
        each = told(exact, sequence, strands)
        n = int((~np.isnan(each)).sum())
        assert (row.start, row.end, row.length, row.scored) == (0, len(sequence), len(sequence), n)
        known = sum(letter in LETTERS for letter in sequence)
        assert row.n_frac == pytest.approx(1 - known / max(len(sequence), 1), abs=1e-6)
        if n:
            assert row.bits == pytest.approx(-np.nansum(each), abs=1e-5 * n)
            assert row.log2_likelihood == -row.bits
            assert row.bits_per_base == pytest.approx(row.bits / n, abs=1e-6)
        else:
            assert np.isnan([row.bits, row.bits_per_base, row.log2_likelihood]).all()
    assert result["scored"] == table["scored"].sum()
    assert result["bits"] == pytest.approx(table["bits"].sum(), abs=1e-4)
    side = json.loads((tmp_path / "out.tsv.json").read_text())
    assert side["result"]["rows"] == len(records)
    assert side["model"]["path"] == str(lm)


@pytest.mark.parametrize("ending", [".tsv", ".csv.gz", ".parquet", ".jsonl", ".bedgraph", ".bedgraph.gz", ".bw"])
def test_bases_in_every_format(
    ending: str, pieces: int, causal: GenomeLM, lm: Path, records: dict[str, str], write_fasta: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / f"out{ending}"
    track = ending.startswith((".bedgraph", ".bw"))
    run_score(model=lm, fasta=write_fasta(records), out=out, per=None if track else "base")
    exact = exactly(causal)
    truth = {name: -told(exact, sequence) for name, sequence in records.items() if sequence}
    if ending == ".bw":
        with pybigtools.open(str(out)) as track:
            told_of = {name: each for name, each in truth.items() if not np.isnan(each).all()}
            assert track.chroms() == {name: len(each) for name, each in told_of.items()}
            found = {name: along(track, name, len(each)) for name, each in told_of.items()}
            truth = told_of
    elif "bedgraph" in ending:
        text = gzip.decompress(out.read_bytes()).decode() if ending.endswith("gz") else out.read_text()
        found = {name: np.full(len(each), np.nan) for name, each in truth.items()}
        for line in text.splitlines():
            name, start, end, value = line.split("\t")
            assert int(end) == int(start) + 1
            assert np.isnan(found[name][int(start)])
            found[name][int(start)] = float(value)
    else:
        reading = {
            ".tsv": functools.partial(pd.read_csv, sep="\t"), ".csv.gz": pd.read_csv, ".parquet": pd.read_parquet,
            ".jsonl": functools.partial(pd.read_json, lines=True),
        }  # fmt: skip
        table = reading[ending](out)
        assert "".join(table["base"]) == "".join(s.replace("R", "N") for s in records.values())
        found = {name: table["bits"][table["seq_id"] == name].to_numpy(float) for name in truth}
        starts = {name: table["start"][table["seq_id"] == name].tolist() for name in truth}
        assert starts == {name: list(range(len(each))) for name, each in truth.items()}
    for name, each in truth.items():
        np.testing.assert_allclose(found[name], each, atol=1.2e-5)


def test_both_strands_of_a_sequence_get_the_same(
    lm: Path, write_fasta: Callable[..., Path], records: dict[str, str], tmp_path: Path
) -> None:
    sequence = records["r6"]
    fasta = write_fasta({"given": sequence, "other": other_strand(sequence)})
    run_score(model=lm, fasta=fasta, out=tmp_path / "out.parquet", per="base")
    table = pd.read_parquet(tmp_path / "out.parquet")
    given, other = (table["bits"][table["seq_id"] == name].to_numpy() for name in ("given", "other"))
    np.testing.assert_allclose(given, other[::-1], atol=1e-5)


def test_regions_are_read_on_their_own_strand_with_what_lies_around(
    pieces: int, causal: GenomeLM, lm: Path, records: dict[str, str], write_fasta: Callable[..., Path], tmp_path: Path
) -> None:
    bed = tmp_path / "some.bed"
    bed.write_text("last\t10\t90\tup\t0\t-\nr6\t0\t30\t.\t0\t+\nlast\t300\t333\tend\nr3\t21\t24\tunknown\n")
    spans = [("last", 10, 90, "-"), ("r6", 0, 30, "+"), ("last", 300, 333, "."), ("r3", 21, 24, ".")]
    exact, fasta = exactly(causal), write_fasta(records)
    for context in (0, 60):
        out = tmp_path / f"out{context}.tsv"
        run_score(model=lm, fasta=fasta, out=out, bed=bed, context=context, strands="forward")
        table = pd.read_csv(out, sep="\t", keep_default_na=False, na_values={"bits": [""]})
        assert table["name"].tolist() == ["up", ".", "end", "unknown"]
        assert table["strand"].tolist() == ["-", "+", "+", "+"]
        for row, (name, start, end, strand) in zip(table.itertuples(), spans, strict=True):
            first, last = max(0, start - context), min(end + context, len(records[name]))
            each = told(exact, records[name][first:last], "reverse" if strand == "-" else "forward")
            own = each[start - first : end - first]
            assert (row.seq_id, row.start, row.end) == (name, start, end)
            assert row.scored == (~np.isnan(own)).sum()
            if row.scored:
                assert row.bits == pytest.approx(-np.nansum(own), abs=1e-3)
    run_score(model=lm, fasta=fasta, out=tmp_path / "one.tsv", regions=["last:11-90"])
    assert pd.read_csv(tmp_path / "one.tsv", sep="\t")[["seq_id", "start", "end"]].values.tolist() == [["last", 10, 90]]
    run_score(model=lm, fasta=fasta, out=tmp_path / "minus.tsv", regions=["last:11-90:-"], strands="forward")
    minus, whole = (pd.read_csv(tmp_path / f"{name}.tsv", sep="\t") for name in ("minus", "out0"))
    assert minus.drop(columns="name").iloc[0].tolist() == whole.drop(columns="name").iloc[0].tolist()


def test_a_track_of_regions_is_sorted_and_knows_the_genome(
    lm: Path, records: dict[str, str], write_fasta: Callable[..., Path], tmp_path: Path
) -> None:
    bed, fasta = tmp_path / "some.bed", write_fasta(records)
    bed.write_text("last\t200\t230\nr6\t5\t25\nlast\t10\t90\n")
    run_score(model=lm, fasta=fasta, bed=bed, out=tmp_path / "out.bw")
    with pybigtools.open(str(tmp_path / "out.bw")) as track:
        assert track.chroms() == {"last": 333, "r6": len(records["r6"])}
        there = ~np.isnan(along(track, "last", 333))
    assert there.nonzero()[0].tolist() == [*range(10, 90), *range(200, 230)]
    run_score(model=lm, fasta=fasta, bed=bed, per="region", out=tmp_path / "out.bedgraph")
    assert [line.split("\t")[:3] for line in (tmp_path / "out.bedgraph").read_text().splitlines()] == [
        ["r6", "5", "25"], ["last", "10", "90"], ["last", "200", "230"],
    ]  # fmt: skip
    bed.write_text("last\t10\t90\nlast\t80\t95\n")
    with pytest.raises(UserError, match="two regions overlap"):
        run_score(model=lm, fasta=fasta, bed=bed, out=tmp_path / "two.bw")


@pytest.mark.parametrize("reverse_complement", ["none", "equivariant"])
def test_masked_models_are_asked_for_every_kth_base_in_turn(
    reverse_complement: str, make_language_model: Callable[..., GenomeLM], write_fasta: Callable[..., Path],
    save_language_model: Callable[[GenomeLM], Path], make_bases: Callable[[int, int], str], tmp_path: Path,
) -> None:  # fmt: skip
    model = make_language_model(kind="masked", bidirectional="add", reverse_complement=reverse_complement)
    records = {
        "short": make_bases(30, 1),
        "same": make_bases(30, 2),
        "holes": "ANNC" + make_bases(9, 3),
        "long": make_bases(100, 4),
    }
    run_score(
        model=save_language_model(model), fasta=write_fasta(records), out=tmp_path / "out.parquet", per="base", every=5
    )
    table, exact = pd.read_parquet(tmp_path / "out.parquet"), exactly(model)
    windows = [
        (0, 64, 0, 56),
        (36, 100, 56, 100),
    ]  # of the long record: each base from the window where it is further inside
    for name, sequence in records.items():
        given = np.full(len(sequence), np.nan)
        for start, end, first, last in windows if name == "long" else [(0, len(sequence), 0, len(sequence))]:
            part = sequence[start:end]
            for place in range(first - start, last - start):
                if part[place] in LETTERS:
                    given[start + place] = np.mean([asked(exact, strand, place, part) for strand in (False, True)])
        np.testing.assert_allclose(table["log2_likelihood"][table["seq_id"] == name].to_numpy(), given, atol=1e-5)


def asked(model: GenomeLM, reverse: bool, place: int, sequence: str) -> float:
    """log2 of the probability of the base at a place where all at a distance of 5 and its multiples are hidden."""
    p, ids = answered(model, reverse, place % 5, sequence), tokens.encode(sequence).copy()
    if reverse:
        ids, place = tokens.reverse_complement(ids), len(ids) - 1 - place
    return float(p[place, int(ids[place]) - 7].log2())


@functools.cache
def answered(model: GenomeLM, reverse: bool, rest: int, sequence: str) -> torch.Tensor:
    """(length, 4) probabilities where the places that leave a rest by 5 are hidden, along the strand that is read."""
    ids = tokens.encode(sequence).copy()
    hidden = (np.arange(len(ids)) % 5 == rest) & (ids < tokens.N)
    inputs = np.where(hidden, tokens.MASK, ids)
    inputs = tokens.reverse_complement(inputs) if reverse else inputs
    with torch.no_grad():
        return model(torch.from_numpy(inputs.copy())[None])[0, :, 7:11].softmax(1)


@pytest.mark.parametrize("ending", [".tsv", ".parquet", ".jsonl.gz", ".bedgraph"])
@pytest.mark.parametrize("per", ["record", "base"])
def test_a_stopped_run_goes_on_after_its_rows(
    ending: str, per: Any, lm: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fasta = write_fasta({f"r{i}": make_bases(20 + 31 * i, i) for i in range(6)})
    monkeypatch.setattr(room, "CausalScorer", functools.partial(scored.CausalScorer, longest=40))
    monkeypatch.setattr(scored, "_BUFFER_STRETCHES", 1)
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"out{ending}"
    asked = {"model": lm, "fasta": fasta, "per": per}
    run_score(**asked, out=whole)
    real, calls = scored.log2_likelihood, [0]

    def stopping(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 16:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(scored, "log2_likelihood", stopping)
    with pytest.raises(Interrupted, match=r"rows are kept in .*run the same command again"):
        run_score(**asked, out=out)
    assert not out.exists()
    assert partial_path(out).exists()
    result = run_score(**asked, out=out)
    assert sorted(path.name for path in tmp_path.glob("out*")) == [out.name, f"{out.name}.json"]
    if ending == ".parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(out), pd.read_parquet(whole), atol=1e-5)
    else:
        assert out.read_bytes() == whole.read_bytes()
    kept, other = (json.loads(Path(f"{path}.json").read_text())["result"] for path in (out, whole))
    for name in ("rows", "bases", "scored"):
        assert kept[name] == other[name] == result[name]
    assert kept["bits"] == pytest.approx(other["bits"], abs=1e-4)


def test_what_does_not_fit_is_refused(lm: Path, bundle: Path, write_fasta: Callable[..., Path], tmp_path: Path) -> None:
    fasta, out = write_fasta({"a": "ACGTACGT"}), tmp_path / "out.tsv"
    for words, more in (
        ("this one foretells the next base", {"every": 4}),
        ("name regions with --bed", {"per": "region"}),
        ("leave --per out", {"per": "record", "regions": ["a:1-4"]}),
        ("--context is what lies beside regions", {"context": 4}),
        ("this region names no record", {"regions": ["b:1-4"]}),
        ("not a language model", {"model": bundle}),
    ):
        with pytest.raises(UserError) as caught:
            run_score(**{"model": lm, "fasta": fasta, "out": out, **more})
        assert words in str(caught.value)
    assert not list(tmp_path.glob("out*"))
    double = tmp_path / "double.fa"
    double.write_text(">a\nACGT\n>a\nACGT\n")
    with pytest.raises(UserError, match="used by an earlier record"):
        run_score(model=lm, fasta=double, out=tmp_path / "out.bw")
