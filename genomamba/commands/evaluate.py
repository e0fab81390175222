"""`genomamba evaluate`: a classifier scored on labelled sequences it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genomamba import tokens
from genomamba.classifier.metrics import Metrics, score
from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.tasks.labelled_tables import SPLIT_NAMES, TableRow, read_table
from genomamba.classifier.tasks.tasks import centre, named_files
from genomamba.commands.checks import check_evaluate
from genomamba.prediction.predictor import DEFAULT_BATCH_BASES, Predictor
from genomamba.prediction.record_windows import record_windows
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import stream_fasta
from mamba_training.devices import pick_device

_PIECE_BASES = 2**22


def run_evaluate(
    *,
    model: Path,
    table: Path | None = None,
    fasta: Path | None = None,
    classes: Sequence[str] = (),
    split: str = "test",
    out: Path | None = None,
    overwrite: bool = False,
    both_strands: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Scores a model; language models on a genome, classifiers on a table or on one FASTA file a class.

    Args:
        model: bundle or run folder.
        table: sequence, label[, split]; without a split column all rows are scored.
        fasta: genome for a language model.
        classes: `NAME=FASTA` texts; every record, window by window, is an example of its class.
        split: train, valid, test or all.
        out: folder for evaluation.json and the plots.
        overwrite: replace an earlier evaluation.

    Raises:
        UserError: the labels are not the model's classes, or nothing is left to score.
    """
    check_evaluate(model=model, table=table, fasta=fasta, classes=classes, out=out, overwrite=overwrite)
    if fasta is not None:
        from genomamba.language_model.scoring import evaluate_lm

        return evaluate_lm(model=model, fasta=fasta, split=split, out=out, device=device)
    chosen = pick_device(device)
    network = SequenceClassifier.from_bundle(model).to(chosen)
    predictor = Predictor(network, chosen, DEFAULT_BATCH_BASES, both_strands)
    if table is not None:
        labels, probabilities = _score_table(predictor, table, split)
    else:
        labels, probabilities = _score_files(predictor, named_files(classes))
    metrics = score(labels, probabilities)
    names = network.config.classes
    result = {"model": str(model), "classes": list(names), "both_strands": both_strands, "test": metrics.to_dict()}
    if out is not None:
        _write(out, result, metrics, names)
    return {**result, "text": _text(metrics, names)}


def _score_table(predictor: Predictor, table: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    rows = read_table(table)
    if rows[0].split is not None and split != "all":
        if split.lower() not in SPLIT_NAMES:
            raise UserError("The split is unknown", found=split, accepted="train, valid, test or all")
        rows = [row for row in rows if row.split == SPLIT_NAMES[split.lower()]]
    if not rows:
        raise UserError(f"The table has no row in the {split} split", path=table, fix="--split all")
    config = predictor.model.config
    unknown = next((row for row in rows if row.label not in config.classes), None)
    if unknown is not None:
        raise UserError(
            "The label is none of the model's classes", path=table, line=unknown.line, found=unknown.label,
            accepted=", ".join(config.classes[:20]),
        )  # fmt: skip
    labels = np.array([config.classes.index(row.label) for row in rows], np.int64)
    return labels, np.concatenate([predictor.probabilities(part) for part in _pieces(rows, config.window)])


def _pieces(rows: list[TableRow], window: int) -> list[list[np.ndarray]]:
    """Token ids of the rows' middles, in lists of some megabases."""
    pieces: list[list[np.ndarray]] = [[]]
    held = 0
    for row in rows:
        if held > _PIECE_BASES:
            pieces.append([])
            held = 0
        pieces[-1].append(tokens.encode(centre(row.bases, window)))
        held += len(pieces[-1][-1])
    return pieces


def _score_files(predictor: Predictor, files: Mapping[str, Sequence[Path]]) -> tuple[np.ndarray, np.ndarray]:
    config = predictor.model.config
    labels: list[int] = []
    parts: list[np.ndarray] = []
    for name, paths in files.items():
        if name not in config.classes:
            raise UserError("This is none of the model's classes", found=name, accepted=", ".join(config.classes[:20]))
        for path in paths:
            held: list[np.ndarray] = []
            for window in record_windows(stream_fasta(path, unique_ids=False), config.window, config.window):
                if 2 * window.known < min(config.window, len(window.ids)):
                    continue
                held.append(window.ids)
                labels.append(config.classes.index(name))
                if len(held) * config.window > _PIECE_BASES:
                    parts.append(predictor.probabilities(held))
                    held = []
            if held:
                parts.append(predictor.probabilities(held))
    if not labels:
        raise UserError("No window with known bases is left to score", fix="give files with more sequence")
    return np.array(labels, np.int64), np.concatenate(parts)


def _write(out: Path, result: Mapping[str, Any], metrics: Metrics, names: Sequence[str]) -> None:
    from genomamba.classifier.plots import plot_confusion, plot_reliability

    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "evaluation.json") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
    plot_confusion(out / "confusion.png", metrics, names)
    plot_reliability(out / "reliability.png", metrics)


def _text(metrics: Metrics, names: Sequence[str]) -> str:
    lines = [f"{metrics.n:,} examples"]
    lines += [f"  {k.replace('_', ' '):<18} {'' if v is None else f'{v:.4f}'}" for k, v in metrics.headline().items()]
    width = max(map(len, names))
    lines.append("confusion (rows true, columns predicted in the same order):")
    lines += [
        f"  {name:<{width}} {' '.join(f'{n:>8,}' for n in row)}"
        for name, row in zip(names, metrics.confusion, strict=True)
    ]
    return "\n".join(lines)
