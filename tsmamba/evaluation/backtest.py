"""Rolling origins: forecasts from past rows, none of which sees what followed, beside what came.

Shapes: `K` origins, earliest first; `S` series; `H` horizon; `Q` quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from mamba_data_prep.errors import UserError
from tsmamba.evaluation import metrics
from tsmamba.methods.methods import Apart, FittedMethod, Learned, are_intermittent, forecasts
from tsmamba.methods.pretrained import Pretrained, joined_quantiles, seasons_of, shares, weighted
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.panel import Panel

_MOST = 12
"""Origins by default."""

FEWEST_ORIGINS = 4
"""Origins without which none of two methods is clearly better."""

ROUNDING = 1e-9
"""A scaled error as small as this is that of floating point, not of a forecast."""

Tick = Callable[[], object]
"""Called after each origin, for progress."""


@dataclass(frozen=True)
class Backtest:
    """A method's forecasts from past rows.

    Attributes:
        method: its name.
        ids: of the series.
        levels: of the quantiles.
        steps_back: (K,) how many rows before each series' end a forecast was made, falling.
        actual: what came, NaN where it was not observed or lies beyond the end.
        point: the point forecasts.
        quantiles: the quantile forecasts; NaN where there are none yet.
        error_scale: (S,) `seasonal_error` of each series before the first origin.
        rms_scale: (S,) `seasonal_rms` of the same rows.
        intermittent: whether most series are mostly zero. Their middle value is 0, so forecasts of their mean are
            compared by squared errors.
        seasons: seasons of rows that each series had at each origin; None where that doesn't matter.
        season: rows of a season.
    """

    method: str
    ids: tuple[str, ...]
    levels: tuple[float, ...]
    steps_back: tuple[int, ...]
    actual: Float64[np.ndarray, "K S H"]
    point: Float64[np.ndarray, "K S H"]
    quantiles: Float64[np.ndarray, "K S H Q"]
    error_scale: Float64[np.ndarray, " S"]
    rms_scale: Float64[np.ndarray, " S"]
    intermittent: bool = False
    seasons: Float64[np.ndarray, "K S"] | None = None
    season: int = 1

    @property
    def horizon(self) -> int:
        """Rows that each forecast gives."""
        return self.point.shape[2]

    def origins(self, which: Sequence[int] | slice) -> Backtest:
        """Gives the same backtest from some of its origins alone."""
        places = range(len(self.steps_back))[which] if isinstance(which, slice) else which
        cut = {name: getattr(self, name)[list(places)] for name in self._tables()}
        return replace(self, steps_back=tuple(self.steps_back[place] for place in places), **cut)

    def series(self, ids: Sequence[str]) -> Backtest:
        """Gives the same backtest of some of its series alone."""
        places = [self.ids.index(name) for name in ids]
        cut = {name: getattr(self, name)[:, places] for name in self._tables()}
        scales = {name: getattr(self, name)[places] for name in ("error_scale", "rms_scale")}
        return replace(self, ids=tuple(ids), **cut, **scales)

    def _tables(self) -> list[str]:
        """What has a row for each origin and a column for each series."""
        return ["actual", "point", "quantiles", *(["seasons"] if self.seasons is not None else [])]

    def scores(self, axis: tuple[int, ...] | None = None) -> dict[str, Any]:
        """Every score, averaged over the observed values along `axis` of (K, S, H); over all by default.

        Interval scores are over the values that have quantiles.
        """
        actual, point = self.actual, self.point
        answered = np.isfinite(self.quantiles).all(axis=-1)
        judged = np.where(answered, actual, np.nan)
        error, rms = self.error_scale[None, :, None], self.rms_scale[None, :, None]
        found = {
            "mase": metrics.mase(actual, point, error, axis),
            "rmsse": metrics.rmsse(actual, point, rms, axis),
            "smape": metrics.smape(actual, point, axis),
            "mae": metrics.mae(actual, point, axis),
            "mse": metrics.mse(actual, point, axis),
            "pinball": metrics.pinball(judged, self.quantiles, self.levels, axis),
            "crps": metrics.crps(judged, self.quantiles, self.levels, axis),
        }
        for percent, (low, high) in metrics.intervals(self.levels).items():
            ends = self.quantiles[..., low], self.quantiles[..., high]
            found[f"coverage_{percent:g}"] = metrics.coverage(judged, *ends, axis)
            found[f"width_{percent:g}"] = metrics.width(judged, *ends, axis)
        return found

    def by_series(self) -> list[dict[str, Any]]:
        """A row of scores for each series."""
        return _rows(self.scores(axis=(0, 2)), "unique_id", self.ids)

    def by_horizon(self) -> list[dict[str, Any]]:
        """A row of scores for each step ahead."""
        return _rows(self.scores(axis=(0, 1)), "step", range(1, self.horizon + 1))

    @property
    def measure(self) -> str:
        """The name of what methods are compared by."""
        return "RMSSE" if self.intermittent else "MASE"

    def loss(self) -> float:
        """What methods are compared by: the mean of `losses` over all that was observed; infinite where nothing was."""
        loss = float(self._error(None))
        return loss if np.isfinite(loss) else float("inf")

    def losses(self) -> Float64[np.ndarray, " K"]:
        """MASE (of intermittent series RMSSE) at each origin; in the series' unit where no series has a scale."""
        return np.asarray(self._error((1, 2)), np.float64)

    def losses_of_series(self) -> Float64[np.ndarray, "K S"]:
        """The same for each series by itself."""
        return np.asarray(self._error((2,)), np.float64)

    def _error(self, axis: tuple[int, ...] | None) -> Any:
        scale = self.rms_scale if self.intermittent else self.error_scale
        scale = (scale if np.isfinite(scale).any() else np.ones(len(self.ids)))[None, :, None]
        error = metrics.rmsse if self.intermittent else metrics.mase
        return error(self.actual, self.point, scale, axis)


