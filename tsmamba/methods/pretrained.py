"""`zero`: the forecaster that has already learnt, as one method among the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tsmamba.methods.baselines import naive
from tsmamba.methods.task import Task
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.panel import Panel
from tsmamba.zero.limits import MOST_ROWS

if TYPE_CHECKING:
    from tsmamba.zero.network import ZeroNetwork


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


def joined(forecasts: Sequence[Forecast]) -> Forecast:
    """The mean of several methods' forecasts, with the mean spread of those that have one."""
    point = np.mean([one.point for one in forecasts], axis=0)
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
