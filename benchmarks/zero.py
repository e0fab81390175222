"""The pre-trained forecaster and the default choice beside statsforecast's methods.

    python -m benchmarks.zero --data FOLDER [--only M1|M3|tourism]

FOLDER holds `M1.rda` and `M3.rda`, from the folder `data` of the R package Mcomp (https://github.com/robjhyndman/Mcomp),
and `tourism.rda`, from `pkg/data` of Tcomp (https://github.com/ellisp/Tcomp-r-package); the package `rdata` reads them.
M1 decided that `zero` is taken by default, and was looked at with M3 while it was designed; tourism only reports.
Of each competition and frequency at most 200 series are drawn. Seconds are the processor's, on one thread.
What was measured is not measured again.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from statsforecast.models import AutoETS, AutoTheta

from benchmarks.common import load_results, print_table, save_results
from tsmamba import Forecaster
from tsmamba.config import LEVELS
from tsmamba.evaluation.metrics import seasonal_error
from tsmamba.methods.baselines import seasonal_naive
from tsmamba.zero.forecast import quantiles_of, shipped
from tsmamba.zero.network import ZeroNetwork

COMPETITIONS = ("M1", "M3", "tourism")
SEASONS = {"yearly": 1, "quarterly": 4, "monthly": 12}
STARTS = {1: "YS", 4: "QS", 12: "MS"}
MOST = 200
SEED = 5


@dataclass(frozen=True)
class Competition:
    """Series of one competition and frequency: histories, what followed, and the rows of a season."""

    name: str
    season: int
    histories: list[np.ndarray]
    actual: np.ndarray

    @property
    def horizon(self) -> int:
        """Rows that were to be forecast."""
        return self.actual.shape[1]

    def mase(self, point: np.ndarray) -> float:
        """Mean over the series of the mean absolute scaled error (Hyndman and Koehler 2006)."""
        scale = np.array([seasonal_error(history, self.season) for history in self.histories])
        return float(np.nanmean(np.abs(self.actual - point).mean(axis=1) / scale))

    def coverage(self, low: np.ndarray, high: np.ndarray) -> float:
        """Share of what followed that lies inside."""
        return float(((low <= self.actual) & (self.actual <= high)).mean())

    def width(self, low: np.ndarray, high: np.ndarray) -> float:
        """Median over the series of the intervals' mean width, scaled as the errors are in `mase`."""
        scale = np.array([seasonal_error(history, self.season) for history in self.histories])
        return float(np.nanmedian((high - low).mean(axis=1) / scale))


def competitions(folder: Path, names: Sequence[str] = COMPETITIONS) -> list[Competition]:
    """The series of the competitions, at most 200 of each frequency, drawn with a fixed seed."""
    import rdata  # pyright: ignore[reportMissingImports]  (an optional reader)

    found = []
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            every = rdata.read_rda(folder / f"{name}.rda")[name]
        for period, season in SEASONS.items():
            own = [one for one in every.values() if str(np.asarray(one["period"]).ravel()[0]).lower() == period]
            own = [one for one in own if len(np.ravel(one["x"])) >= 8]
            random.Random(SEED).shuffle(own)
            histories = [np.ravel(np.asarray(one["x"], np.float64)) for one in own[:MOST]]
            actual = np.stack([np.ravel(np.asarray(one["xx"], np.float64)) for one in own[:MOST]])
            found.append(Competition(f"{name} {period}", season, histories, actual))
    return found


def statsforecast_points(series: Competition) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Point forecasts of AutoETS and AutoTheta, and their mean; AutoETS's quantiles and seconds."""
    ets, theta, began = (
        AutoETS(season_length=series.season),
        AutoTheta(season_length=series.season),
        time.process_time(),
    )
    both = [ets.forecast(y=one, h=series.horizon, level=[80, 95]) for one in series.histories]
    seconds = time.process_time() - began
    points = {
        "AutoETS": np.stack([one["mean"] for one in both]),
        "AutoTheta": np.stack([theta.forecast(y=one, h=series.horizon)["mean"] for one in series.histories]),
    }
    points["mean of AutoETS and AutoTheta"] = (points["AutoETS"] + points["AutoTheta"]) / 2
    ends = ("lo-95", "lo-80", "mean", "hi-80", "hi-95")
    return points, np.stack([np.stack([one[end] for end in ends], axis=-1) for one in both]), seconds