def rolling_origins(
    lengths: Sequence[int], horizon: int, season: int, *, count: int | None = None, stride: int | None = None
) -> tuple[int, ...]:
    """From how many rows before the end to forecast, so that all of the horizon is known.

    By default at most 12 origins over the last fifth of the typical series (that in which the middle one of all rows
    lies; the last third or half where a fifth does not hold 12 or four horizons), at least a horizon apart, and not
    always at the same place in the season.

    Args:
        lengths: rows of the series.
        horizon: rows ahead.
        season: rows of a season.
        count: how many origins; 12 at most by default.
        stride: rows from origin to origin; the horizon where only `count` is given.

    Returns:
        Falling numbers of rows; at least one.

    Raises:
        UserError: no series is long enough to forecast from its past.
    """
    typical = _typical(lengths)
    least = _least_history(typical, season)
    room = typical - least
    if room < horizon:
        raise UserError(
            "the series are too short to forecast from their own past", found=f"{typical:,} rows, horizon {horizon:,}",
            accepted=f"at least {least + horizon:,} rows", fix="shorten the horizon",
        )  # fmt: skip
    span = min(max(_usual_span(typical, horizon), horizon), room)
    if count is None and stride is None:
        stride = max(horizon, (span - horizon) // (_MOST - 1))
        stride += int(stride > horizon and season > 1 and stride % season == 0)
    elif stride is None:
        stride = max(min(horizon, (room - horizon) // max((count or 1) - 1, 1)), 1)
    within = span if count is None else room
    fitting = min(count or _MOST, (within - horizon) // stride + 1)
    return tuple(horizon + stride * number for number in reversed(range(fitting)))


def _typical(lengths: Sequence[int]) -> int:
    """The length of the series in which the middle one of all rows lies: a few tiny series do not move it."""
    ranked = np.sort(np.asarray(lengths, np.int64))
    rows = np.cumsum(ranked)
    return int(ranked[np.searchsorted(rows, rows[-1] / 2)]) if len(ranked) else 0


def _least_history(rows: int, season: int) -> int:
    """Rows that a forecast has to know at least: two seasons, or a third of a series shorter than that allows."""
    return max(2, min(2 * season, rows // 3))


def is_testable(rows: int, horizon: int, season: int) -> bool:
    """Whether a series of so many rows can be forecast from its own past at all."""
    return rows - _least_history(rows, season) >= horizon


def _usual_span(rows: int, horizon: int) -> int:
    """Rows at a series' end that are forecast by default."""
    if rows // 5 >= _MOST * horizon:
        return rows // 5
    return rows // 3 if rows // 3 >= 4 * horizon else rows // 2


def roll(
    fitted: FittedMethod, panel: Panel, steps_back: Sequence[int], season: int, tick: Tick | None = None
) -> Backtest:
    """Forecasts from past rows with a method that was fitted on what came before all of them.

    Args:
        fitted: the method.
        panel: the series, whole.
        steps_back: from how many rows before the end, falling.
        season: rows of a season, for the scales of errors.
        tick: called after each origin.
    """
    if isinstance(fitted, Apart | Pretrained) or (isinstance(fitted, Learned) and fitted.model.is_causal):
        return _beside(forecasts(fitted, panel, steps_back), fitted.name, panel, steps_back, season)
    return roll_refitted(lambda history: fitted, fitted.name, panel, steps_back, season, tick)


def roll_refitted(
    fit: Callable[[Panel], FittedMethod],
    name: str,
    panel: Panel,
    steps_back: Sequence[int],
    season: int,
    tick: Tick | None = None,
) -> Backtest:
    """Forecasts from past rows, fitted anew at each of them on what was known there.

    Args:
        fit: is given the panel as it was at the origin.
        name: of the method.
        panel: the series, whole.
        steps_back: from how many rows before the end, falling.
        season: rows of a season, for the scales of errors.
        tick: called after each origin.
    """
    found = []
    for rows in steps_back:
        past = panel.before(rows)
        found.append(fit(past).predict(past))
        if tick is not None:
            tick()
    return _beside(found, name, panel, steps_back, season)


def _beside(found: Sequence[Forecast], name: str, panel: Panel, steps_back: Sequence[int], season: int) -> Backtest:
    """Forecasts from past rows beside what came."""
    point = np.stack([one.point for one in found]).astype(np.float64)
    first = panel.before(steps_back[0])
    return Backtest(
        name,
        tuple(panel.ids),
        found[0].levels,
        tuple(steps_back),
        actuals(panel, steps_back, point.shape[2]),
        point,
        np.stack([one.quantiles for one in found]).astype(np.float64),
        np.array([metrics.seasonal_error(one.values, season) for one in first.series]),
        np.array([metrics.seasonal_rms(one.values, season) for one in first.series]),
        are_intermittent(first),
        np.stack([seasons_of(panel.before(rows), season) for rows in steps_back]),
        season,
    )


def mean_backtest(backtests: Sequence[Backtest]) -> Backtest:
    """The backtest of the mean of several methods' forecasts, in which they count as `shares` says."""
    points, quantiles = [one.point for one in backtests], [one.quantiles for one in backtests]
    seasons = backtests[0].seasons
    enough = np.full(points[0].shape[:2], np.inf) if seasons is None else seasons
    point = weighted(points, shares([one.method for one in backtests], enough))
    method = " + ".join(one.method for one in backtests)
    return replace(backtests[0], method=method, point=point, quantiles=joined_quantiles(point, points, quantiles))


def chosen_backtest(
    backtests: Mapping[str, Backtest], members: Sequence[str], own: Mapping[str, Sequence[str]]
) -> Backtest:
    """The backtest of the mean of some methods, and of other ones for some series; see `assembled`."""
    found = mean_backtest([backtests[name] for name in members])
    if not own:
        return found
    point, quantiles = found.point.copy(), found.quantiles.copy()
    for series, names in own.items():
        place, theirs = found.ids.index(series), mean_backtest([backtests[name] for name in names])
        point[:, place], quantiles[:, place] = theirs.point[:, place], theirs.quantiles[:, place]
    return replace(found, point=point, quantiles=quantiles)


def clearly_better(one: Backtest, other: Backtest) -> bool:
    """Whether one saves more than a standard error over the origins: what is more complex has to show more than luck.

    Source: Breiman, Friedman, Olshen, Stone 1984, Classification and Regression Trees, section 3.4.3.
    """
    saved = other.losses() - one.losses()
    saved = saved[np.isfinite(saved)]
    return len(saved) >= FEWEST_ORIGINS and bool(saved.mean() > saved.std(ddof=1) / np.sqrt(len(saved)))


def actuals(panel: Panel, steps_back: Sequence[int], horizon: int) -> Float64[np.ndarray, "K S H"]:
    """What followed each origin; NaN where a series had not begun or had ended."""
    found = np.full((len(steps_back), len(panel), horizon), np.nan)
    for place, rows in enumerate(steps_back):
        for number, one in enumerate(panel.series):
            if rows < len(one):
                values = one.values[len(one) - rows :][:horizon]
                found[place, number, : len(values)] = values
    return found


def skill(ours: float, theirs: float) -> float:
    """Share of a scaled error that is saved: 0 as good as theirs, 1 perfect, negative worse.

    NaN where theirs is nothing but rounding: no share can be taken of that.
    """
    return 1 - ours / theirs if theirs > ROUNDING else float("nan")


def _rows(scores: dict[str, Any], key: str, names: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {key: name, **{score: float(values[place]) for score, values in scores.items()}}
        for place, name in enumerate(names)
    ]
