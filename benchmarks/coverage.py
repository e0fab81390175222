"""How many values fall into the intervals, recomputed from the exported forecasts of rolling origins.

    python -m benchmarks.coverage --data FOLDER [--only FILE]...

Each file is forecast from 60 past dates (fewer where it is too short), fitted before the first of them; intervals come
from errors known at their date. The forecasts are written as `tsmamba backtest --out` writes them, and the coverage is
counted from that table with nothing of this package. Without a folder there is nothing to do.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.common import load_results, print_table, save_results
from tsmamba.commands.backtest import backtest_table
from tsmamba.commands.reading import read_as_told
from tsmamba.evaluation.backtest import rolling_origins
from tsmamba.evaluation.conformal import calibrate
from tsmamba.evaluation.selection import compare
from tsmamba.methods.methods import Task
from tsmamba.panel.seasonality import choose_season
from tsmamba.panel.tables import panel_of

ORIGINS = 60
CASES: dict[str, tuple[int, tuple[str, ...]]] = {
    "ETTh1.csv": (24, ("mamba", "ridge", "seasonal_naive")),
    "fpp3_pedestrian.csv": (24, ("ridge", "seasonal_naive")),
    "darts_taylor.csv": (48, ("ridge", "seasonal_naive")),
    "sf-temps.csv": (24, ("ridge", "seasonal_naive")),
    "river_water-flow.csv": (24, ("ridge", "seasonal_naive")),
    "darts_ILINet.csv": (12, ("ridge", "seasonal_naive")),
    "electricity_short.csv": (24, ("ridge", "seasonal_naive")),
    "seattle-weather.csv": (14, ("ridge", "seasonal_naive")),
    "darts_temps.csv": (14, ("ridge", "seasonal_naive")),
    "statsmodels_co2.csv": (13, ("ridge", "theta")),
    "darts_monthly-sunspots.csv": (12, ("ridge", "theta")),
    "darts_AirPassengers.csv": (12, ("ridge", "theta")),
    "darts_monthly-milk.csv": (12, ("ridge", "theta")),
}
"""Rows ahead and methods, by file; the last two are short."""


def main() -> None:
    """Measures what was asked for, keeps the rest, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the files")
    parser.add_argument("--only", action="append", choices=CASES)
    options = parser.parse_args()
    if options.data is None:
        print("benchmarks.coverage: nothing to do without --data FOLDER")
        return
    torch.set_num_threads(1)
    for name in options.only or CASES:
        horizon, methods = CASES[name]
        rows = measure(options.data / name, horizon, methods)
        kept = [row for row in load_results("coverage").get("runs", []) if row["file"] != name]
        runs = sorted([*kept, *rows], key=lambda row: list(CASES).index(row["file"]))
        save_results(
            "coverage",
            {"origins": ORIGINS, "runs": runs},
            data=[options.data / row["file"] for row in runs if (options.data / row["file"]).exists()],
        )
        print_table(name, rows)


def measure(path: Path, horizon: int, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the table for one file."""
    frame = read_as_told(path, {})
    panel = panel_of(frame)
    season = choose_season([one.values for one in panel.series], frame.frequency.seasonal_periods)
    origins = rolling_origins(panel.lengths, horizon, season, count=ORIGINS)
    found, *_ = compare(panel, Task(horizon, season), methods, origins, lambda text: print(f"{path.name}: {text}"))
    tested = [calibrate(one, panel.select(one.ids), season)[0] for one in found.values()]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "forecasts.csv"
        backtest_table(tested, frame, panel).to_csv(table, index=False, float_format="%.10g")
        return [{"file": path.name, "horizon": horizon, **row} for row in covered(table)]


def covered(table: Path) -> list[dict[str, Any]]:
    """Shares of the values inside the 80 % and 95 % intervals, by method, from an exported table."""
    forecasts = pd.read_csv(table).dropna(subset=["y", "q0.025", "q0.975"])
    rows = []
    for method, part in forecasts.groupby("method", sort=False):
        row: dict[str, Any] = {"method": method, "dates": part["cutoff"].nunique(), "values": len(part)}
        for name, low, high in (("covers 80", "q0.1", "q0.9"), ("covers 95", "q0.025", "q0.975")):
            row[name] = f"{100 * np.mean((part['y'] >= part[low]) & (part['y'] <= part[high])):.1f}"
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
