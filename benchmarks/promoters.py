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

from benchmarks.common import print_table, save_results
from genomamba.classifier.config import FinetuneData
from genomamba.classifier.tasks.tasks import table_data
from genomamba.commands.finetune import run_finetune


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
    rows = _rows(report)
    print_table(f"{options.data.name}: test split, {len(data.test):,} sequences", rows)
    save_results(
        "promoters",
        {
            "name": options.data.name,
            "shares": [run["shares"] for run in report["runs"]],
            "warnings": list(data.warnings),
            "rows": rows,
        },
        data=[train, valid, test],
        seeds=range(options.seeds),
    )


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The report's methods; the first three are means over seeds."""
    runs, baselines = report["runs"], report["baselines"]
    minutes = sum(run["seconds"] for run in runs) / len(runs) / 60
    label = f"genomamba, bidirectional, from scratch ({len(runs)} seeds)"
    kmer = baselines["kmer"]
    return [
        {**_over_seeds(label, report["test"]), "minutes_a_seed": minutes},
        _over_seeds("its network alone", report["network_alone"]),
        _over_seeds("the same without its network", report["without_network"]),
        _row(f"{kmer['k']}-mer logistic regression", kmer["test"]),
        _row("one-hot position logistic regression", baselines["letters"]["test"]),
        _row("small CNN", baselines["cnn"]["test"]),
    ]


def _over_seeds(method: str, scores: dict[str, Any]) -> dict[str, Any]:
    means = {name: value["mean"] for name, value in scores.items()}
    return {**_row(method, means), "mcc_sd": scores["mcc"]["sd"]}


def _row(method: str, scores: dict[str, Any]) -> dict[str, Any]:
    shown = {name: scores[name] for name in ("macro_f1", "mcc", "auroc", "accuracy", "nll", "ece")}
    return {"method": method, **shown, "mcc_sd": None, "minutes_a_seed": None}


if __name__ == "__main__":
    main()
