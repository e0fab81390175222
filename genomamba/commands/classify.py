"""`genomamba classify`: a FASTA file of any size to a prediction table, in constant memory and in the input's order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genomamba.classifier.network import SequenceClassifier
from genomamba.commands.checks import check_classify
from genomamba.prediction.predictor import DEFAULT_BATCH_BASES, Aggregation, Predictor, RecordAverage
from genomamba.prediction.record_windows import RecordWindow, record_windows
from genomamba.prediction.rows import ABSTAIN, Predictions, decide
from genomamba.prediction.writers import OF_WINDOWS, output_format, table_writer
from mamba_data_prep.errors import Interrupted, UserError
from mamba_data_prep.genomes.fasta import FastaPiece, stream_fasta
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.regions import parse_region, stream_regions
from mamba_data_prep.provenance import write_sidecar
from mamba_training.devices import pick_device

MIN_BASES = 16
"""Windows with fewer known bases than this are not scored: there is nothing in them to tell classes apart."""
_BUFFER_BASES = 2**22
_BUFFER_WINDOWS = 2**15


@dataclass
class Summary:
    """What a classification did.

    Attributes:
        rows: rows written.
        counts: rows of each class, and of "abstain".
        seconds: from the first base to the last row.
    """

    classes: tuple[str, ...]
    rows: int = 0
    bases: int = 0
    windows: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, rows: Predictions) -> None:
        """Counts the rows of a chunk."""
        self.rows += len(rows)
        for name in rows.predicted:
            self.counts[name] = self.counts.get(name, 0) + 1

    def text(self, out: Path) -> str:
        """Some lines for people."""
        shown = [name for name in (*self.classes, ABSTAIN) if self.counts.get(name)]
        return "\n".join(
            [
                f"{self.rows:,} rows, {self.bases:,} bases in {self.seconds:.1f} s "
                f"({self.bases / max(self.seconds, 1e-9):,.0f} bases/s) -> {out}",
                *(f"  {name:<20} {self.counts[name]:>12,}" for name in shown),
            ]
        )


def run_classify(
    *,
    model: Path,
    fasta: Path,
    out: Path,
    both_strands: bool = False,
    min_confidence: float = 0.0,
    window: int | None = None,
    stride: int | None = None,
    per_window: bool = False,
    aggregate: Aggregation = "mean",
    min_bases: int = MIN_BASES,
    batch_bases: int | None = None,
    track: str | None = None,
    regions: Sequence[str] = (),
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Classifies every record (or window) of a FASTA file and writes the table and its sidecar.

    Args:
        model: bundle or run folder of a classifier.
        fasta: FASTA, GenBank or EMBL, plain, gzip or bgzip; "-" is standard input.
        out: the table; its extension is its format. `.bed` and `.bw` files always hold windows.
        min_confidence: rows whose likeliest class has less abstain.
        window: longest stretch read at once, in bases; the model's own by default.
        stride: bases from window to window of a longer record; the window by default.
        per_window: a row for each window rather than for each record.
        aggregate: how a record's windows are averaged.
        min_bases: windows with fewer known bases abstain.
        regions: classify only these stretches, named as samtools names them; each is a record of its own.
        track: the class whose probability a `.bw` shows; the last class by default.
        overwrite: replace an existing output.

    Raises:
        UserError: something about the model, the file or the output; nothing is left under `out`.
    """
    check_classify(model=model, fasta=fasta, out=out, overwrite=overwrite)
    per_window = output_format(out) in OF_WINDOWS or per_window
    chosen = pick_device(device)
    network = SequenceClassifier.from_bundle(model).to(chosen)
    window, stride = _window_and_stride(network, window, stride)
    settings = {
        "window": window, "stride": stride, "per_window": per_window, "both_strands": both_strands,
        "min_confidence": min_confidence, "aggregate": aggregate, "min_bases": min_bases, "track": track,
        "device": str(chosen), "regions": list(regions),
    }  # fmt: skip
    summary = _run(Predictor(network, chosen, batch_bases or DEFAULT_BATCH_BASES, both_strands), fasta, out, settings)
    result = {"rows": summary.rows, "bases": summary.bases, "seconds": summary.seconds, "counts": summary.counts}
    write_sidecar(
        out, inputs=[fasta], model=model, extra={"settings": settings, "result": result},
        seed=network.config.training.get("seed"),
    )  # fmt: skip
    return {"out": str(out), **result, "text": summary.text(out)}


def _pieces(fasta: Path, regions: Sequence[str]) -> Iterator[FastaPiece]:
    """The records of the file, or the regions of it that were asked for."""
    if not regions:
        return stream_fasta(fasta, unique_ids=False)
    genome = Genome.open(fasta)
    return stream_regions(genome, [parse_region(region, genome) for region in regions])


def _run(predictor: Predictor, fasta: Path, out: Path, settings: Mapping[str, Any]) -> Summary:
    """Streams the file through the model into the table."""
    summary = Summary(predictor.model.config.classes)
    how = {name: settings[name] for name in ("per_window", "min_confidence", "aggregate", "min_bases")}
    began, writing = time.perf_counter(), table_writer(out, summary.classes, settings["track"])
    with _stopped_by_sigterm(), _progress(summary) as shown, writing as writer:
        windows = record_windows(_pieces(fasta, settings["regions"]), settings["window"], settings["stride"])
        for rows in classify_windows(shown(windows), predictor, **how):
            writer.write(rows)
            summary.add(rows)
    summary.seconds = time.perf_counter() - began
    return summary


