"""The pages of a fine-tuning run and of an evaluation: one HTML file each, its pictures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from genomamba.classifier.report import FROZEN, comparison, counts_rows
from mamba_training import web_page as web

_SCORED: Final = (
    "Everything was chosen on validation; the test split was scored once a run. Probabilities are tempered by factors "
    "fitted on validation. NLL: nats lost an example; ECE: expected calibration error; Brier: 0 is best. +- is the "
    "standard deviation over seeds."
)
_SHORTCUTS: Final = (
    "What a regression reaches on the test split that sees nothing of an example but one number. Above the class "
    "frequencies, that number gives the classes away, and a model may have learnt it instead of the sequence."
)


def write_finetune_page(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes report.html into a run folder, from the report and the pictures that lie there.

    Args:
        folder: the run.
        report: see `genomamba.classifier.report.build_report`.
    """
    data = report["data"]
    heads, rows = comparison(report)
    parts = [web.note(line) for line in report["verdict"]]
    parts += [web.heading("Scores on the held-out test split"), web.table(heads, rows, [0]), web.words(_SCORED)]
    parts += _pictures(folder, learnt=report["runs"][0]["status"] != FROZEN)
    parts += _by_length(report["by_length"])
    parts += [web.heading("What gives the classes away"), *_shortcuts(report["baselines"])]
    parts += [web.heading("Data"), web.table(*counts_rows(data["counts"]))]
    known = [[key, str(value)] for key, value in data.items() if key not in ("counts", "warnings") and value]
    parts += [web.table(["", ""], known), *(web.note(f"Note: {line}.") for line in data["warnings"])]
    web.write_page(folder / "report.html", f"Classifier of DNA: {', '.join(report['classes'])}", parts)


def write_evaluation_page(
    folder: Path, result: Mapping[str, Any], headline: Mapping[str, float | None], said: str
) -> None:
    """Writes report.html beside evaluation.json, from that and the pictures that lie there.

    Args:
        folder: of the evaluation.
        result: what evaluation.json holds.
        headline: the scores that are single numbers.
        said: which examples were scored, and what the model had read of them before.
    """
    parts = [web.note(f"{result['test']['n']:,} examples: {said}.")]
    parts += [
        web.heading("Scores"),
        web.table([name.replace("_", " ") for name in headline], [list(headline.values())]),
    ]
    parts += _pictures(folder, learnt=False)
    by_class = zip(result["classes"], result["test"]["per_class_f1"], result["test"]["confusion"], strict=True)
    parts += [
        web.heading("By class"),
        web.table(
            ["true class", "F1", *(f"predicted {name}" for name in result["classes"])],
            [[name, f1, *row] for name, f1, row in by_class],
        ),
    ]
    parts += _by_length(result["by_length"])
    web.write_page(folder / "report.html", f"{Path(result['model']).name} evaluated", parts)


def _pictures(folder: Path, *, learnt: bool) -> list[str]:
    names = {"confusion.png": "confusion", "reliability.png": "reliability"}
    names |= {"learning_curve.png": "learning curve"} if learnt else {}
    return [web.picture((folder / name).read_bytes(), text) for name, text in names.items()]


def _by_length(rows: Sequence[Mapping[str, float]]) -> list[str]:
    if not rows:
        return []
    heads = ["bases", "examples", "accuracy", "NLL"]
    shown = [[f"{row['from']:,} to {row['to']:,}", row["n"], row["accuracy"], row["nll"]] for row in rows]
    return [web.heading("By length"), web.table(heads, shown)]


def _shortcuts(baselines: Mapping[str, Any]) -> list[str]:
    rows = [(f"{name} alone", metrics) for name, metrics in baselines["shortcuts"].items()]
    rows += [("length and unknown bases alone", baselines["shortcut"]), ("class frequencies", baselines["majority"])]
    heads = ["a regression on", "accuracy", "balanced accuracy", "AUROC", "NLL"]
    shown = [[name, *(m[key] for key in ("accuracy", "balanced_accuracy", "auroc", "nll"))] for name, m in rows]
    return [web.words(_SHORTCUTS), web.table(heads, shown)]
