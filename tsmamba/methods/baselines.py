"""Simple forecasts that every model is shown beside: naive ones, drift, exponential smoothing, Theta, ARIMA, Croston.

Each works on one series at a time: `history` in the data's unit, NaN where missing, to `horizon` values. What was not
observed is skipped by the naive methods and Croston's, and filled in from neighbouring seasons for the others.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float64
from threadpoolctl import ThreadpoolController

History = Float64[np.ndarray, " _"]
Point = Float64[np.ndarray, " H"]

ANY_FORM = "ZZZ"
"""Statsforecast's name for a form of exponential smoothing that the data choose."""
ANY_ORDER = ""
"""An empty text in the place of the name of an order of ARIMA: the data choose it."""
_CONSTANTS = {"intercept": " with mean", "drift": " with drift"}

_LONGEST_SEASON = 24
"""Seasons up to this length are smoothed state by state; longer ones are taken out by STL first, as `stlf` does."""
_LONGEST_BY_CRITERION = 12
"""Seasons up to which the form of exponential smoothing is chosen by an information criterion alone."""
_SEASONAL, _SEASONAL_ABOVE_0 = ("ANA", "AAdA"), ("MNM", "MAdM")
_MOST_CYCLES, _MOST_ROWS = 10, 400
"""Exponential smoothing reads so many seasons or rows, whichever is more, the latest: it forgets older ones anyway."""
_FEWEST_ROWS = 10


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
    """The best of the Theta method's four forms, seasonally adjusted where a test finds a season.

    Source: Assimakopoulos, Nikolopoulos 2000, The theta model, International Journal of Forecasting 16(4); Fiorucci and
    others 2016, Models for optimising the theta method and their relationship to state space models (statsforecast).
    """

    def estimate(values: History, season: int) -> Point:
        from statsforecast.models import AutoTheta

        return AutoTheta(season_length=season).forecast(values, horizon)["mean"]

    return _estimated(estimate, history, horizon, season, additive=not _is_positive(history))


def ets(history: History, horizon: int, season: int, form: str = ANY_FORM) -> Point:
    """Exponential smoothing, its parameters estimated on the history; of the form of `ets_form` by default.

    Args:
        history: of one series.
        horizon: rows to forecast.
        season: rows of a season.
        form: as `ets_form` gives it; one that the history does not allow is chosen anew.

    Source: Hyndman, Koehler, Ord, Snyder 2008, Forecasting with Exponential Smoothing (statsforecast).
    """
    if form == ANY_FORM:
        form = ets_form(history, season)

    def estimate(values: History, season: int) -> Point:
        fixed = form if season > 1 or form == ANY_FORM else form[:-1] + "N"
        try:
            return _smoothing(fixed, season).forecast(values, horizon)["mean"]
        except Exception:  # statsforecast raises it bare for a form that a series has too few rows for
            return _smoothing(ANY_FORM, season).forecast(values, horizon)["mean"]

    return _estimated(estimate, history, horizon, season, additive=form != ANY_FORM and "M" not in form)


def ets_form(history: History, season: int) -> str:
    """The form of exponential smoothing: error, trend and season, such as `MAdM` or `ANN`.

    It is the one with the smallest AICc. The AICc charges for each row of a season, and so prefers forms without one
    where the season has many: of a longer season the form is the best of this one and the usual seasonal ones on the
    last three seasons, each forecast from the rows before it.
    """
    found = ANY_FORM

    def estimate(values: History, season: int) -> Point:
        nonlocal found
        error, trend, seasonal, damped = _smoothing(ANY_FORM, season).fit(values).model_["components"]
        found = error + trend + ("d" if damped == "D" else "") + seasonal
        return values[:1]

    _estimated(estimate, history, 1, season)
    cuts = [len(history) - season * number for number in range(1, 4)]
    if not _LONGEST_BY_CRITERION < season <= _LONGEST_SEASON or found == ANY_FORM or cuts[-1] < 4 * season:
        return found
    forms = dict.fromkeys([found, *(_SEASONAL_ABOVE_0 if np.nanmin(history) > 0 else ()), *_SEASONAL])
    return min(forms, key=lambda form: _held_out_error(form, history, cuts, season))


def _held_out_error(form: str, history: History, cuts: Sequence[int], season: int) -> float:
    errors = [history[cut : cut + season] - ets(history[:cut], season, season, form) for cut in cuts]
    whole = np.abs(np.concatenate(errors))
    return float(np.nanmean(whole)) if np.isfinite(whole).any() else float("inf")


def arima(history: History, horizon: int, season: int, order: str = ANY_ORDER) -> Point:
    """ARIMA, its parameters estimated on the history; of the order with the smallest AICc by default.

    Args:
        history: of one series.
        horizon: rows to forecast.
        season: rows of a season.
        order: as `arima_order` gives it; one that the history does not allow is chosen anew.

    Source: Hyndman, Khandakar 2008, Automatic time series forecasting, Journal of Statistical Software 27(3)
    (statsforecast).
    """

    def estimate(values: History, season: int) -> Point:
        from statsforecast.models import ARIMA, AutoARIMA

        numbers, _, constant = order.partition(" with ")
        p, d, q, *of_season = (int(number) for number in re.findall(r"\d+", numbers) or [0] * 6)
        if order != ANY_ORDER and (season > 1 or not any(of_season)):
            seasonal_p, seasonal_d, seasonal_q = of_season
            model = ARIMA(
                order=(p, d, q), seasonal_order=(seasonal_p, seasonal_d, seasonal_q), season_length=season,
                include_mean=constant == "mean", include_drift=constant == "drift",
            )  # fmt: skip
            with suppress(Exception):  # statsforecast raises it bare for an order that a series has too few rows for
                return model.forecast(values, horizon)["mean"]
        return AutoARIMA(season_length=season).forecast(values, horizon)["mean"]

    return _estimated(estimate, history, horizon, season)


