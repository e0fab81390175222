"""`auto` beside its ridge and S-Mamba on long-horizon data sets other than ETTh1, by the same protocol, one seed.

    python -m benchmarks.horizons [--etth2 ETTh2.csv] [--exchange exchange_rate.csv] [--illness national_illness.csv]
        [--ettm1_part FILE] [--ettm2_part FILE]

Everything is chosen on the validation rows. A run is written as soon as it is there, and what was measured is not
measured again. The last two are the first 203 and 216 days of ETTm1 and ETTm2, by the borders of other data sets.
Without a file there is nothing to do; nothing is downloaded.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import load_results, print_table, save_results
from tsmamba.benchmark.long_horizon import run_benchmark
from tsmamba.benchmark.published import HORIZONS

MODELS = ("auto", "ridge", "smamba")


@dataclass(frozen=True)
class DataSet:
    """A data set: its protocol's name, its horizons and the lookback that is customary, None for each model's own."""

    protocol: str
    horizons: tuple[int, ...] = HORIZONS
    lookback: int | None = None


DATA_SETS = {
    "etth2": DataSet("etth2"),
    "exchange": DataSet("custom"),
    "illness": DataSet("custom", (24, 36, 48, 60), 36),
    "ettm1_part": DataSet("custom"),
    "ettm2_part": DataSet("custom"),
}


def main() -> None:
    """Fits and scores what is not in the results yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in DATA_SETS:
        parser.add_argument(f"--{name}", type=Path, metavar="FILE")
    options = vars(parser.parse_args())
    torch.set_num_threads(1)
    if not any(options.values()):
        print("benchmarks.horizons: nothing to do without a file")
    for name, data_set in DATA_SETS.items():
        for horizon in data_set.horizons if options[name] else ():
            for model in MODELS:
                if not any(_is(run, name, horizon, model) for run in _runs()):
                    _keep(measure(name, options[name], horizon, model), [file for file in options.values() if file])
    if _runs():
        print_table("other long-horizon data sets, MSE/MAE", table(_runs()))


def measure(name: str, file: Path, horizon: int, model: str) -> dict[str, Any]:
    """One run."""
    data_set = DATA_SETS[name]
    found = run_benchmark(
        data_set.protocol, file, horizon, lookback=data_set.lookback, model=model, seeds=1, beside=False
    )
    return record(name, horizon, found)


def record(name: str, horizon: int, found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a benchmark's report."""
    run = found["seeds"][0]
    return {
        "data": name, "horizon": horizon, "model": run["model"], "lookback": run["lookback"],
        "mse": round(run["mse"], 4), "mae": round(run["mae"], 4), "windows": found["test_windows"],
        "mamba helped": run["chosen"].get("mamba_helped"),
    }  # fmt: skip


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a data set and horizon, the models side by side: MSE/MAE, and in parentheses the rows that each reads."""
    rows = []
    for name, data_set in DATA_SETS.items():
        for horizon in data_set.horizons:
            cells = {model: [run for run in runs if _is(run, name, horizon, model)] for model in MODELS}
            if any(cells.values()):
                errors = {k: _shown(v[0]) if v else "-" for k, v in cells.items()}
                kept = "yes" if cells["auto"] and cells["auto"][0]["mamba helped"] else "no"
                rows.append({"data": name, "horizon": horizon, **errors, "auto keeps its network": kept})
    return rows


def _shown(run: dict[str, Any]) -> str:
    return f"{run['mse']:.4f}/{run['mae']:.4f} ({run['lookback']})"


def _is(run: dict[str, Any], name: str, horizon: int, model: str) -> bool:
    return (run["data"], run["horizon"], run["model"]) == (name, horizon, model)


def _runs() -> list[dict[str, Any]]:
    return load_results("horizons").get("runs", [])


def _keep(run: dict[str, Any], data: list[Path]) -> None:
    runs = [*_runs(), run]
    save_results("horizons", {"table": table(runs), "runs": runs}, data=data, seeds=[0])


if __name__ == "__main__":
    main()
