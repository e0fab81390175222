"""The pre-trained forecaster and the default choice beside statsforecast's methods.

    python -m benchmarks.zero --data FOLDER

FOLDER holds `M1.rda` and `M3.rda`, from the folder `data` of the R package Mcomp (https://github.com/robjhyndman/Mcomp),
and `tourism.rda`, from `pkg/data` of Tcomp (https://github.com/ellisp/Tcomp-r-package); the package `rdata` reads them.
M1 decided that `zero` is taken by default, and was looked at with M3 while it was designed; tourism only reports.
Of each competition and frequency at most 200 series are drawn. Seconds are the processor's, on one thread.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from statsforecast.models import AutoETS, AutoTheta

from benchmarks.common import print_table, save_results
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


def competitions(folder: Path) -> list[Competition]:
    """The series of the competitions, at most 200 of each frequency, drawn with a fixed seed."""
    import rdata  # pyright: ignore[reportMissingImports]  (an optional reader)

    found = []
    for name in COMPETITIONS:
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


def statsforecast_points(series: Competition) -> tuple[dict[str, np.ndarray], float]:
    """Point forecasts of AutoETS and AutoTheta, and their mean; and AutoETS's seconds."""
    found, seconds = {}, {}
    for name, model in (("AutoETS", AutoETS), ("AutoTheta", AutoTheta)):
        method, began = model(season_length=series.season), time.process_time()
        found[name] = np.stack([method.forecast(y=one, h=series.horizon)["mean"] for one in series.histories])
        seconds[name] = time.process_time() - began
    both = {**found, "mean of AutoETS and AutoTheta": (found["AutoETS"] + found["AutoTheta"]) / 2}
    return both, seconds["AutoETS"]


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


def measure(data: Path) -> dict[str, list[dict[str, Any]]]:
    """A row a method with its MASE on each competition, the intervals' coverage, and what the default choice costs."""
    accuracy: dict[str, dict[str, Any]] = {}
    covered, costs = [], []
    for series in competitions(data):
        own = quantiles(shipped(), series)
        taken, point, spread, seconds = default_choice(series)
        theirs, ets_seconds = statsforecast_points(series)
        naive = [seasonal_naive(one, series.horizon, series.season) for one in series.histories]
        points = {
            "**zero**": own[..., LEVELS.index(0.5)], "**the default choice**": point, **theirs,
            "seasonal naive": np.stack(naive),
        }  # fmt: skip
        column = f"{series.name} ({len(series.histories)})"
        for method, forecast in points.items():
            accuracy.setdefault(method, {"method": method})[column] = round(series.mase(forecast), 3)
        shares = {
            f"{name} covers {percent}": 100 * series.coverage(found[..., low], found[..., high])
            for name, found in (("zero", own), ("default", spread))
            for percent, low, high in ((80, 1, 3), (95, 0, 4))
        }
        covered.append({"series": series.name, **shares})
        costs.append({
            "series": series.name, "default takes": taken, "seconds of default": round(seconds, 1),
            "seconds of AutoETS": round(ets_seconds, 1),
        })  # fmt: skip
        print(column, {method: row[column] for method, row in accuracy.items()}, covered[-1], costs[-1], flush=True)
    return {"accuracy": list(accuracy.values()), "coverage": covered, "costs": costs}


def main() -> None:
    """Measures, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with M1.rda, M3.rda and tourism.rda")
    options = parser.parse_args()
    if options.data is None:
        print("benchmarks.zero: nothing to do without --data FOLDER")
        return
    torch.set_num_threads(1)
    results = measure(options.data)
    for title, rows in results.items():
        print_table(title, rows)
    save_results("zero", results, data=[options.data / f"{name}.rda" for name in COMPETITIONS], seeds=[SEED])


if __name__ == "__main__":
    main()
