"""`genomamba classify`: a FASTA file of any size to a prediction table, in constant memory and in the input's order."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.typicality import UNLIKE
from genomamba.commands.checks import check_classify
from genomamba.prediction.classified import MIN_BASES, classify_windows
from genomamba.prediction.igv import write_session
from genomamba.prediction.kraken import write_kraken_report
from genomamba.prediction.partial import Kept
from genomamba.prediction.predictor import DEFAULT_BATCH_BASES, Aggregation, Predictor
from genomamba.prediction.progress import ReadingProgress
from genomamba.prediction.record_windows import RecordWindow, record_windows
from genomamba.prediction.rows import ABSTAIN, Least, Predictions, no_predictions
from genomamba.prediction.source import Source
from genomamba.prediction.stopping import until_refused
from genomamba.prediction.summary_page import write_summary_page
from genomamba.prediction.table_job import TableJob
from genomamba.prediction.writers import OF_WINDOWS, TRACKS, output_format, table_writer
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import fingerprint
from mamba_training.devices import pick_device
from mamba_training.progress import say

_TOLD = ("window", "stride", "both_strands", "min_confidence", "min_typicality", "min_bases")
"""Settings that a report names."""
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
        judged: rows whose typicality of the training data is known.
        unlike: those of them that are unlike it, see `genomamba.classifier.typicality`.
        seconds: from the first base to the last row.
    """

    classes: tuple[str, ...]
    rows: int = 0
    bases: int = 0
    windows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    judged: int = 0
    unlike: int = 0
    seconds: float = 0.0

    def add(self, rows: Predictions) -> None:
        """Counts the rows of a chunk."""
        self.rows += len(rows)
        self.counts.update(rows.predicted)
        self.reasons.update(filter(None, rows.reason))
        self.judged += int(np.isfinite(rows.typicality).sum())
        self.unlike += int((rows.typicality < UNLIKE).sum())

    def take_over(self, kept: Kept) -> None:
        """Counts the rows of an earlier run."""
        self.rows += kept.rows
        self.counts.update(kept.result.get("counts", {}))
        self.reasons.update(kept.result.get("reasons", {}))
        self.judged += int(kept.result.get("judged", 0))
        self.unlike += int(kept.result.get("unlike", 0))

    def result(self) -> dict[str, Any]:
        """Gives plain numbers for JSON."""
        return {
            "rows": self.rows, "bases": self.bases, "seconds": self.seconds, "counts": dict(self.counts),
            "reasons": dict(self.reasons), "judged": self.judged, "unlike": self.unlike,
        }  # fmt: skip

    def text(self, out: Path, hint: str | None = None) -> str:
        """Tells it in some lines for people."""
        shown = [name for name in (*self.classes, ABSTAIN) if self.counts.get(name)]
        return "\n".join(
            [
                f"{self.rows:,} rows, {self.bases:,} bases in {self.seconds:.1f} s "
                f"({self.bases / max(self.seconds, 1e-9):,.0f} bases/s) -> {out}",
                *(f"  {name:<20} {self.counts[name]:>12,}" for name in shown),
                *([] if not self.judged else [self._foreign()]),
                *([] if hint is None else [f"hint: {hint}"]),
            ]
        )

    def _foreign(self) -> str:
        return (
            f"{self.unlike:,} of {self.judged:,} rows ({self.unlike / self.judged:.1%}) are unlike the training data: "
            f"typicality below {UNLIKE:g}, as it is for at most {UNLIKE:.0%} of sequences like the model's own"
        )


