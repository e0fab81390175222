"""`zero`: the forecaster that has already learnt, as one method among the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from tsmamba.methods.baselines import naive
from tsmamba.methods.names import plain_name
from tsmamba.methods.task import Task
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.panel import Panel
from tsmamba.zero.limits import MOST_ROWS

if TYPE_CHECKING:
    from tsmamba.zero.network import ZeroNetwork

_SHARE, FEWEST_SEASONS = 2 / 3, 4
"""What `zero` counts in a mean with others, and seasons of rows below which it counts alone."""


@dataclass(frozen=True)
class Pretrained:
    """Forecasts each series from its history alone, with quantiles of its own; there is nothing to fit.

    Attributes:
        name: `zero`.
        task: what is forecast.
        network: the pre-trained one.
    """

    name: str
    task: Task
    network: ZeroNetwork = field(repr=False)

    @classmethod
    def fit(cls, name: str, task: Task) -> Pretrained:
        """Reads the network that comes with the package."""
        from tsmamba.zero.forecast import shipped  # brings torch

        return cls(name, task, shipped())

    def predict(self, panel: Panel, steps_back: int = 0) -> Forecast:
        """See `FittedMethod`; a series without a value among the latest rows that are read gets the naive forecast."""
        return self.predict_many(panel, [steps_back])[0]

    def predict_many(self, panel: Panel, steps_back: Sequence[int]) -> list[Forecast]:
        """What `predict` gives from several rows, with all histories read in few batches."""
        from tsmamba.zero.forecast import quantiles_of

        task = self.task
        cuts = [panel.before(back) for back in steps_back]
        histories = [one.values for cut in cuts for one in cut.series]
        seen = np.array([bool(np.isfinite(history[-MOST_ROWS:]).any()) for history in histories], dtype=np.bool_)
        levels = [*task.levels, 0.5]
        last = np.array([naive(history, 1) for history in histories]).reshape(-1, 1, 1)
        found = np.broadcast_to(last, (len(histories), task.horizon, len(levels))).copy()
        if seen.any():
            known = [history for history, has_values in zip(histories, seen, strict=True) if has_values]
            found[seen] = quantiles_of(self.network, known, task.horizon, task.season, self._cycle(panel), levels)
        parts = np.split(found, len(cuts)) if len(panel) else [found[:0]] * len(cuts)
        return [Forecast(tuple(panel.ids), task.levels, part[..., -1], part[..., :-1]) for part in parts]

    def _cycle(self, panel: Panel) -> int:
        """Rows of a longer season that the frequency suggests, such as the week of hours; 0 for none."""
        season = self.task.season
        longer = [period for period in panel.frequency.seasonal_periods if period > season and period % season == 0]
        return longer[0] if longer and season > 1 else 0


def shares(names: Sequence[str], seasons: np.ndarray) -> np.ndarray:
    """How much each of several methods counts in their mean.

    `zero` counts two thirds and the others share the rest; where a series has fewer than four seasons of rows, `zero`
    counts alone, as a smoothing method then has too little to estimate a season from. Without `zero` all count alike.

    Of a third, a half and two thirds, the last was the best or level on monthly and quarterly series of M1, NN3, a
    hospital and R's packages fma, expsmooth and fpp2, and better than `zero` alone on each; so it was on M1's quarterly
    series cut to four seasons, while on series cut to two and three seasons the mean was worse.

    Args:
        names: of the M methods.
        seasons: (...) of rows that each series has; its rows where there is no season.

    Returns:
        (M, ...) parts, which add up to 1.
    """
    others = len(names) - 1
    if others == 0 or [plain_name(name) for name in names].count("zero") != 1:
        return np.full((len(names), *seasons.shape), 1 / len(names))
    most = np.where(seasons >= FEWEST_SEASONS, _SHARE, 1.0)
    return np.stack([most if plain_name(name) == "zero" else (1 - most) / others for name in names])


def seasons_of(panel: Panel, season: int) -> Float64[np.ndarray, " S"]:
    """Seasons of rows that each series has from its first value on."""
    seen = [np.flatnonzero(np.isfinite(one.values)) for one in panel.series]
    return np.array(
        [(len(one) - rows[0]) / season if len(rows) else 0.0 for one, rows in zip(panel.series, seen, strict=True)]
    )


def weighted(points: Sequence[np.ndarray], parts: np.ndarray) -> np.ndarray:
    """The mean of point forecasts (..., H), each counted as its part (...) says; see `shares`."""
    return np.sum([point * part[..., None] for point, part in zip(points, parts, strict=True)], axis=0)


def joined(forecasts: Sequence[Forecast], parts: Float64[np.ndarray, "M S"]) -> Forecast:
    """The mean of several methods' forecasts, counted as `shares` says, with the mean spread of those that have one."""
    point = weighted([one.point for one in forecasts], parts)
    return replace(
        forecasts[0], point=point, quantiles=joined_quantiles(
            point, [one.point for one in forecasts], [one.quantiles for one in forecasts]
        ),
    )  # fmt: skip


def joined_quantiles(point: np.ndarray, points: Sequence[np.ndarray], quantiles: Sequence[np.ndarray]) -> np.ndarray:
    """Quantiles around a mean of point forecasts: the mean spread of those methods that have one of their own.

    Args:
        point: (..., H) the mean.
        points: (..., H) of each method.
        quantiles: (..., H, Q) of each method; its points where it has no spread.
    """
    offsets = [q - p[..., None] for p, q in zip(points, quantiles, strict=True)]
    spread = [one for one in offsets if has_spread(one)]
    around = np.mean(spread, axis=0) if spread else offsets[0]
    return point[..., None] + around


def has_spread(offsets: np.ndarray) -> bool:
    """Whether quantiles, less their point forecasts, are anything but 0."""
    return bool(np.any(np.nan_to_num(offsets) != 0))
