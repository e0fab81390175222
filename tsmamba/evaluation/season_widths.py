"""Errors that differ by season: how much wider or narrower intervals are on a Monday than on a Sunday.

A phase is the place of a row in its season: rows a season apart share it. Sizes of errors by phase are told apart by an
analysis of variance, and shrunk towards each other by how far chance alone would part them.

Source: Efron, Morris 1975, Data analysis using Stein's estimator and its generalizations, JASA 70.

Shapes: `K` origins; `S` series; `H` horizon; `R` rows between the first forecast one and the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from scipy import stats

from mamba_data_prep.series.times.frequency import Frequency, Instant
from tsmamba.panel.panel import Panel

_FEWEST = 12
"""Rows of each phase below which phases are not told apart."""
_CLEAR = 1e-3
"""Probability of so different phases by chance, above which they count as alike."""
_MONDAY = np.datetime64("1970-01-05", "ns")


def phases_ahead(panel: Panel, season: int) -> Int64[np.ndarray, " S"]:
    """The phase of the row after each series' end, the same for the same time whichever rows a panel holds."""
    ahead = [phase_after(one.times[-1], panel.frequency, season) if len(one) else 0 for one in panel.series]
    return np.array(ahead, dtype=np.int64)


def phase_after(time: Instant, frequency: Frequency, season: int) -> int:
    """The phase of the row that follows a time: how many steps it lies after a Monday long ago, over the season."""
    origin = 0 if frequency.unit == "index" else _MONDAY
    return (int(frequency.count(np.array([time]), origin)[0]) + 1) % season


def sizes_by_phase(
    means: Float64[np.ndarray, "S R"], first: Int64[np.ndarray, " S"], season: int, widest: float
) -> Float64[np.ndarray, " _"]:
    """Typical size of the errors in each phase over that of all; 1 where phases do not clearly differ.

    A phase without any error is of size 0 where it has so many rows that the widest interval needs no more.

    Args:
        means: size of each row's errors, from `row_means`.
        first: the phase of the row after each series' last.
        season: phases.
        widest: share of values outside of the widest interval, on its narrower side.
    """
    alike = np.ones(season)
    phase = (first[:, None] - means.shape[1] + np.arange(means.shape[1])) % season
    seen = np.isfinite(means)
    values, groups = means[seen], phase[seen]
    counts = np.bincount(groups, minlength=season)
    if season < 2 or counts.min() < _FEWEST or not values.any():
        return alike
    average = np.bincount(groups, values, season) / counts
    within = float(((values - average[groups]) ** 2).sum()) / (len(values) - season)
    between = float((counts * (average - values.mean()) ** 2).sum()) / (season - 1)
    if within > 0 and stats.f.sf(between / within, season - 1, len(values) - season) > _CLEAR:
        return alike
    real = max(between - within, 0.0) / counts.mean()
    trust = real / (real + within / counts) if real > 0 else np.zeros(season)
    found = 1 + (average / values.mean() - 1) * trust
    return np.where((average == 0) & (counts >= 1 / widest - 1), 0.0, np.maximum(found, 0.0))


def row_means(errors: Float64[np.ndarray, "K S H"], steps_back: Sequence[int]) -> Float64[np.ndarray, "S R"]:
    """The mean size of the errors in each of the rows up to a series' last; many forecasts of a row count once.

    Args:
        errors: in units that make series and steps alike, NaN where unknown.
        steps_back: how many rows before each series' end a forecast was made.
    """
    back, rows = np.array(steps_back, dtype=np.int64), max(steps_back, default=0)
    place = (rows - back)[:, None] + np.arange(errors.shape[2])
    found = np.full((errors.shape[1], rows), np.nan)
    for number in range(errors.shape[1]):
        seen = np.isfinite(errors[:, number]) & (place < rows)
        count = np.bincount(place[seen], minlength=rows)
        total = np.bincount(place[seen], np.abs(errors[:, number][seen]), minlength=rows)
        found[number] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def constant_phases(history: Float64[np.ndarray, " T"], season: int, widest: float) -> Float64[np.ndarray, " _"]:
    """The value of each of the next phases that had one value throughout, while others clearly had more; else NaN.

    Such as 0 on days on which a shop is closed. It takes so many rows that the widest interval needs no more, and that
    chance would hardly have given them one value if they were as the other phases are.

    Args:
        history: the latest rows, NaN where missing.
        season: phases; the first is that of the row after the history's end.
        widest: share of values outside of the widest interval, on its narrower side.
    """
    weeks = len(history) // season
    none = np.full(season, np.nan)
    if season < 2 or weeks < 1 / widest - 1:
        return none
    table = history[len(history) - weeks * season :].reshape(weeks, season)
    seen = np.isfinite(table)
    counts = seen.sum(axis=0)
    low, high = np.where(seen, table, np.inf).min(axis=0), np.where(seen, table, -np.inf).max(axis=0)
    constant = (low == high) & (counts >= 1 / widest - 1)
    if not constant.any() or constant.all():
        return none
    others = table[:, ~constant][seen[:, ~constant]]
    for phase in np.flatnonzero(constant):
        alike = float(np.mean(others == low[phase])) if len(others) else 1.0
        if season * alike ** counts[phase] > _CLEAR:
            constant[phase] = False
    return np.where(constant, low, np.nan)