def arima_order(history: History, season: int) -> str:
    """The order of ARIMA with the smallest AICc: p, d and q, those of the season, and a constant where it has one.

    It reads `(2,1,1)(0,1,0)`, `(1,0,0)(0,0,0) with mean` or `(0,1,1)(0,0,0) with drift`; `ANY_ORDER` where a series is
    too short for any.
    """
    found = ANY_ORDER

    def estimate(values: History, season: int) -> Point:
        from statsforecast.models import AutoARIMA

        nonlocal found
        model = AutoARIMA(season_length=season).fit(values).model_
        p, q, seasonal_p, seasonal_q, _, d, seasonal_d = model["arma"]
        constant = next((said for name, said in _CONSTANTS.items() if name in model["coef"]), "")
        found = f"({p},{d},{q})({seasonal_p},{seasonal_d},{seasonal_q}){constant}"
        return values[:1]

    _estimated(estimate, history, 1, season)
    return found


def croston(history: History, horizon: int) -> Point:
    """The mean demand of an intermittent series, from its demands' sizes and distances; the mean value of another.

    Source: Syntetos, Boylan 2005, The accuracy of intermittent demand estimates, International Journal of Forecasting
    21(2) (statsforecast).
    """
    seen = history[np.isfinite(history)]
    if not is_intermittent(history) or np.count_nonzero(seen) < 2:
        return np.full(horizon, seen.mean() if len(seen) else np.nan)
    from statsforecast.models import CrostonSBA

    return CrostonSBA().forecast(seen, horizon)["mean"]


def is_intermittent(history: History) -> bool:
    """Whether demands are so far apart that they are forecast as such: 1.32 rows in the mean, none of them negative.

    Source: Syntetos, Boylan, Croston 2005, On the categorization of demand patterns, Journal of the Operational
    Research Society 56(5).
    """
    seen = history[np.isfinite(history)]
    demands = np.count_nonzero(seen)
    return bool(demands > 0 and seen.min() >= 0 and len(seen) / demands > 1.32)


def _smoothing(form: str, season: int) -> Any:
    from statsforecast.models import AutoETS

    damped = None if form == ANY_FORM else "d" in form
    return AutoETS(season_length=season, model=form.replace("d", ""), damped=damped)


def _estimated(
    estimate: Callable[[History, int], Point], history: History, horizon: int, season: int, *, additive: bool = False
) -> Point:
    """What a method says of a history without gaps, in units of its own size; the drift where there are too few rows.

    A season that two of the history don't hold is none. A long one is taken out first.

    Args:
        estimate: forecasts values with a season.
        history: of one series.
        horizon: rows to forecast.
        season: rows of a season.
        additive: the method looks at differences alone, not at ratios: it is given deviations from the mean, in units
            of their own size, so that its optimiser does not depend on where 0 lies.
    """
    values = _prepared(history, season)
    if len(values) < _FEWEST_ROWS or _is_constant(values):
        return drift(history, horizon)
    if season > len(values) // 2:
        season = 1
    if season > _LONGEST_SEASON:
        rest_alone = partial(_estimated, estimate, horizon=horizon, season=1, additive=additive)
        return _season_apart(values, horizon, season, rest_alone)
    middle = float(values.mean()) if additive else 0.0
    size = float(np.abs(values - middle).mean())
    return _sane(lambda: estimate((values - middle) / size, season) * size + middle, history, horizon, season)


def _prepared(history: History, season: int) -> History:
    """The latest rows without gaps: what is missing is the mean of its neighbours a season away, or lies between."""
    rows = np.flatnonzero(np.isfinite(history))
    if not len(rows):
        return history[:0]
    values = history[rows[0] :][-max(_MOST_CYCLES * season, _MOST_ROWS) :].copy()
    if season > 1:
        for shift in (season, 2 * season):
            around = np.full((2, len(values)), np.nan)
            around[0, shift:], around[1, :-shift] = values[:-shift], values[shift:]
            both = np.isfinite(around).all(axis=0) & ~np.isfinite(values)
            values[both] = around[:, both].mean(axis=0)
    missing = ~np.isfinite(values)
    if not missing.all():
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
    except Exception:  # statsforecast raises it bare where an optimiser fails
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


def _is_positive(history: History) -> bool:
    """Whether every observed value is above zero, so that ratios of them mean something."""
    return not (history <= 0).any()


def _is_constant(history: History) -> bool:
    seen = history[np.isfinite(history)]
    return not len(seen) or float(np.ptp(seen)) <= 1e-12 * max(abs(float(seen[0])), 1e-300)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optimisers that stop early still give a forecast, which is judged by its errors and not by their warnings."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
