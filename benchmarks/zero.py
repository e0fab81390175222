"""The pre-trained forecaster beside statsforecast's methods, and beside itself with another backbone.

    python -m benchmarks.zero --data FOLDER [--twins FOLDER]

FOLDER holds `M1.rda` and `M3.rda`, from the folder `data` of the R package Mcomp (https://github.com/robjhyndman/Mcomp),
and `tourism.rda`, from `pkg/data` of Tcomp (https://github.com/ellisp/Tcomp-r-package); the package `rdata` reads them.
M1 decided that `zero` is taken by default, and was looked at with M3 while it was designed; tourism only reports.
Of each competition and frequency at most 200 series are drawn. `--twins` is a folder with runs of `tsmamba pretrain`
called `mamba`, `mlp` and `identity`, all trained for the same time.
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from collections.abc import Mapping
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
from tsmamba.zero.forecast import load, quantiles_of, shipped
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


def statsforecast_points(series: Competition) -> dict[str, np.ndarray]:
    """Point forecasts of AutoETS and AutoTheta, and their mean."""
    found = {}
    for name, model in (("AutoETS", AutoETS), ("AutoTheta", AutoTheta)):
        method = model(season_length=series.season)
        found[name] = np.stack([method.forecast(y=one, h=series.horizon)["mean"] for one in series.histories])
    return {**found, "mean of AutoETS and AutoTheta": (found["AutoETS"] + found["AutoTheta"]) / 2}


def default_choice(series: Competition) -> np.ndarray:
    """Point forecasts of `tsmamba forecast` on all series as one panel."""
    parts = [
        pd.DataFrame({"unique_id": f"{n:04}", "ds": pd.date_range("1980", periods=len(one), freq=STARTS[series.season]),
                      "y": one})
        for n, one in enumerate(series.histories)
    ]  # fmt: skip
    found = Forecaster(series.horizon).fit(pd.concat(parts)).predict()
    return found["yhat"].to_numpy().reshape(len(series.histories), series.horizon)


def quantiles(network: ZeroNetwork, series: Competition) -> np.ndarray:
    """The network's quantiles at the usual levels."""
    return quantiles_of(network, series.histories, series.horizon, series.season, 0, LEVELS)


def measure(data: Path, twins: Mapping[str, ZeroNetwork]) -> dict[str, list[dict[str, Any]]]:
    """A row a method with its MASE on each competition, and the intervals' coverage."""
    accuracy: dict[str, dict[str, Any]] = {}
    covered: list[dict[str, Any]] = []
    for series in competitions(data):
        own = quantiles(shipped(), series)
        points = {
            "**zero**": own[..., LEVELS.index(0.5)], "**the default choice**": default_choice(series),
            **{label: quantiles(network, series)[..., LEVELS.index(0.5)] for label, network in twins.items()},
            **statsforecast_points(series),
            "seasonal naive": np.stack(
                [seasonal_naive(one, series.horizon, series.season) for one in series.histories]
            ),
        }  # fmt: skip
        column = f"{series.name} ({len(series.histories)})"
        for method, point in points.items():
            accuracy.setdefault(method, {"method": method})[column] = round(series.mase(point), 3)
        covered.append({
            "series": series.name, "covers 80": 100 * series.coverage(own[..., 1], own[..., 3]),
            "covers 95": 100 * series.coverage(own[..., 0], own[..., 4]),
        })  # fmt: skip
        print(column, {method: row[column] for method, row in accuracy.items()}, flush=True)
    return {"accuracy": list(accuracy.values()), "coverage": covered}


def main() -> None:
    """Measures, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with M1.rda, M3.rda and tourism.rda")
    parser.add_argument("--twins", type=Path, help="folder with the runs mamba, mlp and identity")
    options = parser.parse_args()
    if options.data is None:
        print("benchmarks.zero: nothing to do without --data FOLDER")
        return
    torch.set_num_threads(1)
    twins, about = {}, []
    for name in ("mamba", "mlp", "identity") if options.twins else ():
        run = options.twins / name
        training = json.loads((run / "model" / "config.json").read_text())["training"]
        about.append({"backbone": name, "minutes": round(60 * training["hours"], 1), "series": training["series"],
                      "validation loss": training["loss"]})  # fmt: skip
        twins[f"backbone {name}, {about[-1]['minutes']:g} minutes"] = load(run)
    results = measure(options.data, twins)
    for title, rows in results.items():
        print_table(title, rows)
    files = [options.data / f"{name}.rda" for name in COMPETITIONS]
    save_results("zero", {**results, "twins": about}, data=files, seeds=[SEED])


if __name__ == "__main__":
    main()
