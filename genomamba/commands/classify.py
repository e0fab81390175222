"""`genomamba classify`: a FASTA file of any size to a prediction table, in constant memory and in the input's order."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genomamba.classifier.network import SequenceClassifier
from genomamba.commands.checks import check_classify
from genomamba.prediction.classified import MIN_BASES, classify_windows
from genomamba.prediction.partial import Kept, can_go_on, describe, forget, partial_path, taken_over
from genomamba.prediction.predictor import DEFAULT_BATCH_BASES, Aggregation, Predictor
from genomamba.prediction.progress import ClassifyProgress
from genomamba.prediction.record_windows import RecordWindow, record_windows
from genomamba.prediction.rows import ABSTAIN, Predictions
from genomamba.prediction.stopping import InputRefused, stoppable, unstoppable, until_refused
from genomamba.prediction.writers import OF_WINDOWS, output_format, table_writer
from mamba_data_prep.errors import Interrupted, UserError
from mamba_data_prep.genomes.fasta import stream_fasta
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.regions import Region, parse_region, stream_regions
from mamba_data_prep.provenance import write_sidecar
from mamba_training.devices import pick_device
from mamba_training.progress import say

_PIECE = 2**16
"""Bases that are read at a time; so many at most are read and not counted yet."""
__all__ = ["MIN_BASES", "Summary", "classify_windows", "run_classify"]


@dataclass
class Summary:
    """What a classification did, as it is told at the end.

    Attributes:
        classes: names of the model's classes.
        rows: rows written, those of an earlier run that was gone on with among them.
        bases: bases of their records; bases where windows overlap count once.
        windows: windows of these.
        counts: rows of each class, and of "abstain".
        reasons: rows of each reason to abstain.
        seconds: from the first base to the last row.
    """

    classes: tuple[str, ...]
    rows: int = 0
    bases: int = 0
    windows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, rows: Predictions) -> None:
        """Counts the rows of a chunk."""
        self.rows += len(rows)
        self.counts.update(rows.predicted)
        self.reasons.update(filter(None, rows.reason))

    def take_over(self, kept: Kept) -> None:
        """Counts the rows of an earlier run."""
        self.rows += kept.rows
        self.counts.update(kept.counts)
        self.reasons.update(kept.reasons)

    def result(self) -> dict[str, Any]:
        """Gives plain numbers for JSON."""
        return {
            "rows": self.rows, "bases": self.bases, "seconds": self.seconds, "counts": dict(self.counts),
            "reasons": dict(self.reasons),
        }  # fmt: skip

    def text(self, out: Path, hint: str | None = None) -> str:
        """Tells it in some lines for people."""
        shown = [name for name in (*self.classes, ABSTAIN) if self.counts.get(name)]
        return "\n".join(
            [
                f"{self.rows:,} rows, {self.bases:,} bases in {self.seconds:.1f} s "
                f"({self.bases / max(self.seconds, 1e-9):,.0f} bases/s) -> {out}",
                *(f"  {name:<20} {self.counts[name]:>12,}" for name in shown),
                *([] if hint is None else [f"hint: {hint}"]),
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
        out: the table; its extension is its format, compressed where `.gz` follows. `.bed` and `.bw` files always hold
            windows. "-" writes TSV to standard output, without a sidecar.
        min_confidence: rows whose likeliest class has less abstain.
        window: longest stretch read at once, in bases; the model's own by default.
        stride: bases from window to window of a longer record; the window by default.
        per_window: a row for each window rather than for each record.
        aggregate: how a record's windows are averaged.
        min_bases: windows with fewer known bases abstain.
        regions: classify only these stretches, named as samtools names them; each is a record of its own.
        track: the class whose probability a `.bw` shows; the last class by default.
        overwrite: replace an existing output, and rows that a stopped run of other work left beside it.

    Returns:
        `rows`, `bases`, `seconds`, `counts`, `reasons` and `hint`, and under `text` the same for people.

    Raises:
        UserError: something about the model, the file or the output; nothing is left under `out`. Where the file is
            refused in its middle, the rows of the records before are kept beside the output, as `NAME.partial.tsv`.
        Interrupted: stopped by Ctrl-C or SIGTERM. The rows so far are kept in the same way, and the same call goes on
            after them; see `genomamba.prediction.partial`.
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
    to_file = str(out) != "-"
    kept = taken_over(out, fasta=fasta, model=model, settings=settings, overwrite=overwrite) if to_file else None
    if window < min_bases:
        say(f"note: {_too_narrow(window, min_bases)}")
    predictor = Predictor(network, chosen, batch_bases or DEFAULT_BATCH_BASES, both_strands)
    job = _Job(predictor, model, fasta, out, settings, kept)
    summary = job.run()
    hint = _hint(summary, settings)
    result = {**summary.result(), "hint": hint}
    if to_file:
        write_sidecar(
            out, inputs=[fasta], model=model, extra={"settings": settings, "result": result},
            seed=network.config.training.get("seed"),
        )  # fmt: skip
        forget(out)
    return {"out": str(out), **result, "text": summary.text(out, hint)}


@dataclass(frozen=True)
class _Job:
    """One file, from the model to the table."""

    predictor: Predictor
    model: Path
    fasta: Path
    out: Path
    settings: Mapping[str, Any]
    kept: Kept | None

    def run(self) -> Summary:
        """Streams the file through the model into the table.

        Raises:
            Interrupted: stopped; the rows so far are kept.
            UserError: the file is refused where it has been read to; the rows so far are kept.
        """
        summary, began = Summary(self.predictor.model.config.classes), time.perf_counter()
        try:
            with stoppable() as whole:
                self._stream(summary, whole)
        except KeyboardInterrupt as stop:
            with unstoppable():
                raise Interrupted(self._told(summary, str(stop) or "the keyboard")) from None
        except InputRefused as stop:
            with unstoppable():
                raise self._refused(summary, stop.error) from None
        summary.seconds = time.perf_counter() - began
        return summary

    def _stream(self, summary: Summary, whole: Callable[[], Any]) -> None:
        how = {name: self.settings[name] for name in ("per_window", "min_confidence", "aggregate", "min_bases")}
        regions, genome = self._regions()
        progress = ClassifyProgress(self.fasta, sum(r.end - r.start for r in regions) if genome else None)
        if genome is not None:
            pieces = stream_regions(genome, regions)
        else:
            pieces = stream_fasta(self.fasta, _PIECE, unique_ids=False, on_raw=progress.on_raw)
        windows = record_windows(progress.pieces(pieces), self.settings["window"], self.settings["stride"])
        windows = progress.windows(windows)

        def keep_as() -> Path | None:
            summary.bases, summary.windows = progress.bases, progress.windows_seen
            return partial_path(self.out) if summary.rows else None

        opened = table_writer(self.out, summary.classes, self.settings["track"], keep_as=keep_as)
        with progress.shown(), opened as writer:
            if self.kept is not None:
                say(f"note: going on after the {self.kept.rows:,} rows in {self.kept.path}")
                writer.take_over(self.kept.path)
                summary.take_over(self.kept)
                _pass_over(windows, self.kept.rows, self.settings["per_window"])
                progress.passed_over()
            made = classify_windows(windows, replace(self.predictor, on_batch=progress.tick), **how)
            for rows in until_refused(made):
                with whole():
                    writer.write(rows)
                    summary.add(rows)
                progress.written()
        summary.bases, summary.windows = progress.bases, progress.windows_seen

    def _regions(self) -> tuple[list[Region], Genome | None]:
        """The stretches of the file that were asked for, and the file to read them from; none for the whole file."""
        if not self.settings["regions"]:
            return [], None
        genome = Genome.open(self.fasta)
        return [parse_region(region, genome) for region in self.settings["regions"]], genome

    def _told(self, summary: Summary, by: str) -> str:
        """What is said of a stop: where the rows so far are, and how to go on."""
        if not summary.rows:
            return f"by {by}, before the first row was done; nothing was written"
        if str(self.out) == "-":
            return f"by {by}; the first {summary.rows:,} rows are written, whole, to standard output"
        path = self._describe_kept(summary)
        again = "run the same command again to go on after them"
        if not can_go_on(path, self.fasta):
            again = "they can't be added to: run the same command with --overwrite to start from the beginning"
        return f"by {by}; the first {summary.rows:,} rows are kept in {path}: {again}"

    def _refused(self, summary: Summary, error: UserError) -> UserError:
        """What is said of a file that is refused in its middle: what it was, and where the rows so far are."""
        if not summary.rows:
            return error
        if str(self.out) == "-":
            rows = f"the first {summary.rows:,} rows are written, whole, to standard output"
        else:
            path = self._describe_kept(summary)
            rows = f"the first {summary.rows:,} rows are kept in {path}, which --overwrite replaces when you run again"
        return UserError(
            error.problem, path=error.path, line=error.line, record=error.record, found=error.found,
            accepted=error.accepted, fix=rows if error.fix is None else f"{error.fix}; {rows}",
        )  # fmt: skip

    def _describe_kept(self, summary: Summary) -> Path:
        """The file of the rows so far, of which it is written beside it what they are."""
        path = partial_path(self.out)
        seed = self.predictor.model.config.training.get("seed")
        describe(path, fasta=self.fasta, model=self.model, settings=self.settings, result=summary.result(), seed=seed)
        return path


def _pass_over(windows: Iterator[RecordWindow], rows: int, per_window: bool) -> None:
    """Reads on to the end of the windows whose rows are there already."""
    ends = (window for window in windows if per_window or window.is_last)
    next(itertools.islice(ends, rows - 1, rows), None)


def _window_and_stride(network: SequenceClassifier, window: int | None, stride: int | None) -> tuple[int, int]:
    own = network.config.window
    window = window or own
    if network.config.stem.positions and window > own:
        raise UserError(
            "the window is longer than the model knows positions for", found=f"{window:,}", accepted=f"up to {own:,}",
            fix="leave --window out; longer records are read window by window",
        )  # fmt: skip
    stride = stride or window
    if stride > window:
        raise UserError(
            "the stride skips bases", found=f"stride {stride:,}, window {window:,}", accepted=f"1 to {window:,}",
            fix="give a smaller --stride; 1 to --window leaves no base out",
        )  # fmt: skip
    return window, stride


def _too_narrow(window: int, min_bases: int) -> str:
    return (
        f"windows of {window:,} bases never hold the {min_bases:,} known bases that --min-bases asks for: give a "
        f"larger --window, or --min-bases {window}"
    )


def _hint(summary: Summary, settings: Mapping[str, Any]) -> str | None:
    """What to change when not a single row has a class."""
    if not summary.rows or summary.counts[ABSTAIN] < summary.rows:
        return None
    window, min_bases = settings["window"], settings["min_bases"]
    if window < min_bases:
        return f"every row abstains: {_too_narrow(window, min_bases)}"
    reason = summary.reasons.most_common(1)[0][0]
    mend = {
        "no bases": "check that the file is whole",
        "no known base": "check that the file is not masked by N",
        "too short": f"fewer than {min_bases:,} known bases are not scored, which --min-bases changes",
        "too few known bases": f"windows of fewer than {min_bases:,} known bases are not scored, see --min-bases",
    }.get(reason, "lower --min-confidence to see the likeliest classes")
    return f"every row abstains, most of them because of '{reason}': {mend}"