def run_classify(
    *,
    model: Path,
    fasta: Path,
    out: Path,
    both_strands: bool = False,
    min_confidence: float = 0.0,
    min_typicality: float = 0.0,
    window: int | None = None,
    stride: int | None = None,
    per_window: bool = False,
    aggregate: Aggregation = "mean",
    min_bases: int = MIN_BASES,
    batch_bases: int | None = None,
    track: str | None = None,
    bed: Path | None = None,
    regions: Sequence[str] = (),
    device: str = "auto",
    kraken_report: Path | None = None,
    report: Path | None = None,
    igv: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Classifies every record (or window) of a FASTA file and writes the table and its sidecar.

    Args:
        model: bundle or run folder of a classifier.
        fasta: FASTA, FASTQ, GenBank, EMBL or .2bit, plain, gzip or bgzip; "-" is standard input.
        out: the table; its extension is its format, compressed where `.gz` follows. `.bed` and `.bw` files always hold
            windows. "-" writes TSV to standard output, without a sidecar.
        min_confidence: rows whose likeliest class has less abstain.
        min_typicality: rows that are less typical of the training data abstain, see `genomamba.classifier.typicality`.
        window: longest stretch read at once, in bases; the model's own by default.
        stride: bases from window to window of a longer record; the window by default.
        per_window: a row for each window rather than for each record.
        aggregate: how a record's windows are averaged.
        min_bases: windows with fewer known bases abstain.
        bed: classify only these regions, each a row of its own; one on the minus strand is read from it.
        regions: the same, named as samtools names them, with or without a strand.
        track: the class whose probability a `.bw` shows; the last class by default.
        kraken_report: a report in Kraken's format beside the table, for MultiQC.
        report: a page on the table, `.html`: classes, confidence, lengths, and what the model promises.
        igv: a session that IGV opens, `.xml`: the genome and the track that `out` is.
        overwrite: replace an existing output, and rows that a stopped run of other work left beside it.

    Returns:
        `rows`, `bases`, `seconds`, `counts`, `reasons`, `judged` and `unlike` (rows whose typicality is known, and rows
        below 0.01) and `hint`, and under `text` the same for people.

    Raises:
        UserError: something about the model, the file or the output; nothing is left under `out`. Where the file is
            refused in its middle, the rows of the records before are kept beside the output, as `NAME.partial.tsv`.
        Interrupted: stopped by Ctrl-C or SIGTERM. The rows so far are kept in the same way, and the same call goes on
            after them; see `genomamba.prediction.partial`.
    """
    check_classify(
        model=model, fasta=fasta, out=out, bed=bed, regions=regions, kraken_report=kraken_report, report=report,
        igv=igv, overwrite=overwrite,
    )  # fmt: skip
    source = Source.of(fasta, bed, regions, in_order=output_format(out) in TRACKS)
    per_window = output_format(out) in OF_WINDOWS or per_window
    chosen = pick_device(device)
    network = SequenceClassifier.from_bundle(model).to(chosen)
    _check_typicality(network, model, min_typicality)
    window, stride = _window_and_stride(network, window, stride)
    settings = {
        "window": window, "stride": stride, "per_window": per_window, "both_strands": both_strands,
        "min_confidence": min_confidence, "min_typicality": min_typicality, "aggregate": aggregate,
        "min_bases": min_bases, "track": track, "device": str(chosen), "regions": list(regions),
        "bed": None if bed is None else fingerprint(bed).xxh3_128,
    }  # fmt: skip
    inputs = () if bed is None else (bed,)
    job = TableJob(model, fasta, out, settings, network.config.training.get("seed"), inputs)
    kept = job.kept(overwrite=overwrite)
    if window < min_bases:
        say(f"note: {_too_narrow(window, min_bases)}")
    predictor = Predictor(network, chosen, batch_bases or DEFAULT_BATCH_BASES, both_strands)
    summary = Summary(network.config.classes)
    job.run(lambda whole: _stream(job, source, predictor, kept, summary, whole), summary)
    hint = _hint(summary, settings)
    result = {**summary.result(), "hint": hint}
    job.finish(result)
    if kraken_report is not None:
        write_kraken_report(kraken_report, network.config.classes, summary.counts)
    if report is not None:
        facts = {"file": fasta, "model": model, "table": out, **{name: settings[name] for name in _TOLD}}
        write_summary_page(report, out, f"{fasta.name} classified", facts, network.config.training.get("test", {}))
    if igv is not None:
        write_session(igv, fasta, out)
    return {"out": str(out), **result, "text": summary.text(out, hint)}


def _stream(
    job: TableJob, source: Source, predictor: Predictor, kept: Kept | None, summary: Summary, whole: Callable[[], Any]
) -> None:
    """Streams the file through the model into the table."""
    settings = job.settings
    how = {name: settings[name] for name in ("per_window", "aggregate", "min_bases")}
    how["least"] = Least(settings["min_confidence"], settings["min_typicality"])
    regions = source.genome is not None
    progress = ReadingProgress(job.fasta, source.total)
    stretches = source.stretches(on_raw=progress.on_raw, on_pieces=progress.pieces)
    windows = progress.windows(record_windows(stretches, settings["window"], settings["stride"]))

    def keep_as() -> Path | None:
        summary.bases, summary.windows = int(progress.bases), progress.windows_seen
        return job.keep_as(summary)

    nothing = no_predictions(summary.classes, regions=regions)
    opened = table_writer(job.out, nothing, settings["track"], lengths=source.lengths, keep_as=keep_as)
    with progress.shown(), opened as writer:
        if kept is not None:
            say(f"note: going on after the {kept.rows:,} rows in {kept.path}")
            writer.take_over(kept.path)
            summary.take_over(kept)
            _pass_over(windows, kept.rows, settings["per_window"])
            progress.passed_over()
        made = classify_windows(windows, replace(predictor, on_batch=progress.tick), regions=regions, **how)
        for rows in until_refused(made):
            with whole():
                writer.write(rows)
                summary.add(rows)
            progress.written()
    summary.bases, summary.windows = int(progress.bases), progress.windows_seen


def _pass_over(windows: Iterator[RecordWindow], rows: int, per_window: bool) -> None:
    """Reads on to the end of the windows whose rows are there already."""
    ends = (window for window in windows if per_window or window.is_last)
    next(itertools.islice(ends, rows - 1, rows), None)


def _check_typicality(network: SequenceClassifier, model: Path, least: float) -> None:
    if least and network.typicality is None:
        raise UserError(
            "the model does not know what is typical of its training data: it was made by an older version", path=model,
            fix="leave --min-typicality out, or fine-tune the model again",
        )  # fmt: skip


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
