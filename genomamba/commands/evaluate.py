"""`genomamba evaluate`: a classifier scored on labelled sequences it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genomamba.classifier.metrics import Metrics, by_length, measure
from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.read_before import Reading, ReadShare
from genomamba.classifier.tasks.evaluated_rows import chosen_intervals, chosen_rows, chosen_windows
from genomamba.classifier.tasks.interval_folders import IntervalFolder
from genomamba.classifier.tasks.intervals import class_genomes
from genomamba.classifier.tasks.of_run import TrainedOn
from genomamba.classifier.tasks.tasks import named_files
from genomamba.commands.checks import check_evaluate
from genomamba.prediction.predictor import DEFAULT_BATCH_BASES, Predictor
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_training.devices import pick_device

_PIECE_BASES = 2**22


def run_evaluate(
    *,
    model: Path,
    table: Path | None = None,
    fasta: Path | None = None,
    classes: Sequence[str] = (),
    intervals: Path | None = None,
    split: str | None = None,
    sequence_column: str | None = None,
    label_column: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    both_strands: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Scores a model; language models on a genome, classifiers on a table, labelled intervals or a FASTA file a class.

    Args:
        model: bundle or run folder.
        table: sequence, label[, split].
        fasta: genome for a language model, or of the intervals.
        classes: `NAME=FASTA` texts; every record, window by window, is an example of its class. Of intervals, the
            genome of a class.
        intervals: folder of labelled intervals.
        split: train, valid, test or all. By default the test split, of tables and folders that have one and of files
            that the model was trained on; of other files everything.
        sequence_column, label_column: the table's columns, where they have other names than the usual ones.
        out: folder for evaluation.json, report.html and the plots.
        overwrite: replace an earlier evaluation.

    Raises:
        UserError: the labels are not the model's classes, or nothing is left to score.
    """
    check_evaluate(
        model=model, table=table, fasta=fasta, classes=classes, intervals=intervals, out=out, overwrite=overwrite
    )
    if fasta is not None and intervals is None:
        from genomamba.language_model.scoring import evaluate_lm

        return evaluate_lm(model=model, fasta=fasta, split=split or "test", out=out, device=device)
    chosen = pick_device(device)
    network = SequenceClassifier.from_bundle(model).to(chosen)
    predictor = Predictor(network, chosen, DEFAULT_BATCH_BASES, both_strands)
    trained_on = TrainedOn.of_bundle(model, network.config.training)
    if intervals is not None:
        folder = IntervalFolder.open(intervals)
        rows = chosen_intervals(folder, class_genomes(folder, fasta, classes), network.config, trained_on, split)
    elif table is not None:
        rows = chosen_rows(table, trained_on, split, sequence_column, label_column)
    else:
        rows = chosen_windows(named_files(classes), network.config, trained_on, split)
    share = ReadShare(Reading.of_training_record(network.config.training, model))
    labels, probabilities, lengths = _scored(predictor, rows.pairs(network.config, share))
    metrics = measure(labels, probabilities)
    names = network.config.classes
    result = {
        "model": str(model), "classes": list(names), "both_strands": both_strands, "split": rows.split,
        "seen_in_training": rows.seen_in_training, "read_in_training": share.to_dict(), "test": metrics.to_dict(),
        "by_length": by_length(labels, probabilities, lengths),
    }  # fmt: skip
    said = f"{rows.said}; {share.sentence()}"
    if out is not None:
        _write(out, result, metrics, said)
    return {**result, "text": _text(metrics, names, said)}


def _scored(predictor: Predictor, pairs: Iterable[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (M,), probabilities (M, C) and lengths (M,) of token ids and their labels, some megabases at a time."""
    labels: list[int] = []
    lengths: list[int] = []
    parts: list[np.ndarray] = []
    held: list[np.ndarray] = []
    size = 0
    for ids, label in pairs:
        held.append(ids)
        labels.append(label)
        lengths.append(len(ids))
        size += len(ids)
        if size > _PIECE_BASES:
            parts.append(predictor.probabilities(held))
            held, size = [], 0
    if held:
        parts.append(predictor.probabilities(held))
    if not labels:
        raise UserError("no window with known bases is left to score", fix="give files with more sequence")
    return np.array(labels, np.int64), np.concatenate(parts), np.array(lengths, np.int64)


def _write(out: Path, result: Mapping[str, Any], metrics: Metrics, said: str) -> None:
    from genomamba.classifier.plots import plot_confusion, plot_reliability
    from genomamba.classifier.report_page import write_evaluation_page

    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "evaluation.json") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
    plot_confusion(out / "confusion.png", metrics, result["classes"])
    plot_reliability(out / "reliability.png", metrics)
    write_evaluation_page(out, result, metrics.headline(), said)


def _text(metrics: Metrics, names: Sequence[str], said: str) -> str:
    lines = [f"{metrics.n:,} examples: {said}"]
    lines += [f"  {k.replace('_', ' '):<18} {'' if v is None else f'{v:.4f}'}" for k, v in metrics.headline().items()]
    width = max(map(len, names))
    lines.append("confusion (rows true, columns predicted in the same order):")
    lines += [
        f"  {name:<{width}} {' '.join(f'{n:>8,}' for n in row)}"
        for name, row in zip(names, metrics.confusion, strict=True)
    ]
    return "\n".join(lines)