def default_choice(series: Competition) -> tuple[str, np.ndarray, np.ndarray, float]:
    """What `tsmamba forecast` takes of all series as one panel, its points and quantiles, and its seconds."""
    began = time.process_time()
    parts = [
        pd.DataFrame({"unique_id": f"{n:04}", "ds": pd.date_range("1980", periods=len(one), freq=STARTS[series.season]),
                      "y": one})
        for n, one in enumerate(series.histories)
    ]  # fmt: skip
    forecaster = Forecaster(series.horizon).fit(pd.concat(parts))
    found = forecaster.predict()
    shape = len(series.histories), series.horizon
    spread = found[[f"q{level:g}" for level in LEVELS]].to_numpy().reshape(*shape, len(LEVELS))
    point = found["yhat"].to_numpy().reshape(shape)
    return forecaster.selection_.name, point, spread, time.process_time() - began


def quantiles(network: ZeroNetwork, series: Competition) -> np.ndarray:
    """The network's quantiles at the usual levels."""
    return quantiles_of(network, series.histories, series.horizon, series.season, 0, LEVELS)


def measure(series: Competition) -> dict[str, Any]:
    """What is kept of a competition: the methods' MASE, the intervals' coverage, and what the default choice costs."""
    own = quantiles(shipped(), series)
    taken, point, spread, seconds = default_choice(series)
    theirs, ets_spread, ets_seconds = statsforecast_points(series)
    naive = np.stack([seasonal_naive(one, series.horizon, series.season) for one in series.histories])
    points = {
        "**zero**": own[..., LEVELS.index(0.5)], "**the default choice**": point, **theirs, "seasonal naive": naive,
    }  # fmt: skip
    intervals = {"zero": own, "default": spread, "AutoETS": ets_spread}
    covers = {
        f"{name} covers {percent}": round(100 * series.coverage(found[..., low], found[..., high]), 1)
        for name, found in intervals.items()
        for percent, low, high in ((80, 1, 3), (95, 0, 4))
    }
    widths = {name: series.width(found[..., 0], found[..., 4]) for name, found in intervals.items()}
    covers["default's 95 % width over AutoETS's"] = round(widths["default"] / widths["AutoETS"], 2)
    return {
        "series": series.name, "count": len(series.histories), "taken": taken, "covers": covers,
        "mase": {method: round(series.mase(forecast), 3) for method, forecast in points.items()},
        "seconds": round(seconds, 1), "seconds of AutoETS": round(ets_seconds, 1),
    }  # fmt: skip


def tables(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The tables of what was measured: a row a method, and of coverage and costs a row a competition."""
    accuracy = [
        {"method": method, **{f"{run['series']} ({run['count']})": run["mase"][method] for run in runs}}
        for method in runs[0]["mase"]
    ]
    costs = [
        {"series": run["series"], "default takes": run["taken"], "seconds of default": run["seconds"],
         "seconds of AutoETS": run["seconds of AutoETS"]} for run in runs
    ]  # fmt: skip
    coverage = [{"series": run["series"], **run["covers"]} for run in runs]
    return {"accuracy": accuracy, "coverage": coverage, "costs": costs}


def main() -> None:
    """Measures what is not in the results yet, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with M1.rda, M3.rda and tourism.rda")
    parser.add_argument("--only", choices=COMPETITIONS, help="one of the competitions")
    options = parser.parse_args()
    if options.data is None:
        print("benchmarks.zero: nothing to do without --data FOLDER")
        return
    torch.set_num_threads(1)
    for series in competitions(options.data, (options.only,) if options.only else COMPETITIONS):
        if any(run["series"] == series.name for run in _runs()):
            continue
        found = measure(series)
        print(found, flush=True)
        order = [f"{name} {period}" for name in COMPETITIONS for period in SEASONS]
        runs = sorted([*_runs(), found], key=lambda run: order.index(run["series"]))
        files = [options.data / f"{name}.rda" for name in COMPETITIONS]
        save_results("zero", {**tables(runs), "runs": runs}, data=files, seeds=[SEED])
    for title, rows in tables(_runs()).items():
        print_table(title, rows)


def _runs() -> list[dict[str, Any]]:
    return load_results("zero").get("runs", [])


if __name__ == "__main__":
    main()
