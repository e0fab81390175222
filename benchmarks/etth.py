"""Forecasters on ETTh1 by the long-horizon protocol, three seeds each, beside the published figures.

    python -m benchmarks.etth --data ETTh1.csv [--only MODEL]... [--horizon H]... [--seeds 3]

Everything is chosen on the validation rows; the test rows are scored once a seed. Each run has a process of its own,
whose time and memory are its, and is written as soon as it is there: what was measured is not measured again. Without
a file there is nothing to do; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import load_results, print_table, save_results
from tsmamba.benchmark.long_horizon import run_benchmark
from tsmamba.benchmark.published import HORIZONS, published_rows

CASES: dict[str, dict[str, Any]] = {
    "auto": {"model": "auto"},
    "ridge": {"model": "ridge"},
    "tsmamba": {"model": "tsmamba"},
    "auto, lookback 96": {"model": "auto", "lookback": 96},
    "ridge, lookback 96": {"model": "ridge", "lookback": 96},
    "smamba": {"model": "smamba"},
}
_WINDOWS = {horizon: 2880 - horizon + 1 for horizon in HORIZONS}


def main() -> None:
    """Fits and scores what is not in the results yet, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="ETTh1.csv")
    parser.add_argument("--only", action="append", choices=CASES)
    parser.add_argument("--horizon", type=int, action="append", choices=HORIZONS)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.data is None:
        print("benchmarks.etth: nothing to do without --data FILE")
        return
    wanted = [
        (case, horizon, seed)
        for seed in range(options.seeds)
        for case in options.only or CASES
        for horizon in options.horizon or HORIZONS
        if seed == 0 or CASES[case]["model"] != "ridge"  # nothing in a ridge is drawn at random
    ]
    for case, horizon, seed in wanted:
        if any((run["model"], run["horizon"], run["seed"]) == (case, horizon, seed) for run in _runs()):
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            _keep(pool.submit(measure, case, horizon, seed, options.data).result())
    if runs := _runs():
        print_table("ETTh1, MSE/MAE", summary(runs))
        print_table("ETTh1, costs", costs(runs))


def measure(case: str, horizon: int, seed: int, data: Path) -> dict[str, Any]:
    """One run, on one thread."""
    torch.set_num_threads(1)
    start = time.process_time()
    found = run_benchmark("etth1", data, horizon, seeds=1, first_seed=seed, beside=False, **CASES[case])
    run = found["seeds"][0]
    return {
        "model": case, "horizon": horizon, "seed": seed, "lookback": run["lookback"],
        "mse": round(run["mse"], 4), "mae": round(run["mae"], 4),
        "covers_80": round(run["coverage"]["80"], 3), "covers_95": round(run["coverage"]["95"], 3),
        "core_minutes": round((time.process_time() - start) / 60, 2), "peak_gb": found["peak_memory_gb"],
        "drop_last_32_mse": round(run["drop_last"]["32"][0], 4),
    }  # fmt: skip


def _runs() -> list[dict[str, Any]]:
    return load_results("etth").get("runs", [])


def _keep(run: dict[str, Any]) -> None:
    order = list(CASES)
    runs = sorted([*_runs(), run], key=lambda one: (order.index(one["model"]), one["horizon"], one["seed"]))
    windows = {str(horizon): count for horizon, count in _WINDOWS.items()}
    tables = {"table": [*summary(runs), *_published()], "costs": costs(runs)}
    save_results("etth", {"data": "ETTh1.csv", "test_windows": windows, **tables, "runs": runs})


def summary(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """MSE/MAE of each model at each horizon: the mean over seeds, and their deviation."""
    rows = []
    for case in CASES:
        mine = [run for run in runs if run["model"] == case]
        cells = {f"H={horizon}": _cell([run for run in mine if run["horizon"] == horizon]) for horizon in HORIZONS}
        if mine:
            lookbacks = ", ".join(sorted({str(run["lookback"]) for run in mine}))
            rows.append({"model": f"**{case.split(',')[0]}**", "lookback": lookbacks, **cells})
    return rows


def costs(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a run takes, the raw intervals' coverage, and the error that a loader gives which drops its last batch."""
    rows = []
    for case in CASES:
        for horizon in HORIZONS:
            found = [run for run in runs if (run["model"], run["horizon"]) == (case, horizon)]
            if found:
                rows.append({"model": case, "horizon": horizon, "seeds": len(found), **_cost(found)})
    return rows


def _cost(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mean = {key: np.mean([run[key] for run in runs]) for key in ("covers_80", "covers_95", "drop_last_32_mse")}
    return {
        "minutes of one core": round(float(np.mean([run["core_minutes"] for run in runs])), 1),
        "peak GB": max(run["peak_gb"] for run in runs),
        "covers 80": f"{mean['covers_80']:.3f}", "covers 95": f"{mean['covers_95']:.3f}",
        "drop-last MSE": f"{mean['drop_last_32_mse']:.4f}",
    }  # fmt: skip


def _cell(runs: Sequence[dict[str, Any]]) -> str:
    if not runs:
        return "-"
    errors = np.array([[run["mse"], run["mae"]] for run in runs])
    text = "/".join(f"{value:.4f}" for value in errors.mean(axis=0))
    return text + (" ± " + "/".join(f"{value:.4f}" for value in errors.std(axis=0, ddof=1)) if len(runs) > 1 else "")


def _published() -> list[dict[str, Any]]:
    """The published rows, horizons side by side."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for horizon in HORIZONS:
        for row in published_rows("etth1", horizon):
            key = (str(row["model"]), str(row["lookback"]))
            line = found.setdefault(key, {"model": f"{key[0]} (published)", "lookback": key[1]})
            line[f"H={horizon}"] = f"{row['mse']:.3f}/{row['mae']:.3f}"
    return list(found.values())


if __name__ == "__main__":
    main()
