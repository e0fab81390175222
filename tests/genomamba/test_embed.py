"""Vectors are those of one pass over the whole sequence, whatever stands beside it, and files hold them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from genomamba import tokens
from genomamba.cli import cli
from genomamba.commands import embed
from genomamba.commands.embed import run_embed
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from genomamba.prediction import vectors
from genomamba.prediction.vectors import Vectors, pooled
from mamba_data_prep.errors import Interrupted, UserError
from mamba_training.bundle import load_bundle, save_bundle

MODELS = {
    "causal": {}, "network alone": {"counts": False}, "masked": {"kind": "masked", "bidirectional": "add"},
    "equivariant": {"kind": "masked", "bidirectional": "add", "reverse_complement": "equivariant"},
}  # fmt: skip
WINDOW = 64
Maker = Callable[..., GenomeLM]


@pytest.fixture
def sequences(make_bases: Callable[[int, int], str]) -> dict[str, str]:
    found = {f"r{number}": make_bases(length, number) for number, length in enumerate((1, 40, 23, 150, 64, 40))}
    return {**found, "r6": "N" * 12, "r7": found["r3"][:30] + "NNNNN" + found["r3"][30:50]}


@pytest.fixture
def fasta(sequences: dict[str, str], tmp_path: Path) -> Path:
    path = tmp_path / "s.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in sequences.items()))
    return path


def save(model: GenomeLM, path: Path, window: int = WINDOW) -> Path:
    config = {
        "kind": BUNDLE_KIND, "model": model.config.model_dump(), "objective": model.objective.config.model_dump(),
        "table": None if model.table is None else model.table.shape.model_dump(), "window": window,
    }  # fmt: skip
    save_bundle(path, model.state_dict(), config, "# A language model\n")
    return path


def plain(model: GenomeLM, bases: str, strand: str, layer: int | None) -> np.ndarray:
    """Vectors of one strand in the record's order, from the network's own parts."""
    ids = tokens.encode(np.frombuffer(bases.encode(), np.uint8))
    ids = tokens.reverse_complement(ids) if strand == "-" else ids
    with torch.no_grad():
        rows = torch.from_numpy(ids.copy())[None]
        if layer is None:
            values = model.embeddings(rows)[0]
        else:  # a shorter network of the same blocks, without its last norm
            blocks, norm = model.backbone.blocks, model.backbone.norm
            model.backbone.blocks, model.backbone.norm = blocks[:layer], torch.nn.Identity()
            values = model.embeddings(rows)[0]
            model.backbone.blocks, model.backbone.norm = blocks, norm
    return values.numpy()[::-1] if strand == "-" else values.numpy()


def expected(model: GenomeLM, bases: str, how: str, strands: str, layer: int | None) -> np.ndarray:
    known = np.array([base in "ACGT" for base in bases])
    if not known.any():
        return np.full(model.config.d_model, np.nan)
    each = []
    for strand in {"both": "+-", "forward": "+", "reverse": "-"}[strands]:
        values = plain(model, bases, strand, layer)[known]
        ends = {"mean": values.mean(0), "max": values.max(0), "last": values[0 if strand == "-" else -1]}
        each.append(ends[how])
    return np.mean(each, axis=0)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("how", "strands", "layer"),
    [("mean", "both", None), ("max", "forward", None), ("last", "both", 1), ("last", "reverse", None),
     ("mean", "forward", 0), ("max", "both", 2)],
)  # fmt: skip
def test_a_records_vector_is_that_of_one_pass_over_it(
    kind: str, how: str, strands: str, layer: int | None, make_language_model: Maker, fasta: Path,
    sequences: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(vectors, "PIECE", 31)
    model = make_language_model(**MODELS[kind])
    asked = {"model": save(model, tmp_path / "lm"), "fasta": fasta, "pooling": how, "strands": strands, "layer": layer}
    if kind != "causal" and kind != "network alone":
        sequences = {name: bases for name, bases in sequences.items() if len(bases) <= WINDOW}
        fasta.write_text("".join(f">{name}\n{bases}\n" for name, bases in sequences.items()))
    result = run_embed(**asked, out=tmp_path / "v.npz")
    found = np.load(tmp_path / "v.npz")
    assert found["seq_id"].tolist() == list(sequences)
    assert found["end"].tolist() == [len(bases) for bases in sequences.values()]
    assert result["rows"] == len(sequences)
    wanted = [expected(model, bases, how, strands, layer) for bases in sequences.values()]
    np.testing.assert_allclose(found["embedding"], np.stack(wanted), atol=1e-5)


@pytest.mark.parametrize("strands", ["both", "forward", "reverse"])
@pytest.mark.parametrize("longest", [8, 4096])
def test_pieces_and_neighbours_change_nothing(
    longest: int, strands: str, make_language_model: Maker, fasta: Path, sequences: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Streamed piece by piece with a carried state, or side by side with others, which are padded."""
    model = make_language_model()
    monkeypatch.setattr(vectors, "PIECE", 37)
    run_embed(
        model=save(model, tmp_path / "lm", longest),
        fasta=fasta,
        per="position",
        strands=strands,
        out=tmp_path / "v.parquet",
    )
    table = pd.read_parquet(tmp_path / "v.parquet")
    assert len(table) == sum(map(len, sequences.values()))
    for name, bases in sequences.items():
        rows = table[table["seq_id"] == name]
        assert "".join(rows["base"]) == bases
        assert rows["start"].tolist() == list(range(len(bases)))
        ways = {"both": "+-", "forward": "+", "reverse": "-"}[strands]
        wanted = np.mean([plain(model, bases, strand, None) for strand in ways], axis=0)
        np.testing.assert_allclose(np.stack(rows["embedding"].to_list()), wanted, atol=1e-5)


