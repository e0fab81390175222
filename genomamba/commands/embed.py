"""`genomamba embed`: a vector for each record, region or position of a file, from a language model or a classifier."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from genomamba import tokens
from genomamba.classifier.network import SequenceClassifier
from genomamba.commands.checks import check_embed
from genomamba.language_model.model import BUNDLE_KIND as LANGUAGE_MODEL
from genomamba.language_model.model import GenomeLM
from genomamba.prediction.progress import ReadingProgress
from genomamba.prediction.scored import Strands, directions
from genomamba.prediction.source import Source
from genomamba.prediction.stretches import Stretch
from genomamba.prediction.vector_writers import VectorRows, vector_writer
from genomamba.prediction.vectors import (
    CausalVectors,
    ClassifierVectors,
    MaskedVectors,
    Pooling,
    PositionModel,
    check_layer,
    position_vectors,
    stretch_vector,
)
from mamba_data_prep.errors import Interrupted, UserError
from mamba_data_prep.provenance import fingerprint, write_sidecar
from mamba_training.bundle import load_bundle
from mamba_training.devices import pick_device

Per = Literal["record", "region", "position"]
_DEFAULT_WINDOW = 4096
_ROWS = 512
_LETTERS = np.array(list("?" * tokens.FIRST_BASE + tokens.BASES + "N????"))


def run_embed(
    *,
    model: Path,
    fasta: Path,
    out: Path,
    bed: Path | None = None,
    regions: Sequence[str] = (),
    per: Per | None = None,
    layer: int | None = None,
    pooling: Pooling = "mean",
    strands: Strands = "both",
    context: int = 0,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes vectors and a sidecar.

    Args:
        model: bundle or run folder of a language model or a classifier.
        fasta: FASTA, FASTQ, GenBank, EMBL or .2bit, plain, gzip or bgzip; "-" is standard input.
        out: `.npz`, `.parquet` or `.h5ad`.
        bed, regions: only these regions; a strand in the BED file's sixth column is the region's forward one.
        per: what a row is; by default a region where regions are given, else a record. A row a position needs Parquet.
        layer: of a language model, after which block, from 0; None is the end, behind the last norm.
        pooling: how the positions of a record or region become one vector; N has no part in it.
        strands: the mean of both, or one of them.
        context: bases beside each region that are read and have no part in its vector.
        overwrite: replace an existing output.

    Returns:
        `rows`, `width`, `bases` and `seconds`, and under `text` the same for people.

    Raises:
        UserError: something about the model, the files or the output; nothing is left under `out`.
        Interrupted: stopped; nothing is left.
    """
    asked = {"bed": bed, "regions": regions, "per": per, "context": context}
    check_embed(model=model, fasta=fasta, out=out, overwrite=overwrite, **asked)
    chosen, bundle = pick_device(device), load_bundle(model).config
    source = Source.of(fasta, bed, regions, context=context)
    per = per or ("record" if source.genome is None else "region")
    progress = ReadingProgress(fasta, source.total, done="embedded")
    asker, width = _asker(model, chosen, progress, per=per, layer=layer, pooling=pooling, strands=strands)
    settings = {
        "per": per, "layer": layer, "pooling": None if per == "position" else pooling, "strands": strands,
        "context": context, "regions": list(regions), "device": str(chosen),
        "bed": None if bed is None else fingerprint(bed).xxh3_128,
    }  # fmt: skip
    name = model.parent.name if model.name == "model" else model.name
    about = {"model": name, "sha256": load_bundle(model).sha256, **settings}
    stretches = source.stretches(on_raw=progress.on_raw, on_pieces=progress.pieces)
    made = _rows(stretches, asker, per, pooling, strands, named=source.genome is not None, tick=progress.tick)
    began, count = time.perf_counter(), 0
    try:
        with progress.shown(), vector_writer(out, width, about) as writer:
            for rows in made:
                writer.write(rows)
                count += len(rows.values)
            if not count:
                raise UserError("holds nothing to embed", path=fasta)
    except KeyboardInterrupt:
        raise Interrupted("by the keyboard; nothing was written") from None
    seconds = time.perf_counter() - began
    result = {"rows": count, "width": width, "bases": int(progress.bases), "seconds": seconds}
    inputs = [fasta] if bed is None else [fasta, bed]
    seed = bundle.get("training", {}).get("seed")
    write_sidecar(out, inputs=inputs, model=model, seed=seed, extra={"settings": settings, "result": result})
    rate = result["bases"] / max(seconds, 1e-9)
    text = f"{count:,} vectors of {width} numbers, {result['bases']:,} bases in {seconds:.1f} s ({rate:,.0f} bases/s)"
    return {"out": str(out), **result, "text": f"{text} -> {out}"}


