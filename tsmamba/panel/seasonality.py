"""Which season a panel has: the calendar proposes, the data decide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

_LEAST_STRENGTH = 0.15
_WORTH_MORE_STATES = 0.05
"""By how much the correlation over a longer season must exceed that over a shorter one to be preferred to it."""
_FEWEST_TO_SEARCH = 12
"""Rows without which no season is looked for."""
RECENT = 20_000
"""Rows that are looked at, the latest: enough for two years of hours."""


def choose_season(histories: Sequence[Float64[np.ndarray, " _"]], candidates: Sequence[int]) -> int:
    """The season, in rows, that most of the series show; 1 where there is none.

    Args:
        histories: the series, NaN where missing.
        candidates: what the calendar proposes; empty where rows are only counted, and then any season may be found.

    Returns:
        One of the candidates (the shortest where the data show none of them), or what was found.
    """
    recent = [history[-RECENT:] for history in histories]
    if not candidates:
        long = [history for history in recent if len(history) >= _FEWEST_TO_SEARCH] or recent
        found = [_searched(history) for history in long]
        return int(np.median(found)) if found and len(set(found)) == 1 else 1
    longest = max((len(history) for history in recent), default=0)
    possible = sorted(season for season in candidates if 2 * season <= longest)
    best, best_likeness = 0, -1.0
    for season in possible:
        likeness = float(np.median([_likeness(history, season) for history in _able(recent, season)]))
        if is_seasonal(recent, season) and likeness > best_likeness + (_WORTH_MORE_STATES if best else 0):
            best, best_likeness = season, likeness
    return best or (possible[0] if possible else 1)


def is_seasonal(histories: Sequence[Float64[np.ndarray, " _"]], season: int) -> bool:
    """Whether most of the series that are long enough to tell are more alike one season apart than half a season."""
    strengths = [seasonal_strength(history, season) for history in _able(histories, season)]
    return float(np.median(strengths)) > _LEAST_STRENGTH


def _able(histories: Sequence[Float64[np.ndarray, " _"]], season: int) -> Sequence[Float64[np.ndarray, " _"]]:
    """The histories with values for two seasons, which alone can show a season; all of them where no history has."""
    return [history for history in histories if np.isfinite(history).sum() >= 2 * season] or histories


def seasonal_strength(history: Float64[np.ndarray, " T"], season: int) -> float:
    """How much more alike values one season apart are than values half a season apart: -2 to 2, as correlations.

    Both the series without its straight trend and its changes are asked, since slow cycles hide a short season in the
    one, and noise hides a long one in the other.
    """
    if season < 2 or len(history) < 2 * season:
        return 0.0
    strengths = []
    for values in (_without_trend(history), np.diff(history)):
        correlation = autocorrelation(values, season)
        strengths.append(correlation[season] - correlation[season // 2] if correlation[season] > 0 else 0.0)
    return float(max(strengths))


def _likeness(history: Float64[np.ndarray, " T"], season: int) -> float:
    """Correlation of values one season apart."""
    return float(autocorrelation(_without_trend(history), season)[season]) if len(history) >= 2 * season else 0.0


def autocorrelation(values: Float64[np.ndarray, " T"], longest: int) -> Float64[np.ndarray, " L"]:
    """Autocorrelation at the lags 0 to `longest`, from the pairs of observed values; 0 for a constant series."""
    seen = np.isfinite(values)
    centred = np.where(seen, values - (values[seen].mean() if seen.any() else 0.0), 0.0)
    size = 2 ** int(np.ceil(np.log2(2 * max(len(values), 1))))
    products = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)
    pairs = np.rint(np.fft.irfft(np.abs(np.fft.rfft(seen.astype(np.float64), size)) ** 2, size))
    lags = min(longest, len(values) - 1) + 1
    covariance = np.zeros(longest + 1)
    covariance[:lags] = products[:lags] / np.maximum(pairs[:lags], 1)
    spread = centred[seen].var() if seen.any() else 0.0
    return covariance / spread if spread > 0 else np.zeros(longest + 1)


def _without_trend(values: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, " T"]:
    rows, seen = np.arange(len(values), dtype=np.float64), np.isfinite(values)
    if seen.sum() < 3:
        return values
    slope, level = np.polyfit(rows[seen], values[seen], 1)
    return values - level - slope * rows


def _searched(history: Float64[np.ndarray, " T"]) -> int:
    """The lag of the highest peak of the autocorrelation that is a season by strength and by height; 1 if none is."""
    longest = len(history) // 3
    if len(history) < _FEWEST_TO_SEARCH:
        return 1
    correlation = autocorrelation(_without_trend(history), longest)
    inner = correlation[2:-1]
    peaks = 2 + np.flatnonzero((inner > correlation[1:-2]) & (inner >= correlation[3:]) & (inner > 0.3))
    peaks = [lag for lag in peaks if correlation[lag] - correlation[lag // 2] > 0.3]
    if not peaks:
        return 1
    highest = max(correlation[lag] for lag in peaks)
    return int(next(lag for lag in peaks if correlation[lag] >= highest - _WORTH_MORE_STATES))
