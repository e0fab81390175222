"""What covariates known ahead are worth: methods with and without them, forecasting the same past rows.

    python -m benchmarks.covariates --data FOLDER

Electricity prices of Nord Pool with the day-ahead forecasts of load and wind power; pedestrians in Melbourne with the
public holidays of Victoria. Each method is fitted once, before the first of 20 origins a day apart. Without a folder
there is nothing to do.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import print_table, save_results
from tsmamba.commands.reading import read_as_told
from tsmamba.evaluation.backtest import rolling_origins
from tsmamba.evaluation.selection import compare
from tsmamba.methods.methods import Task
from tsmamba.panel.holidays import with_holidays
from tsmamba.panel.tables import panel_of

DAY, ORIGINS = 24, 20
CASES: dict[str, tuple[str | None, str | None]] = {
    "electricity_short.csv": ("electricity_future_vars.csv", None),
    "fpp3_pedestrian.csv": (None, "AU-VIC"),
}
"""The file of later covariates and the country of holidays, by file."""
METHODS = ("seasonal_naive", "ets", "theta", "theta_x", "ridge", "ridge_x", "mamba", "mamba_x")


def main() -> None:
    """Measures every file, keeps the table, and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the files")
    options = parser.parse_args()
    if options.data is None:
        print("benchmarks.covariates: nothing to do without --data FOLDER")
        return
    torch.set_num_threads(1)
    rows = [row for name in CASES for row in measure(options.data, name)]
    save_results("covariates", {"origins": ORIGINS, "runs": rows}, data=read_files(options.data))
    print_table("covariates known ahead", rows)


def read_files(folder: Path) -> list[Path]:
    """The files that the cases read."""
    names = [name for file, (later, _) in CASES.items() for name in (file, later) if name]
    return [folder / name for name in names]


def measure(folder: Path, name: str) -> list[dict[str, Any]]:
    """One row a method."""
    later, country = CASES[name]
    frame = read_as_told(folder / name, {"future": folder / later} if later else {})
    panel = panel_of(with_holidays(frame, country, DAY))
    origins = rolling_origins(panel.lengths, DAY, DAY, count=ORIGINS)
    found, _, seconds, failed = compare(panel, Task(DAY, DAY), METHODS, origins, lambda text: print(f"{name}: {text}"))
    if failed:
        raise RuntimeError(f"{name}: {failed}")
    return [
        {"file": name, "method": method, "MASE": f"{one.loss():.3f}", "seconds": round(seconds[method], 1)}
        for method, one in found.items()
    ]


if __name__ == "__main__":
    main()
