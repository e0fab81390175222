"""The report of a fine-tuning run: what was learnt, how sure one may be of it, and what simpler methods reach."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genomamba.classifier.baselines import Baselines, paired_difference
from genomamba.classifier.examples import LabelledData
from genomamba.classifier.metrics import Metrics, by_length, spread
from genomamba.classifier.shares import Shares
from genomamba.classifier.typicality import Unlike
from mamba_data_prep.atomic import atomic_write
from mamba_training.learning_curve import Curves, draw_learning_curve
from mamba_training.model_card import markdown_table

_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auroc", "nll", "brier", "ece")
_SURE = 0.01
THIS = "this model"
FROZEN = "frozen"
"""The status of a run that fitted a head on features of a frozen model."""


@dataclass(frozen=True, eq=False)
class SeedResult:
    """How one trained model did on the held-out splits.

    Attributes:
        shares: of the parts in the logits, fitted on validation.
        valid, test: scores of all parts together.
        network: scores of the network alone on test, tempered on validation.
        without: scores of the other parts on test, without the network.
        probabilities: of the test examples, (M, C).
        folder: its run folder.
    """

    seed: int
    status: str
    steps: int
    seconds: float
    shares: Shares
    valid: Metrics
    test: Metrics
    network: Metrics
    without: Metrics
    probabilities: np.ndarray
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON (probabilities left out)."""
        plain = {name: getattr(self, name) for name in ("seed", "status", "steps", "seconds")}
        scores = {name: getattr(self, name).to_dict() for name in ("shares", "valid", "test", "network", "without")}
        return {**plain, "folder": str(self.folder), **scores}


def chosen(results: Sequence[SeedResult]) -> SeedResult:
    """The run with the highest validation likelihood; the test split has no say."""
    return min(results, key=lambda result: result.valid.nll)


def build_report(
    data: LabelledData,
    results: Sequence[SeedResult],
    baselines: Baselines,
    unlike: Unlike,
    pretrained: tuple[Mapping[str, Any], str] | None = None,
) -> dict[str, Any]:
    """Everything that is known about a run, as JSON holds it.

    Args:
        data: the splits.
        results: of each seed.
        baselines: on the same splits.
        unlike: test sequences that are unlike the training data.
        pretrained: what the model that training began from had read of the test split, see `pretraining_note`.
    """
    best = chosen(results)
    name, other, theirs = baselines.strongest
    only_we, only_they, p = paired_difference(data.test.labels, best.probabilities, theirs)
    return {
        "classes": list(data.classes),
        "window": data.window,
        "data": {**data.description, "counts": data.counts(), "warnings": list(data.warnings)},
        "test": _summary([result.test for result in results]),
        "network_alone": _summary([result.network for result in results]),
        "without_network": _summary([result.without for result in results]),
        "runs": [result.to_dict() for result in results],
        "chosen_seed": best.seed,
        "baselines": baselines.to_dict(),
        "by_length": by_length(data.test.labels, best.probabilities, data.test.lengths()),
        "against": {"baseline": name, "only_ours_right": only_we, "only_theirs_right": only_they, "p": p},
        "typicality": asdict(unlike),
        **({} if pretrained is None else {"pretrained_model": dict(pretrained[0])}),
        "verdict": [
            *verdict(best.test, (name, other), baselines.shortcut, (only_we, only_they, p)),
            best.shares.words,
            unlike.words,
            *([] if pretrained is None else [pretrained[1]]),
        ],
    }


