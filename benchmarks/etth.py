"""Forecasters on ETTh1 by the long-horizon protocol, three seeds each, beside the published figures.

    python -m benchmarks.etth --data ETTh1.csv [--only MODEL] [--horizon H]... [--seeds 3]

Everything is chosen on the validation rows; the test rows are scored once a seed. Each result is written as soon
as it is there, so that a run can be stopped. Without a file there is nothing to do; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import RESULTS, print_table, save_results
from tsmamba.benchmark import run_benchmark
from tsmamba.published import HORIZONS, published_rows

CASES: dict[str, dict[str, Any]] = {
    "ridge": {"model": "ridge"},
    "auto": {"model": "auto"},
    "auto, lookback 96": {"model": "auto", "lookback": 96},
    "smamba": {"model": "smamba"},
    "tsmamba": {"model": "tsmamba"},
}


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
    torch.set_num_threads(1)
    for case in options.only or CASES:
        for horizon in options.horizon or HORIZONS:
            _measure(case, horizon, options.data, options.seeds)
    for horizon in HORIZONS:
        rows = [run for run in _runs() if run["horizon"] == horizon]
        if rows:
            print_table(f"ETTh1, horizon {horizon}", rows, skip=("horizon",))


def _measure(case: str, horizon: int, data: Path, seeds: int) -> None:
    found = run_benchmark("etth1", data, horizon, seeds=seeds, beside=False, **CASES[case])
    summary, first = found["summary"], found["seeds"][0]
    row = {
        "horizon": horizon, "model": case, "lookback": summary["lookback"],
        "mse": round(summary["mse"], 4), "mae": round(summary["mae"], 4), "seeds": summary["seeds"],
        "mse_sd": _rounded(summary["mse_sd"]), "mae_sd": _rounded(summary["mae_sd"]),
        "covers_80": round(first["coverage"]["80"], 3), "covers_95": round(first["coverage"]["95"], 3),
        "seconds_a_fit": first["seconds"], "peak_gb": found["peak_memory_gb"],
        "drop_last_32_mse": round(first["drop_last"]["32"][0], 4),
    }  # fmt: skip
    kept = [run for run in _runs() if (run["model"], run["horizon"]) != (case, horizon)]
    runs = sorted([*kept, row], key=lambda run: (HORIZONS.index(run["horizon"]), list(CASES).index(run["model"])))
    save_results("etth", {"data": data.name, "test_windows": _windows(), **_tables(runs), "runs": runs})


def _runs() -> list[dict[str, Any]]:
    path = RESULTS / "etth.json"
    return json.loads(path.read_text()).get("runs", []) if path.exists() else []


def _tables(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows for the documentation: every model, ours and published, with MSE/MAE at each horizon."""
    ours = {(run["model"], run["horizon"]): run for run in runs}
    measured = []
    for case in CASES:
        cells = {f"H={horizon}": _cell(ours.get((case, horizon))) for horizon in HORIZONS}
        if any(cell != "-" for cell in cells.values()):
            lookbacks = sorted({str(run["lookback"]) for run in runs if run["model"] == case})
            measured.append({"model": f"**{case}**", "lookback": ", ".join(lookbacks), **cells})
    published: dict[tuple[str, str], dict[str, Any]] = {}
    for horizon in HORIZONS:
        for row in published_rows("etth1", horizon):
            key = (str(row["model"]), str(row["lookback"]))
            line = published.setdefault(key, {"model": f"{key[0]} (published)", "lookback": key[1]})
            line[f"H={horizon}"] = f"{row['mse']:.3f}/{row['mae']:.3f}"
    return {"table": [*measured, *published.values()]}


def _cell(run: dict[str, Any] | None) -> str:
    if run is None:
        return "-"
    spread = f" ± {run['mse_sd']:.4f}/{run['mae_sd']:.4f}" if run["mse_sd"] is not None else ""
    return f"{run['mse']:.4f}/{run['mae']:.4f}{spread}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _windows() -> dict[str, int]:
    return {str(horizon): 2880 - horizon + 1 for horizon in HORIZONS}


if __name__ == "__main__":
    main()
