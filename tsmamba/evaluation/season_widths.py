"""Errors that differ by season: how much wider or narrower intervals are on a Monday than on a Sunday.

A phase is the place of a row in its season: rows a season apart share it. Phases whose errors do not clearly differ in
size share one; the sizes of what remains apart are shrunk towards each other by how far chance alone would part them.

Source: Scott, Knott 1974, A cluster analysis method for grouping means in the analysis of variance, Biometrics 30;
Efron, Morris 1975, Data analysis using Stein's estimator and its generalizations, JASA 70.

Shapes: `K` origins; `S` series; `H` horizon; `R` rows between the first forecast one and the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from scipy import special

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
    """Typical size of the errors in each phase over that of all, the same for phases that do not clearly differ.

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
    freedom = len(values) - season
    within = float(((values - average[groups]) ** 2).sum()) / freedom
    cluster = clusters(average, within / counts.mean(), freedom)
    n_clusters = cluster.max() + 1
    if n_clusters == 1:
        return alike
    rows = np.bincount(cluster, counts)
    size = np.bincount(cluster, counts * average) / rows
    between = float((rows * (size - values.mean()) ** 2).sum()) / (n_clusters - 1)
    real = max(between - within, 0.0) / rows.mean()
    trust = real / (real + within / rows) if real > 0 else np.zeros(n_clusters)
    found = 1 + (size / values.mean() - 1) * trust
    return np.where((average == 0) & (counts >= 1 / widest - 1), 0.0, np.maximum(found, 0.0)[cluster])


def clusters(means: Float64[np.ndarray, " P"], error: float, freedom: int) -> Int64[np.ndarray, " P"]:
    """The cluster that each of several means belongs to, from 0 for the smallest; all 0 where none clearly differ.

    The ordered means are parted where the parts differ most, and each part again, as long as chance would hardly part
    them so far.

    Args:
        means: of groups of about one size.
        error: the variance that each has by chance.
        freedom: degrees of freedom that `error` was estimated with.
    """
    order = np.argsort(means, kind="stable")
    ends = _parted(means[order], error, freedom)
    found = np.zeros(len(means), np.int64)
    found[order] = np.searchsorted(ends, np.arange(len(means)), side="right")
    return found


def _parted(means: Float64[np.ndarray, " P"], error: float, freedom: int) -> list[int]:
    """Where ascending means are to be parted: the places of the first mean of each cluster but the first."""
    n, deviations = len(means), means - means.mean()
    left = np.arange(1, n)
    apart = np.cumsum(deviations)[:-1] ** 2 * n / (left * (n - left))
    variance = (float((deviations**2).sum()) + freedom * error) / (n + freedom)
    if n < 2 or variance == 0:
        return []
    cut = int(apart.argmax()) + 1
    beyond = np.pi / (2 * (np.pi - 2)) * apart.max() / variance
    if special.chdtrc(n / (np.pi - 2), beyond) > _CLEAR:
        return []
    first, second = (_parted(part, error, freedom) for part in (means[:cut], means[cut:]))
    return [*first, cut, *(cut + place for place in second)]


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
