"""What the fits of the study of promoters say: scores over seeds, how methods agree, and the labels' own faults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genomamba.studies.charts import Chart, Line
from genomamba.studies.intervals import over_seeds
from genomamba.studies.promoters.fits import scores
from genomamba.studies.study import Findings

Results = Mapping[str, Any]


def findings(results: Mapping[str, Results], about: Mapping[str, str], minutes: float | int) -> Findings:
    """The tables, sentences and picture of all sets."""
    rows = [{"set": name, **row} for name, result in results.items() for row in _rows(result)]
    limits = [{"set": name, **_limits(result)} for name, result in results.items()]
    words = [sentence for name, result in results.items() for sentence in _words(name, result, rows)]
    return Findings(
        title="Promoters",
        question="How well are promoters told from other sequence by a small bidirectional Mamba, trained from scratch "
        f"in {minutes:g} minutes, by a frozen model that ships, and by simple methods on the same splits?",
        protocol=[
            *(f"{name}: {text}" for name, text in about.items()),
            "Everything is chosen on validation; the test split is scored once a fit. Rows that stand in a later split "
            "too, on either strand, are not trained on.",
            "Intervals are of 95 % over seeds (Student's t) and say how much training varies; what the choice of test "
            "sequences adds is given as two standard errors of the accuracy.",
        ],
        tables={"Scores on the test split": rows, "What the test split itself allows": limits},
        words=words,
        chart=Chart(_lines(rows), "", "macro F1 on the test split"),
    )


def _rows(result: Results) -> list[dict[str, Any]]:
    ours, labels = result["scratch"], np.array(result["labels"]["test"])
    found = [_over("this classifier, from scratch", [run["test"] for run in ours["runs"]])]
    found.append(_over("its network alone", [run["network"] for run in ours["runs"]]))
    found.append(_over("the same without its network", [run["without"] for run in ours["runs"]]))
    if "frozen" in result:
        found.append(_over("head on the frozen model", [run["test"] for run in result["frozen"]["runs"]]))
    kept = result["scratch"]["baselines"]
    if result["cnn"]["runs"]:
        found.append(_over("small CNN", [run["test"] for run in result["cnn"]["runs"]]))
    if "letters" in kept:
        found.append(_over("one-hot logistic regression", [kept["letters"]["test"]]))
    found.append(_over(f"{kept['kmer']['k']}-mer logistic regression", [kept["kmer"]["test"]]))
    if len(ours["classes"]) == 2:
        found += [_over(name, [scores(labels, mean)], seeds) for name, mean, seeds in _ensembles(result)]
    return found


def _ensembles(result: Results) -> list[tuple[str, np.ndarray, int]]:
    """Mean probabilities of several fits: what training noise hides."""
    ours, cnn = (np.array(result[name]["probabilities"]) for name in ("scratch", "cnn"))
    found = [("mean of all seeds of this classifier", ours.mean(0), len(ours))] if len(ours) > 1 else []
    if len(cnn) > 0:
        found.append(("mean of this classifier's seeds and the CNN's", (ours.mean(0) + cnn.mean(0)) / 2, len(ours)))
    return found


def _over(method: str, tests: Sequence[Mapping[str, Any]], seeds: int | None = None) -> dict[str, Any]:
    mean, low, high = over_seeds([test["macro_f1"] for test in tests])
    some = len(tests) > 1
    means = {name: float(np.mean([test[name] for test in tests])) for name in ("mcc", "accuracy", "auroc")}
    return {
        "method": method, "seeds": seeds or len(tests), "macro_f1": mean, "low": low if some else None,
        "high": high if some else None, **means,
    }  # fmt: skip


def _limits(result: Results) -> dict[str, Any]:
    """How many test sequences nobody gets right, and how many are called otherwise in training."""
    labels, told = np.array(result["labels"]["test"]), result["labels"]
    every = np.array([*result["scratch"]["probabilities"], *result["cnn"]["probabilities"],
                      *result.get("frozen", {}).get("probabilities", [])])  # fmt: skip
    wrong = (every > 0.5).astype(int) != labels
    ceiling = (~wrong).any(0)
    return {
        "test sequences": len(labels), "nearly in training": told["near"],
        "of these with the other label": told["near_other_label"], "fits": len(every),
        "right in every fit": int((~wrong).all(0).sum()), "wrong in every fit": int((~ceiling).sum()),
        "share that some fit gets right": float(ceiling.mean()),
    }  # fmt: skip


def _words(name: str, result: Results, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    own = [row for row in rows if row["set"] == name]
    ours = own[0]
    simple = [row for row in own if "regression" in row["method"] and "frozen" not in row["method"]]
    simple += [row for row in own if row["method"] == "small CNN"]
    best = max(simple, key=lambda row: row["macro_f1"])
    n = len(result["labels"]["test"])
    doubt = 2 * math.sqrt(ours["accuracy"] * (1 - ours["accuracy"]) / n)
    limits = _limits(result)
    return [
        f"{name}: macro F1 {ours['macro_f1']:.3f} over {ours['seeds']} seed(s); the best simple method, "
        f"{best['method']}, {best['macro_f1']:.3f}; {n:,} test sequences leave a doubt of +- {doubt:.3f}.",
        f"{name}: {limits['wrong in every fit']:,} of {n:,} test sequences are wrong in each of {limits['fits']} fits; "
        f"of {limits['nearly in training']:,} that are nearly copies of a training sequence, "
        f"{limits['of these with the other label']:,} have the other label there.",
    ]


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines = []
    for name in sets:
        own = [row for row in rows if row["set"] == name]
        intervals = [
            (
                row["macro_f1"] if row["low"] is None else row["low"],
                row["macro_f1"] if row["high"] is None else row["high"],
            )
            for row in own
        ]
        lines.append(Line(name, [row["method"] for row in own], [row["macro_f1"] for row in own], intervals))
    return lines
