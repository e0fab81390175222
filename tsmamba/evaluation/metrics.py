"""How far a forecast was off: for points, for quantiles and for intervals.

Every function takes arrays of one shape, actual values first, and averages over what was observed: where the actual
value is NaN the step does not count, and where nothing was observed the answer is NaN. A forecast that is NaN where a
value was observed makes the answer NaN: a method that does not answer gets no score.

Shapes: `...` anything (series, origins, steps), `Q` quantile levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

Array = Float[np.ndarray, "..."]


def mean_observed(losses: Array, actual: Array, axis: int | tuple[int, ...] | None = None) -> Any:
    """Mean of `losses` where `actual` is observed, over `axis`; NaN where nothing is."""
    seen = np.isfinite(actual)
    total = np.where(seen, losses, 0.0).sum(axis=axis)
    count = np.broadcast_to(seen, losses.shape).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)[()]


def mae(actual: Array, forecast: Array, axis: int | tuple[int, ...] | None = None) -> Any:
    """Mean absolute error, in the data's unit."""
    return mean_observed(np.abs(actual - forecast), actual, axis)


def mse(actual: Array, forecast: Array, axis: int | tuple[int, ...] | None = None) -> Any:
    """Mean squared error, in the data's unit squared."""
    return mean_observed((actual - forecast) ** 2, actual, axis)


def smape(actual: Array, forecast: Array, axis: int | tuple[int, ...] | None = None) -> Any:
    """Symmetric mean absolute percentage error, 0 to 200; 0 where both are 0.

    Source: Makridakis, Spiliotis, Assimakopoulos 2020, The M4 Competition, International Journal of Forecasting 36(1).
    """
    size = np.abs(actual) + np.abs(forecast)
    share = np.divide(200 * np.abs(actual - forecast), size, out=np.zeros(np.shape(size)), where=size != 0)
    return mean_observed(share, actual, axis)


def seasonal_error(history: Float64[np.ndarray, " T"], season: int) -> float:
    """Mean absolute change of a series over one season, by which MASE measures errors; NaN where it is 0 or unknown.

    A history without two observed values one season apart is measured over one step.
    """
    return _typical(np.abs(_changes(history, season)))


def seasonal_rms(history: Float64[np.ndarray, " T"], season: int) -> float:
    """Root mean squared change of a series over one season, by which RMSSE measures errors; NaN as above."""
    return float(np.sqrt(_typical(_changes(history, season) ** 2)))


def mase(actual: Array, forecast: Array, scale: Array | float, axis: int | tuple[int, ...] | None = None) -> Any:
    """Mean absolute scaled error: 1 is as good as the seasonal naive forecast was in the history, 0 is perfect.

    Args:
        scale: `seasonal_error` of each series' history, in a shape that broadcasts.

    Source: Hyndman, Koehler 2006, Another look at measures of forecast accuracy, International Journal of
        Forecasting 22(4).
    """
    return mean_observed(np.abs(actual - forecast) / scale, _where_scaled(actual, scale), axis)


def rmsse(actual: Array, forecast: Array, scale: Array | float, axis: int | tuple[int, ...] | None = None) -> Any:
    """Root mean squared scaled error.

    Args:
        scale: `seasonal_rms` of each series' history, in a shape that broadcasts.

    Source: Makridakis, Spiliotis, Assimakopoulos 2022, M5 accuracy competition, International Journal of
        Forecasting 38(4), with the season's change in place of one step's.
    """
    return np.sqrt(mean_observed(((actual - forecast) / scale) ** 2, _where_scaled(actual, scale), axis))


def pinball(actual: Array, quantiles: Array, levels: Sequence[float], axis: int | tuple[int, ...] | None = None) -> Any:
    """Mean quantile loss over the levels, in the data's unit.

    Args:
        actual: (...).
        quantiles: (..., Q), one for each level.
        axis: of `actual`, over which to average.

    Source: Koenker, Bassett 1978, Regression quantiles, Econometrica 46(1).
    """
    return mean_observed(_pinball(actual, quantiles, levels).mean(axis=-1), actual, axis)


def crps(actual: Array, quantiles: Array, levels: Sequence[float], axis: int | tuple[int, ...] | None = None) -> Any:
    """Continuous ranked probability score by quantiles, in the data's unit: for a point forecast it is the MAE.

    Twice the integral of the quantile loss over all levels, by the trapezoidal rule on the given levels; outside of
    them the loss is taken to fall linearly to 0 at the levels 0 and 1.

    Args:
        actual: (...).
        quantiles: (..., Q), one for each level, levels ascending.

    Source: Gneiting, Ranjan 2011, Comparing density forecasts using threshold- and quantile-weighted scoring rules,
        Journal of Business & Economic Statistics 29(3), equation 12.
    """
    knots = np.concatenate([[0.0], np.asarray(levels, np.float64), [1.0]])
    weights = (knots[2:] - knots[:-2]) / 2  # of a trapezoidal rule whose ends are 0
    return mean_observed(2 * (_pinball(actual, quantiles, levels) * weights).sum(axis=-1), actual, axis)


def coverage(actual: Array, low: Array, high: Array, axis: int | tuple[int, ...] | None = None) -> Any:
    """Share of the observed values that lie in their interval, ends included."""
    inside = ((actual >= low) & (actual <= high)).astype(np.float64)
    inside = np.where(np.isfinite(low) & np.isfinite(high), inside, np.nan)
    return mean_observed(inside, actual, axis)


def width(actual: Array, low: Array, high: Array, axis: int | tuple[int, ...] | None = None) -> Any:
    """Mean width of the intervals of observed values, in the data's unit."""
    return mean_observed(high - low, actual, axis)


def intervals(levels: Sequence[float]) -> dict[float, tuple[int, int]]:
    """The central intervals that a set of quantile levels holds: width in percent to the places of its two levels."""
    found = {}
    for low, level in enumerate(levels):
        for high, other in enumerate(levels):
            if level < 0.5 and abs(level + other - 1) < 1e-9:
                found[round(100 * (other - level), 6)] = (low, high)
    return dict(sorted(found.items()))


def _pinball(actual: Array, quantiles: Array, levels: Sequence[float]) -> Array:
    error = actual[..., None] - quantiles
    level = np.asarray(levels, np.float64)
    return np.maximum(level * error, (level - 1) * error)


def _changes(history: Float64[np.ndarray, " T"], season: int) -> Float64[np.ndarray, " D"]:
    for step in dict.fromkeys((season, 1)):
        if 0 < step < len(history):
            change = history[step:] - history[:-step]
            change = change[np.isfinite(change)]
            if len(change):
                return change
    return np.zeros(0)


def _typical(sizes: Float64[np.ndarray, " D"]) -> float:
    mean = float(sizes.mean()) if len(sizes) else 0.0
    return mean if mean > 0 else float("nan")


def _where_scaled(actual: Array, scale: Array | float) -> Array:
    """Series without a scale (constant ones) have no scaled error and do not count."""
    return np.where(np.isfinite(scale), actual, np.nan)