def _summary(scores: Sequence[Metrics]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation and number of each score over the seeds."""
    summary = {}
    for name in _SHOWN:
        values = [getattr(one, name) for one in scores]
        if all(value is not None for value in values):
            mean, deviation = spread(values)
            summary[name] = {"mean": mean, "sd": deviation, "n": len(values)}
    return summary


def verdict(
    test: Metrics, baseline: tuple[str, Metrics], shortcut: Metrics, pairs: tuple[int, int, float]
) -> list[str]:
    """Plain sentences on what the figures allow one to say.

    Args:
        test: our scores.
        baseline: the strongest baseline's name and scores.
        shortcut: what length and unknown bases alone reach.
        pairs: as `paired_difference` gives them.
    """
    chance = max(sum(row) for row in test.confusion) / test.n  # the commonest class of the test split itself
    error = math.sqrt(max(chance * (1 - chance), 1e-9) / test.n)
    above = test.accuracy - chance
    lines = []
    if above < 2 * error:
        lines.append(
            f"No better than chance: accuracy {test.accuracy:.1%} on {test.n:,} test examples, where always giving the "
            f"commonest class reaches {chance:.1%} and two standard errors are {2 * error:.1%}."
        )
    else:
        lines.append(
            f"Above chance: accuracy {test.accuracy:.1%} on {test.n:,} test examples, commonest class {chance:.1%}, "
            f"two standard errors {2 * error:.1%}."
        )
    only_we, only_they, p = pairs
    name, other = baseline
    counted = f"{only_we:,} examples only it gets right, {only_they:,} only the other, p = {p:.2g}"
    if p >= _SURE:
        lines.append(f"Not distinguishable from {name}, the strongest baseline on validation ({counted}).")
    elif only_we > only_they:
        lines.append(f"Better than {name}, the strongest baseline on validation ({counted}).")
    else:
        lines.append(f"Worse than {name}, the strongest baseline on validation ({counted}): use that.")
    better = "better than" if test.nll < other.nll else "worse than"
    if math.isclose(test.nll, other.nll, abs_tol=5e-4):
        better = "as good as"
    losses = f"{test.nll:.3f} nats lost an example, {other.nll:.3f} with that baseline"
    lines.append(f"Its probabilities are {better} the baseline's: {losses}.")
    if shortcut.accuracy - chance > 2 * error:
        lines.append(
            f"Caution: length and unknown bases alone reach {shortcut.accuracy:.1%}; the data give their classes away."
        )
    return lines


def write_report(folder: Path, report: Mapping[str, Any], results: Sequence[SeedResult], data: LabelledData) -> None:
    """Writes report.json and report.md, the plots of the chosen run, and the test predictions of each seed."""
    from genomamba.classifier.plots import plot_confusion, plot_reliability

    best = chosen(results)
    with atomic_write(folder / "report.json") as file:
        json.dump(report, file, indent=2, default=float)
        file.write("\n")
    plot_confusion(folder / "confusion.png", best.test, data.classes)
    plot_reliability(folder / "reliability.png", best.test)
    if best.status != FROZEN:
        draw_learning_curve(folder / "learning_curve.png", [r.folder / "metrics.csv" for r in results], Curves())
    for result in results:
        _write_predictions(result.folder / "test_predictions.tsv", result, data)
    _write_predictions(folder / "test_predictions.tsv", best, data)
    with atomic_write(folder / "report.md") as file:
        file.write(markdown(report))


def _write_predictions(path: Path, result: SeedResult, data: LabelledData) -> None:
    with atomic_write(path) as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(["example", "label", "predicted", *(f"prob_{name}" for name in data.classes)])
        for i, (label, p) in enumerate(zip(data.test.labels, result.probabilities, strict=True)):
            rows.writerow([i, data.classes[label], data.classes[int(p.argmax())], *(f"{value:.6f}" for value in p)])


def markdown(report: Mapping[str, Any]) -> str:
    """Writes the report for people, as Markdown."""
    parts = [
        "# Fine-tuning report\n",
        *(f"* {line}\n" for line in report["verdict"]),
        "\n## Scores on the held-out test split\n\n",
        comparison_table(report),
        "\nEverything was chosen on validation; the test split was scored once a run. Probabilities are tempered by "
        "factors fitted on validation. ECE: expected calibration error; Brier: 0 is best. +- is the standard deviation "
        "over seeds.\n",
        "\n## Data\n\n",
        _counts_table(report["data"]["counts"]),
        "\n",
        *(
            f"* {key}: {value}\n"
            for key, value in report["data"].items()
            if key not in ("counts", "warnings") and value
        ),
        *(f"* Note: {line}.\n" for line in report["data"]["warnings"]),
        f"\n## Confusion on test (seed {report['chosen_seed']}; rows true, columns predicted)\n\n",
        _confusion_table(report),
        "\n![confusion](confusion.png) ![reliability](reliability.png)",
        "\n" if report["runs"][0]["status"] == FROZEN else " ![learning curve](learning_curve.png)\n",
    ]
    return "".join(parts)


def comparison_table(report: Mapping[str, Any]) -> str:
    """Our scores and the baselines', as a Markdown table."""
    heads, rows = comparison(report)
    ours = [[label.replace(THIS, f"**{THIS}**"), *cells] for label, *cells in rows]
    return markdown_table(heads, ours) + "\n"


def comparison(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Our scores and the baselines': names of the columns, and a row of text for each method, ours first."""
    names = [name for name in _SHOWN if name in report["test"]]
    rows = []
    n = report["test"][names[0]]["n"]
    ours = {"test": THIS, "network_alone": "its network alone", "without_network": "the same without its network"}
    for key, label in ours.items():
        if key in report:
            cells = [
                f"{report[key][name]['mean']:.3f}" + (f" +- {report[key][name]['sd']:.3f}" if n > 1 else "")
                for name in names
            ]
            rows.append([f"{label} ({n} seeds)" if n > 1 else label, *cells])
    kmer, letters, cnn = (report["baselines"].get(name) for name in ("kmer", "letters", "cnn"))
    simple = {
        f"{kmer['k']}-mer logistic regression ({_kmer_settings(kmer)})": kmer["test"],
        **({} if letters is None else {f"one-hot logistic regression (C {letters['C']:g}, tempered)": letters["test"]}),
        **({} if cnn is None else {f"small CNN ({cnn['epochs']} epochs, tempered)": cnn["test"]}),
        "length and unknown bases alone": report["baselines"]["shortcut"],
        "class frequencies": report["baselines"]["majority"],
    }
    for label, metrics in simple.items():
        rows.append([label, *("" if metrics[name] is None else f"{metrics[name]:.3f}" for name in names)])
    return ["method", *(name.replace("_", " ") for name in names)], rows


def _kmer_settings(kmer: Mapping[str, Any]) -> str:
    strands = ", both strands" if kmer.get("both_strands") else ""
    tempered = ", tempered" if "temperature" in kmer else ""  # reports of earlier releases have none
    return f"C {kmer['C']:g}{strands}{tempered}"


def counts_rows(counts: Mapping[str, Mapping[str, int]]) -> tuple[list[str], list[list[Any]]]:
    """Examples of each class in each split: names of the columns, and a row for each split."""
    classes = list(next(iter(counts.values())))
    return ["split", *classes], [[split, *(row[name] for name in classes)] for split, row in counts.items()]


def _counts_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    heads, rows = counts_rows(counts)
    return markdown_table(heads, [[split, *(f"{n:,}" for n in row)] for split, *row in rows]) + "\n"


def _confusion_table(report: Mapping[str, Any]) -> str:
    best = next(run for run in report["runs"] if run["seed"] == report["chosen_seed"])
    rows = zip(report["classes"], best["test"]["confusion"], strict=True)
    return markdown_table(["", *report["classes"]], [[f"**{name}**", *row] for name, row in rows]) + "\n"