def test_a_long_record_of_a_masked_model_is_read_in_windows_of_which_the_inner_part_counts(
    make_language_model: Maker, make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    model, bases = make_language_model(**MODELS["masked"]), make_bases(150, 3)
    (tmp_path / "s.fa").write_text(f">r\n{bases}\n")
    asked = {"model": save(model, tmp_path / "lm"), "fasta": tmp_path / "s.fa", "per": "position"}
    run_embed(**asked, out=tmp_path / "v.parquet", strands="forward")
    found = np.stack(pd.read_parquet(tmp_path / "v.parquet")["embedding"].to_list())
    flank = WINDOW // 8
    first = plain(model, bases[:WINDOW], "+", None)
    np.testing.assert_allclose(found[: WINDOW - flank], first[: WINDOW - flank], atol=1e-5)
    last = plain(model, bases[-WINDOW:], "+", None)
    np.testing.assert_allclose(found[-flank:], last[-flank:], atol=1e-5)


def test_regions_keep_their_strand_and_context_has_no_part(
    make_language_model: Maker, sequences: dict[str, str], fasta: Path, tmp_path: Path
) -> None:
    model = make_language_model()
    bed = tmp_path / "r.bed"
    bed.write_text("r3\t20\t60\tone\t0\t+\nr3\t20\t60\ttwo\t0\t-\n")
    asked = {"model": save(model, tmp_path / "lm"), "fasta": fasta, "bed": bed, "context": 10, "strands": "forward"}
    run_embed(**asked, out=tmp_path / "v.npz")
    found = np.load(tmp_path / "v.npz")
    assert found["name"].tolist() == ["one", "two"]
    assert found["strand"].tolist() == ["+", "-"]
    for row, strand in enumerate("+-"):
        wanted = plain(model, sequences["r3"][10:70], strand, None)[10:50].mean(0)
        np.testing.assert_allclose(found["embedding"][row], wanted, atol=1e-5)


def test_both_strands_of_a_record_have_one_vector(
    make_language_model: Maker, sequences: dict[str, str], tmp_path: Path
) -> None:
    text = sequences["r3"]
    turned = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
    (tmp_path / "s.fa").write_text(f">a\n{text}\n>b\n{turned}\n")
    for how in ("mean", "max", "last"):
        model = save(make_language_model(), tmp_path / "lm") if how == "mean" else tmp_path / "lm"
        run_embed(model=model, fasta=tmp_path / "s.fa", pooling=how, out=tmp_path / f"{how}.npz")
        first, second = np.load(tmp_path / f"{how}.npz")["embedding"]
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_every_format_holds_the_same(make_language_model: Maker, fasta: Path, tmp_path: Path) -> None:
    asked = {"model": save(make_language_model(), tmp_path / "lm"), "fasta": fasta}
    for ending in ("npz", "parquet", "h5ad"):
        run_embed(**asked, out=tmp_path / f"v.{ending}")
    found, table = np.load(tmp_path / "v.npz"), pd.read_parquet(tmp_path / "v.parquet")
    data = anndata.read_h5ad(tmp_path / "v.h5ad")
    np.testing.assert_array_equal(np.stack(table["embedding"].to_list()), found["embedding"])
    np.testing.assert_array_equal(np.asarray(data.X), found["embedding"])
    for name in ("seq_id", "start", "end", "strand", "length"):
        assert table[name].tolist() == found[name].tolist() == data.obs[name].tolist()
    assert data.obs_names[1] == "r1:0-40"
    assert data.uns["genomamba"]["pooling"] == "mean"
    assert data.uns["genomamba"]["model"] == "lm"
    assert data.uns["genomamba"]["sha256"] == load_bundle(tmp_path / "lm").sha256
    assert json.loads((tmp_path / "v.h5ad.json").read_text())["result"]["width"] == 16


def test_a_classifiers_vector_is_what_its_head_reads(bundle: Path, fasta: Path, tmp_path: Path) -> None:
    from genomamba.classifier.network import SequenceClassifier

    run_embed(model=bundle, fasta=fasta, out=tmp_path / "v.npz", strands="forward")
    found, network = np.load(tmp_path / "v.npz")["embedding"], SequenceClassifier.from_bundle(bundle)
    ids = tokens.encode(np.frombuffer(fasta.read_text().split("\n")[3].encode(), np.uint8))
    with torch.no_grad():
        vector = network.pooled(torch.from_numpy(ids.copy())[None], torch.tensor([len(ids)]))[0]
    np.testing.assert_allclose(found[1], vector.numpy(), atol=1e-5)
    assert np.isnan(found[6]).all()
    with pytest.raises(UserError, match="one a record or region"):
        run_embed(model=bundle, fasta=fasta, out=tmp_path / "w.npz", layer=1)


@pytest.mark.parametrize("strands", ["both", "reverse"])
@pytest.mark.parametrize("together", [1, 150, 10**6])
def test_a_classifier_reads_windows_of_several_records_together(
    together: int, strands: Any, bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from genomamba.classifier.network import SequenceClassifier

    records = {f"r{i}": make_bases(5 + 31 * i, i) for i in range(8)}  # windows are of 64 bases
    records |= {"unknown": "N" * 70, "half": "N" * 64 + make_bases(64, 9), "last": make_bases(40, 10)}
    network, calls = SequenceClassifier.from_bundle(bundle), []
    real = SequenceClassifier.pooled
    monkeypatch.setattr(vectors, "_TOGETHER", together)
    monkeypatch.setattr(
        SequenceClassifier, "pooled", lambda self, ids, lengths: calls.append(len(ids)) or real(self, ids, lengths)
    )
    run_embed(model=bundle, fasta=write_fasta(records), out=tmp_path / "v.npz", strands=strands)
    found = np.load(tmp_path / "v.npz")
    assert found["seq_id"].tolist() == list(records)
    assert len(calls) == 1 if together == 10**6 else len(calls) > 5
    for values, bases in zip(found["embedding"], records.values(), strict=True):
        ids = tokens.encode(np.frombuffer(bases.encode(), np.uint8))
        starts = np.linspace(0, max(0, len(ids) - 64), max(1, -(-len(ids) // 64))).round().astype(int)
        windows = [ids[start : start + 64] for start in starts]
        read = [tokens.reverse_complement(one) for one in windows] + (windows if strands == "both" else [])
        weights = np.array([(one < tokens.FIRST_BASE + 4).sum() for one in read])
        with torch.no_grad():
            each = [real(network, torch.from_numpy(one.copy())[None], torch.tensor([len(one)]))[0] for one in read]
        expected = np.average(each, axis=0, weights=weights) if weights.any() else np.full(len(values), np.nan)
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_of_records_without_a_base_few_wait_for_a_classifier(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genomamba.classifier.network import SequenceClassifier
    from genomamba.prediction.stretches import Stretch

    monkeypatch.setattr(vectors, "_TOGETHER", 160)
    begun = 0

    def stretches() -> Iterator[Stretch]:
        nonlocal begun
        for i in range(50):
            begun += 1
            ids = np.full(20, tokens.FIRST_BASE if i == 0 else tokens.N, np.uint8)
            yield Stretch(f"r{i}", 0, 20, ".", None, 0, 0, lambda first, last, ids=ids: ids[first:last])

    model = vectors.ClassifierVectors(SequenceClassifier.from_bundle(bundle))
    for number, (stretch, values) in enumerate(model.read(stretches()), start=1):
        assert stretch.record == f"r{number - 1}"
        assert np.isnan(values).all() == (number > 1)
        assert begun - number < 10
    assert number == begun == 50


@pytest.mark.parametrize("backwards", [False, True])
def test_pooling_does_not_depend_on_the_pieces(backwards: bool) -> None:
    random = np.random.default_rng(2)
    ids, values = random.integers(7, 12, 50).astype(np.uint8), random.normal(size=(50, 3)).astype(np.float32)
    known = np.flatnonzero(ids < 11)
    cuts = [0, 1, 7, 30, 50]
    pieces = [Vectors(a, ids[a:b], values[a:b]) for a, b in itertools.pairwise(cuts)]
    for order in (pieces, pieces[::-1]):
        mean, most, last = (pooled(order, how, 3, backwards=backwards) for how in ("mean", "max", "last"))
        np.testing.assert_allclose(mean, values[known].mean(0), atol=1e-6)
        np.testing.assert_allclose(most, values[known].max(0))
        np.testing.assert_allclose(last, values[known[0 if backwards else -1]])


def test_what_cannot_be_is_refused(make_language_model: Maker, fasta: Path, tmp_path: Path) -> None:
    model = save(make_language_model(), tmp_path / "lm")
    done = CliRunner().invoke(cli, ["embed", "--model", str(model), "--fasta", str(fasta), "--per", "position",
                                    "--out", str(tmp_path / "v.npz")])  # fmt: skip
    assert done.exit_code == 2
    assert ".parquet" in done.output
    with pytest.raises(UserError, match="no such layer") as caught:
        run_embed(model=model, fasta=fasta, layer=3, out=tmp_path / "v.npz")
    assert "to 2" in str(caught.value.accepted)
    (tmp_path / "empty.fa").write_text("")
    with pytest.raises(UserError):
        run_embed(model=model, fasta=tmp_path / "empty.fa", out=tmp_path / "v.npz")
    assert not (tmp_path / "v.npz").exists()


def test_a_stopped_run_leaves_nothing(
    make_language_model: Maker, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    model = save(make_language_model(), tmp_path / "lm")
    monkeypatch.setattr(embed, "stretch_vector", stopped)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(Interrupted):
        run_embed(model=model, fasta=fasta, out=tmp_path / "v.h5ad")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
