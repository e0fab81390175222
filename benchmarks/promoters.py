"""Promoters against natural negatives: the classifier over seeds, beside baselines on the same splits.

    python -m benchmarks.promoters --data FOLDER      # with train.csv.gz, dev.csv.gz and test.csv.gz (sequence,label)

Everything is chosen on the development split; each model is scored on the test split once. Nothing is downloaded, and
without a folder there is nothing to do.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import print_table, save_results
from genomamba import tokens
from genomamba.classifier.config import FinetuneData
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.kmers import fit_logistic, kmer_baseline
from genomamba.classifier.metrics import Metrics, measure
from genomamba.classifier.tasks.tasks import table_data
from genomamba.commands.finetune import run_finetune

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def main() -> None:
    """Trains and scores everything, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train, dev and test .csv.gz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.data is None:
        print("benchmarks.promoters: nothing to do without --data FOLDER")
        return
    train, valid, test = (options.data / f"{name}.csv.gz" for name in ("train", "dev", "test"))
    data = table_data([train], FinetuneData(), valid=valid, test=test)
    with tempfile.TemporaryDirectory() as folder:
        report = run_finetune(
            task="table", out=Path(folder) / "run", overrides=options.overrides, seeds=options.seeds, table=(train,),
            valid=valid, test=test,
        )  # fmt: skip
    rows = [_ours(report), *_baselines(data)]
    print_table(f"{options.data.name}: test split, {len(data.test):,} sequences", rows)
    save_results(
        "promoters",
        {"name": options.data.name, "warnings": list(data.warnings), "rows": rows},
        data=[train, valid, test],
        seeds=range(options.seeds),
    )


def _ours(report: dict[str, Any]) -> dict[str, Any]:
    scores = {name: value["mean"] for name, value in report["test"].items()}
    minutes = sum(run["seconds"] for run in report["runs"]) / len(report["runs"]) / 60
    label = f"genomamba, bidirectional, from scratch ({len(report['runs'])} seeds)"
    return {**_row(label, scores), "mcc_sd": report["test"]["mcc"]["sd"], "minutes_a_seed": minutes}


def _row(method: str, scores: dict[str, Any]) -> dict[str, Any]:
    shown = {name: scores[name] for name in ("macro_f1", "mcc", "auroc", "accuracy", "ece")}
    return {"method": method, **shown, "mcc_sd": None, "minutes_a_seed": None}


def _baselines(data: LabelledData) -> list[dict[str, Any]]:
    n = len(data.classes)
    splits = [(examples, examples.labels) for examples in data.splits().values()]
    kmer = kmer_baseline(splits[0], splits[1], splits[2], n)
    return [
        _row(f"{kmer.k}-mer logistic regression", kmer.test.headline()),
        _row("one-hot position logistic regression", _one_hot_logistic(data, n).headline()),
    ]


def _one_hot_logistic(data: LabelledData, n_classes: int) -> Metrics:
    train, valid, test = (_one_hot(examples, data.window) for examples in data.splits().values())
    fits = [fit_logistic(train, data.train.labels, n_classes, strength) for strength in STRENGTHS]
    best = max(fits, key=lambda fit: measure(data.valid.labels, fit.probabilities(valid)).mcc)
    return measure(data.test.labels, best.probabilities(test))


def _one_hot(examples: Examples, window: int) -> np.ndarray:
    """(M, 4 x window), zeros beyond a sequence's end."""
    table = np.zeros((len(examples), window, 4), np.float32)
    for row, bases in zip(table, examples, strict=True):
        ids = tokens.encode(bases).astype(np.int64) - tokens.FIRST_BASE
        known = np.flatnonzero((ids >= 0) & (ids < 4))
        row[known, ids[known]] = 1
    return table.reshape(len(examples), -1)


if __name__ == "__main__":
    main()