def _asker(
    model: Path, device: torch.device, progress: ReadingProgress, *, per: Per, layer: int | None, pooling: Pooling,
    strands: Strands,
) -> tuple[PositionModel | ClassifierVectors, int]:  # fmt: skip
    """What is asked for vectors, and how many numbers one has.

    Raises:
        UserError: the model has no such layer, or a classifier is asked for what it does not have.
    """
    bundle = load_bundle(model).config
    if bundle.get("kind") == LANGUAGE_MODEL:
        each = 2 if strands == "both" else 1
        network = GenomeLM.from_bundle(model).to(device)
        check_layer(network, layer)
        window = int(bundle.get("window") or _DEFAULT_WINDOW)
        kind = CausalVectors if network.objective.looks_ahead else MaskedVectors
        return kind(network, window, layer, lambda bases: progress.advance(bases / each)), network.config.d_model
    classifier = SequenceClassifier.from_bundle(model).to(device)
    if layer is not None or per == "position" or pooling != "mean":
        raise UserError(
            "a classifier gives the vector that its head reads, one a record or region", path=model,
            fix="leave --layer, --pooling and --per position out, or take a language model",
        )  # fmt: skip
    return ClassifierVectors(classifier, progress.advance), classifier.pooling.width


def _rows(
    stretches: Iterator[Stretch],
    model: PositionModel | ClassifierVectors,
    per: Per,
    pooling: Pooling,
    strands: Strands,
    *,
    named: bool,
    tick: Callable[[], object],
) -> Iterator[VectorRows]:
    """The rows of a file, some at a time."""
    if isinstance(model, ClassifierVectors):
        yield from _together(model.read(stretches, strands), strands, named=named, tick=tick)
        return
    reads = model.read(stretches, strands)
    if per != "position":
        vectors = ((one.stretch, stretch_vector(one, pooling, model.width, strands)) for one in reads)
        yield from _together(vectors, strands, named=named, tick=tick)
        return
    for one in reads:
        strand = _strand(one.stretch, strands)
        for piece in position_vectors(one, model.width, strands):
            n = len(piece.ids)
            start = one.stretch.start + piece.offset + np.arange(n)
            columns = {
                "seq_id": [one.stretch.record] * n, "start": start, "end": start + 1, "strand": [strand] * n,
                "base": _LETTERS[piece.ids].tolist(),
            }  # fmt: skip
            yield VectorRows(columns, piece.values)
            tick()


def _together(
    vectors: Iterator[tuple[Stretch, np.ndarray]], strands: Strands, *, named: bool, tick: Callable[[], object]
) -> Iterator[VectorRows]:
    """Rows of records or regions, some hundred at a time."""
    held: list[tuple[Stretch, np.ndarray]] = []
    for one in vectors:
        held.append(one)
        tick()
        if len(held) == _ROWS:
            yield _joined(held, strands, named=named)
            held = []
    if held:
        yield _joined(held, strands, named=named)


def _joined(held: Sequence[tuple[Stretch, np.ndarray]], strands: Strands, *, named: bool) -> VectorRows:
    stretches = [stretch for stretch, _ in held]
    columns: dict[str, Any] = {
        "seq_id": [one.record for one in stretches], "start": [one.start for one in stretches],
        "end": [one.end for one in stretches], "strand": [_strand(one, strands) for one in stretches],
    }  # fmt: skip
    if named:
        columns["name"] = [one.label or "" for one in stretches]
    columns["length"] = [one.end - one.start for one in stretches]
    return VectorRows(columns, np.stack([vector for _, vector in held]))


def _strand(stretch: Stretch, strands: Strands) -> str:
    read = directions(stretch, strands)
    return "." if len(read) == 2 else read[0]