def _window_and_stride(network: SequenceClassifier, window: int | None, stride: int | None) -> tuple[int, int]:
    own = network.config.window
    window = window or own
    if network.config.stem.positions and window > own:
        raise UserError(
            "The window is longer than the model knows positions for", found=f"{window:,}", accepted=f"up to {own:,}",
            fix="leave --window out; longer records are read window by window",
        )  # fmt: skip
    stride = stride or window
    if stride > window:
        raise UserError(
            "The stride skips bases", found=f"stride {stride:,}, window {window:,}", accepted=f"1 to {window:,}",
        )  # fmt: skip
    return window, stride


def classify_windows(
    windows: Iterable[RecordWindow],
    predictor: Predictor,
    *,
    per_window: bool = False,
    min_confidence: float = 0.0,
    aggregate: Aggregation = "mean",
    min_bases: int = MIN_BASES,
) -> Iterator[Predictions]:
    """Prediction rows in the order of the windows, which are held back only as far as a buffer of some 4 Mb."""
    table = _WindowRows(predictor, min_confidence) if per_window else _RecordRows(predictor, min_confidence, aggregate)
    buffer: list[RecordWindow] = []
    held = 0
    for window in windows:
        buffer.append(window)
        held += len(window.ids)
        if held >= _BUFFER_BASES or len(buffer) >= _BUFFER_WINDOWS:
            yield table.rows(buffer, _scored(buffer, predictor, min_bases))
            buffer, held = [], 0
    if buffer:
        yield table.rows(buffer, _scored(buffer, predictor, min_bases))


def _scored(buffer: list[RecordWindow], predictor: Predictor, min_bases: int) -> np.ndarray:
    """Probabilities (M, C) of the buffered windows; NaN where there are too few known bases."""
    probabilities = np.full((len(buffer), len(predictor.model.config.classes)), np.nan)
    enough = [i for i, window in enumerate(buffer) if window.known >= min_bases]
    if enough:
        probabilities[enough] = predictor.probabilities([buffer[i].ids for i in enough])
    return probabilities


def _why_unscored(bases: int, known: int) -> str:
    if known == 0:
        return "no known base" if bases else "no bases"
    return "too short" if known == bases else "too few known bases"


class _WindowRows:
    """One row a window."""

    def __init__(self, predictor: Predictor, min_confidence: float) -> None:
        self._classes = predictor.model.config.classes
        self._strand = "." if predictor.both_strands else "+"
        self._min_confidence = min_confidence

    def rows(self, windows: list[RecordWindow], probabilities: np.ndarray) -> Predictions:
        """The rows of these windows."""
        nothing = np.isnan(probabilities[:, 0]).tolist()
        start = np.array([w.start for w in windows], np.int64)
        end = np.array([w.end for w in windows], np.int64)
        known = np.array([w.known for w in windows], np.int64)
        why = [_why_unscored(w.end - w.start, w.known) if n else "" for w, n in zip(windows, nothing, strict=True)]
        names = [w.record for w in windows]
        return self._made(names, start, end, known, probabilities, why)

    def _made(
        self, names: list[str], start: np.ndarray, end: np.ndarray, known: np.ndarray, p: np.ndarray, why: list[str]
    ) -> Predictions:
        predicted, reason = decide(self._classes, p, self._min_confidence, why)
        n_frac = 1 - known / np.maximum(end - start, 1)
        return Predictions(self._classes, names, start, end, self._strand, n_frac, predicted, p, reason)


class _RecordRows(_WindowRows):
    """One row a record, made when its last window is scored; a record may span many buffers."""

    def __init__(self, predictor: Predictor, min_confidence: float, aggregate: Aggregation) -> None:
        super().__init__(predictor, min_confidence)
        self._aggregate: Aggregation = aggregate
        self._open: RecordAverage | None = None
        self._known = 0

    def rows(self, windows: list[RecordWindow], probabilities: np.ndarray) -> Predictions:
        """The rows of the records that end with one of these windows."""
        names: list[str] = []
        lengths: list[int] = []
        known: list[int] = []
        averages: list[np.ndarray] = []
        for window, p, scored in zip(windows, probabilities, ~np.isnan(probabilities[:, 0]), strict=True):
            whole = self._open is None and window.is_last
            if not whole:
                self._open = self._open or RecordAverage(len(self._classes), self._aggregate)
                self._known += window.new_known
                if scored:
                    self._open.add(p, window.known)
            if window.is_last:
                names.append(window.record)
                lengths.append(window.end)
                known.append(window.known if whole else self._known)
                averages.append(p if self._open is None else self._open.result())
                self._open, self._known = None, 0
        table = np.array(averages).reshape(len(names), len(self._classes))
        empty = np.isnan(table[:, 0]).tolist()
        why = [_why_unscored(b, k) if none else "" for b, k, none in zip(lengths, known, empty, strict=True)]
        end, counts = np.array(lengths, np.int64), np.array(known, np.int64)
        return self._made(names, np.zeros(len(names), np.int64), end, counts, table, why)


@contextmanager
def _progress(summary: Summary) -> Iterator[Any]:
    """Counts bases and windows as they pass; on a terminal, shows them with bases per second."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, began = bar.add_task("reading"), time.perf_counter()

        def counted(windows: Iterable[RecordWindow]) -> Iterator[RecordWindow]:
            covered, shown = 0, 0.0
            for window in windows:
                covered = 0 if window.start == 0 else covered
                summary.bases += window.end - covered
                summary.windows += 1
                covered = window.end
                if not bar.disable and (now := time.perf_counter()) - shown > 0.2:
                    rate = summary.bases / max(now - began, 1e-9)
                    bar.update(task, description=f"{summary.bases / 1e6:,.1f} Mb, {rate / 1e6:,.2f} Mb/s")
                    shown = now
                yield window

        yield counted


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that the temporary file is removed; only a main thread can arrange that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: object) -> None:
        raise Interrupted("by SIGTERM; nothing was written")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
