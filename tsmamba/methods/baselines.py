"""Simple forecasts that every model is shown beside: naive, seasonal naive, drift, exponential smoothing and Theta.

Each works on one series at a time: `history` in the data's unit, NaN where missing, to `horizon` values. What was not
observed is skipped by the naive methods, and filled in from neighbouring seasons for exponential smoothing and Theta.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float64
from threadpoolctl import ThreadpoolController

History = Float64[np.ndarray, " _"]
Point = Float64[np.ndarray, " H"]

_LONGEST_SEASON = 24
"""Seasons up to this length are smoothed state by state; longer ones are taken out by STL first, as `stlf` does."""
_MOST_CYCLES, _MOST_ROWS = 10, 400
"""Exponential smoothing reads so many seasons or rows, whichever is more, the latest: it forgets older ones anyway."""
_FEWEST_ROWS = 10
_ORIGINS = 3


def naive(history: History, horizon: int) -> Point:
    """The last observed value, again and again; NaN where nothing was observed."""
    seen = history[np.isfinite(history)]
    return np.full(horizon, seen[-1] if len(seen) else np.nan)


def seasonal_naive(history: History, horizon: int, season: int) -> Point:
    """The last observed value of the same place in the season; the last value of all where there is none."""
    if season <= 1 or not np.isfinite(history).any():
        return naive(history, horizon)
    cycles = -(-len(history) // season)
    table = np.concatenate([np.full(cycles * season - len(history), np.nan), history]).reshape(cycles, season)[::-1]
    seen = np.isfinite(table)
    last = table[seen.argmax(axis=0), np.arange(season)]
    return np.resize(np.where(seen.any(axis=0), last, naive(history, 1)), horizon)


def drift(history: History, horizon: int) -> Point:
    """The straight line through the first and the last observed value.

    Source: Hyndman, Athanasopoulos 2021, Forecasting: Principles and Practice, section 5.2.
    """
    rows = np.flatnonzero(np.isfinite(history))
    if len(rows) < 2:
        return naive(history, horizon)
    first, last = rows[0], rows[-1]
    slope = (history[last] - history[first]) / (last - first)
    return history[last] + slope * (len(history) - 1 - last + np.arange(1, horizon + 1))


def theta(history: History, horizon: int, season: int) -> Point:
    """The Theta method, seasonally adjusted where a test finds a season.

    Source: Assimakopoulos, Nikolopoulos 2000, The theta model, International Journal of Forecasting 16(4).
    """
    values = _prepared(history, season)
    if len(values) < _FEWEST_ROWS or _is_constant(values):
        return drift(history, horizon)
    if season > _LONGEST_SEASON and len(values) >= 2 * season:
        return _season_apart(values, horizon, season, lambda adjusted: theta(adjusted, horizon, 1))
    import pandas as pd
    from statsmodels.tsa.forecasting.theta import ThetaModel

    seasonal = 1 < season <= len(values) // 2

    def estimate() -> Point:
        model = ThetaModel(pd.Series(values), period=season if seasonal else 1, deseasonalize=seasonal)
        return model.fit().forecast(horizon).to_numpy(np.float64)

    return _sane(estimate, history, horizon, season)


@dataclass(frozen=True)
class Smoothing:
    """A form of exponential smoothing.

    Attributes:
        trend: none, a straight line, or one that flattens out.
        seasonal: none, added, or multiplied.
    """

    trend: Literal["none", "linear", "damped"]
    seasonal: Literal["none", "add", "mul"]

    def forecast(self, history: History, horizon: int, season: int) -> Point:
        """Estimates the form's parameters on the history and forecasts; the drift where there are too few rows.

        Source: Holt 1957; Winters 1960; Gardner, McKenzie 1985, with additive errors.
        """
        values = _prepared(history, season)
        if len(values) < _FEWEST_ROWS or _is_constant(values):
            return drift(history, horizon)
        if season > _LONGEST_SEASON and self.seasonal != "none" and len(values) >= 2 * season:
            flat = Smoothing(self.trend, "none")
            return _season_apart(values, horizon, season, lambda adjusted: flat.forecast(adjusted, horizon, 1))
        from statsmodels.tsa.holtwinters import ExponentialSmoothing

        seasonal = self.seasonal if 1 < season <= len(values) // 2 and self.seasonal != "none" else None
        if seasonal == "mul" and values.min() <= 0:
            seasonal = "add"

        def estimate() -> Point:
            model = ExponentialSmoothing(
                values,
                trend=None if self.trend == "none" else "add",
                damped_trend=self.trend == "damped",
                seasonal=seasonal,
                seasonal_periods=season if seasonal else None,
                initialization_method="estimated" if len(values) >= 10 + 2 * (season // 2) else "heuristic",
            )
            return np.asarray(model.fit().forecast(horizon), np.float64)

        return _sane(estimate, history, horizon, season)


def seasonal_kinds(history: History, season: int) -> list[Literal["none", "add", "mul"]]:
    """What a series allows, the richest first: a season from two seasons on, a multiplied one for positive values."""
    if not 1 < season <= len(history) // 2:
        return ["none"]
    seen = history[np.isfinite(history)]
    positive = season <= _LONGEST_SEASON and len(seen) > 0 and float(seen.min()) > 0
    return ["mul", "add", "none"] if positive else ["add", "none"]


def choose_smoothing(history: History, horizon: int, season: int) -> Smoothing:
    """The form with the smallest error on the end of the history, forecast from rows one horizon apart.

    First the season's kind is chosen beside a straight trend, then the trend beside that. A history too short for that
    gets the usual form: a damped trend, seasonal if there are two seasons.
    """
    kinds = seasonal_kinds(history, season)
    least = max(2 * season, _FEWEST_ROWS) if kinds[0] != "none" else _FEWEST_ROWS
    cuts = [len(history) - horizon * number for number in range(1, _ORIGINS + 1)]
    cuts = [cut for cut in cuts if cut >= least]
    if not cuts or _is_constant(history):
        return Smoothing("damped", kinds[0])
    errors: dict[Smoothing, float] = {}

    def best(forms: list[Smoothing]) -> Smoothing:
        for form in forms:
            if form not in errors:
                errors[form] = _held_out_error(form, history, cuts, horizon, season)
        return min(forms, key=lambda form: errors[form])

    kind = best([Smoothing("linear", kind) for kind in kinds]).seasonal
    return best([Smoothing("linear", kind), Smoothing("damped", kind), Smoothing("none", kind)])


def _held_out_error(form: Smoothing, history: History, cuts: Sequence[int], horizon: int, season: int) -> float:
    errors = [np.abs(history[cut : cut + horizon] - form.forecast(history[:cut], horizon, season)) for cut in cuts]
    whole = np.concatenate(errors)
    return float(np.nanmean(whole)) if np.isfinite(whole).any() else float("inf")


def _prepared(history: History, season: int) -> History:
    """The latest rows without gaps: what is missing is the mean of its neighbours a season away, or lies between."""
    rows = np.flatnonzero(np.isfinite(history))
    if not len(rows):
        return history[:0]
    values = history[rows[0] :][-max(_MOST_CYCLES * season, _MOST_ROWS) :].copy()
    if season > 1:
        for shift in (season, 2 * season):
            missing = ~np.isfinite(values)
            if missing.any() and len(values) > shift:
                around = np.full((2, len(values)), np.nan)
                around[0, shift:], around[1, :-shift] = values[:-shift], values[shift:]
                both = np.isfinite(around).all(axis=0) & missing
                values[both] = around[:, both].mean(axis=0)
    missing = ~np.isfinite(values)
    if missing.any() and not missing.all():
        places = np.arange(len(values))
        values[missing] = np.interp(places[missing], places[~missing], values[~missing])
    return values[np.isfinite(values)]


def _season_apart(values: History, horizon: int, season: int, forecast: Callable[[History], Point]) -> Point:
    """Takes the season out by STL, forecasts the rest, and adds the last season again.

    Source: Cleveland and others 1990, STL: a seasonal-trend decomposition procedure based on loess.
    """
    from statsmodels.tsa.seasonal import STL

    jump = max(season // 10, 1)  # loess at every tenth row, straight lines between: as exact, and ten times as fast
    with _quiet():
        parts = STL(values, period=season, trend_jump=jump, low_pass_jump=jump).fit()
    seasonal = np.asarray(parts.seasonal, np.float64)
    return forecast(values - seasonal) + np.resize(seasonal[-season:], horizon)


def _sane(estimate: Callable[[], Point], history: History, horizon: int, season: int) -> Point:
    """An estimate, or the seasonal naive forecast where the optimiser fails or runs away."""
    try:
        with _quiet(), _blas().limit(limits=1):
            point = estimate()
    except (ValueError, np.linalg.LinAlgError, FloatingPointError, ZeroDivisionError, OverflowError):
        return seasonal_naive(history, horizon, season)
    low, high = np.nanmin(history), np.nanmax(history)
    margin = 10 * (high - low) + 1e-9
    believable = np.isfinite(point).all() and (point >= low - margin).all() and (point <= high + margin).all()
    return point if believable else seasonal_naive(history, horizon, season)


@cache
def _blas() -> ThreadpoolController:
    """The linear algebra libraries; on a handful of parameters several threads only wait for each other."""
    import scipy.linalg  # noqa: F401  (loads the library that the optimisers use)

    return ThreadpoolController()


def _is_constant(history: History) -> bool:
    seen = history[np.isfinite(history)]
    return not len(seen) or float(np.ptp(seen)) <= 1e-12 * max(abs(float(seen[0])), 1e-300)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optimisers that stop early still give a forecast, which is judged by its errors and not by their warnings."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
