"""Synthetic series of many kinds, drawn anew at every step: what the pre-trained forecaster learns from.

A series is a trend, seasons and noise, added up or multiplied, with what befalls real series on top: changing levels,
outliers, rounding, zeros, counts and gaps. A batch has one rhythm (months, quarters, hours, ...).

Sources: Hyndman, Koehler, Ord, Snyder 2008, Forecasting with Exponential Smoothing (local trends and seasons as state
space models); Dooley and others 2023, ForecastPFN (a forecaster that learns from a prior); Ansari and others 2024,
Chronos (Gaussian processes with composed kernels).

Shapes: `n` series, `L` rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from tsmamba.zero.patterns import choose, cycles, grown, season_of, spread_over

Rng = np.random.Generator
Rows = Float64[np.ndarray, "n L"]

SHORTEST = 8
"""Rows of the shortest history."""


@dataclass(frozen=True)
class Rhythm:
    """A kind of batch: how its series beat, and how long they are.

    Attributes:
        name: for people.
        share: of all batches.
        season, cycle: rows of the season, and of a longer one (0: none); a season of 0 is drawn for each series.
        year: rows of a year, by which trends are measured; 0: drawn.
        noise: the largest deviation of its noise, by the level.
        contexts: rows that may be read, one of which is drawn.
        horizons: rows that may be forecast, one of which is drawn.
    """

    name: str
    share: float
    season: int
    cycle: int
    year: int
    noise: float
    contexts: tuple[int, ...]
    horizons: tuple[int, ...]


RHYTHMS = (
    Rhythm("years", 0.20, 1, 0, 1, 0.15, (24, 48), (8,)),
    Rhythm("quarters", 0.19, 4, 0, 4, 0.25, (40, 80), (8, 16)),
    Rhythm("months", 0.32, 12, 0, 12, 0.35, (72, 144, 240), (24,)),
    Rhythm("weeks", 0.06, 52, 0, 52, 0.35, (160, 320), (16, 56)),
    Rhythm("days", 0.09, 7, 0, 365, 0.4, (64, 160, 512), (16, 32, 64)),
    Rhythm("hours", 0.05, 24, 168, 8766, 0.4, (240, 512, 1024), (24, 48, 64)),
    Rhythm("any", 0.09, 0, 0, 0, 0.4, (64, 160, 400, 2048), (16, 64)),
)


class Drawn(NamedTuple):
    """A batch of synthetic series.

    Attributes:
        values: (n, L) all rows, those to be forecast at the end.
        seen: (n, C) which rows of the history are read.
        season, cycle: (n,) rows of a season and of a longer one; 1 and 0 where there is none.
    """

    values: Float32[np.ndarray, "n L"]
    seen: Bool[np.ndarray, "n C"]
    season: Int64[np.ndarray, " n"]
    cycle: Int64[np.ndarray, " n"]


def draw(seed: int, number: int, rows_at_a_time: int = 24_000) -> Drawn:
    """The batch of a number, always the same under a seed.

    Args:
        seed: of the run.
        number: of the batch.
        rows_at_a_time: about how many rows the batch has; longer series are fewer.
    """
    rng = np.random.default_rng([seed, number])
    rhythm = RHYTHMS[rng.choice(len(RHYTHMS), p=[one.share for one in RHYTHMS])]
    context, horizon = int(rng.choice(rhythm.contexts)), int(rng.choice(rhythm.horizons))
    n = max(min(rows_at_a_time // (context + horizon), 384), 4)
    season, year = _season(rng, rhythm, n, context)
    values = series(rng, season, rhythm.cycle, year, context + horizon, rhythm.noise)
    # Some series are not told of their season, and some are told of one that they don't have.
    told = np.where(rng.random(n) < 0.03, 1, season)
    cycle = np.full(n, rhythm.cycle if context > 1.5 * rhythm.cycle else 0)
    return Drawn(values.astype(np.float32), _seen(rng, n, context, season), told, cycle)


def _season(
    rng: Rng, rhythm: Rhythm, n: int, context: int
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    if rhythm.season:
        return np.full(n, rhythm.season), np.full(n, float(rhythm.year))
    longest = min(context // 2, 400)
    season = np.exp(rng.uniform(0, np.log(longest), n)).astype(np.int64)
    return season, season * np.exp(rng.uniform(-1, 3, n))


def series(
    rng: Rng, season: Int64[np.ndarray, " n"], cycle: int, year: Float64[np.ndarray, " n"], rows: int, loudest: float
) -> Rows:
    """Synthetic series of a common length.

    Args:
        rng: of the batch.
        season: (n,) rows of each series' season.
        cycle: rows of a longer season; 0 for none.
        year: (n,) rows of a year.
        rows: of each series.
        loudest: the largest deviation of the noise.
    """
    n = len(season)
    trend = _trend(rng, year, rows)
    strength = spread_over(rng, n, 0.01, 1.0) * choose(rng, n, {0.0: 0.2, 1.0: 0.8})
    seasons = season_of(rng, season, rows) * strength
    if cycle:
        longer = spread_over(rng, n, 0.05, 0.7) * choose(rng, n, {0.0: 0.3, 1.0: 0.7})
        seasons = seasons + season_of(rng, np.full(n, cycle), rows) * longer
    noise = _noise(rng, season, rows, loudest)
    together = trend + seasons + noise + _accidents(rng, n, rows)
    multiplied = np.exp(np.clip(together, -8, 8))
    level = choose(rng, n, {0.0: 0.2, 1.0: 0.5, 3.0: 0.3})
    values = np.where(rng.random((n, 1)) < 0.65, multiplied, level + together)
    return _kinds(rng, values, seasons, noise)


def _trend(rng: Rng, year: Float64[np.ndarray, " n"], rows: int) -> Rows:
    """A local level with a local slope that returns to its mean, straight pieces, and slow cycles."""
    n = len(year)
    per_row = 1 / year[:, None]
    mean_slope = rng.standard_t(4, (n, 1)) * spread_over(rng, n, 0.01, 0.12) * choose(rng, n, {0.0: 0.25, 1.0: 0.75})
    mean_slope = np.where(rng.random((n, 1)) < 0.75, np.abs(mean_slope), mean_slope)  # more grows than falls
    stays = rng.uniform(0.2, 1.0, (n, 1)) ** per_row
    slope_moves = spread_over(rng, n, 0.003, 0.1) * choose(rng, n, {0.0: 0.4, 1.0: 0.6})
    level_moves = spread_over(rng, n, 0.005, 0.3) * choose(rng, n, {0.0: 0.3, 1.0: 0.7})
    found = grown(
        rng, (n, rows), slope=mean_slope * per_row, stays=stays,
        slope_moves=slope_moves * per_row**1.5, level_moves=level_moves * per_row**0.5,
    )  # fmt: skip
    pieces = choose(rng, n, {0.0: 0.75, 1.0: 0.25}) * spread_over(rng, n, 0.02, 0.3) * per_row
    at = np.arange(rows)[None]
    for _ in range(2):
        since = np.maximum(at - rng.integers(0, rows, (n, 1)), 0)
        found += since * pieces * rng.normal(0, 1, (n, 1))
    slow = choose(rng, n, {0.0: 0.65, 1.0: 0.35}) * spread_over(rng, n, 0.02, 0.5)
    return np.clip(found + slow * cycles(rng, n, rows), -12, 12)


def _noise(rng: Rng, season: Int64[np.ndarray, " n"], rows: int, loudest: float) -> Rows:
    """Noise with a memory, sometimes with heavy tails, sometimes louder in some seasons or times than in others."""
    n = len(season)
    heavy = rng.random((n, 1)) < 0.2
    shocks = np.where(heavy, rng.standard_t(3, (n, rows)) / 1.7, rng.normal(0, 1, (n, rows)))
    memory = choose(rng, n, {0.0: 0.5, 0.3: 0.15, 0.6: 0.12, 0.85: 0.1, -0.3: 0.08, -0.6: 0.05})
    found = shocks.copy()
    for row in range(1, rows):
        found[:, row] += memory[:, 0] * found[:, row - 1]
    moving = choose(rng, n, {0.0: 0.8, 0.5: 0.1, -0.5: 0.1})
    found[:, 1:] += moving * shocks[:, :-1]
    loud = np.exp(0.6 * season_of(rng, season, rows) * choose(rng, n, {0.0: 0.85, 1.0: 0.15}))
    loud *= np.exp(0.7 * cycles(rng, n, rows) * choose(rng, n, {0.0: 0.85, 1.0: 0.15}))
    return found * loud * spread_over(rng, n, 0.003, loudest)


def _accidents(rng: Rng, n: int, rows: int) -> Rows:
    """Outliers, and levels that change for good or for a while."""
    some = rng.random((n, 1)) < 0.15
    outliers = (rng.random((n, rows)) < 0.01) * some * rng.standard_t(3, (n, rows)) * spread_over(rng, n, 0.1, 0.6)
    shifts = (rng.random((n, rows)) < 1.5 / rows) * rng.normal(0, 1, (n, rows)) * spread_over(rng, n, 0.05, 0.5)
    lasting = shifts.cumsum(axis=1) * (rng.random((n, 1)) < 0.12)
    begin = rng.integers(0, rows, (n, 1))
    during = (np.arange(rows) >= begin) & (np.arange(rows) < begin + rng.integers(1, rows // 3 + 2, (n, 1)))
    return outliers + lasting + during * rng.normal(0, 0.3, (n, 1)) * (rng.random((n, 1)) < 0.05)


def _kinds(rng: Rng, values: Rows, seasons: Rows, noise: Rows) -> Rows:
    """Some of the series become something else: counts, sporadic demand, walks, closed days, rounded numbers."""
    n, rows = values.shape
    kind = rng.random((n, 1))
    size = np.abs(values).mean(axis=1, keepdims=True) + 1e-9
    rate = np.clip(np.abs(values) / size, 0, 30) * spread_over(rng, n, 0.1, 30.0)
    counts = rng.poisson(rate).astype(np.float64)
    sporadic = counts * (rng.random((n, rows)) < rng.uniform(0.1, 0.6, (n, 1)))
    walk = noise.cumsum(axis=1)
    quiet = seasons + noise * spread_over(rng, n, 0.01, 1.0)
    closed = np.where(seasons < np.quantile(seasons, 0.25, axis=1, keepdims=True), 0.0, np.abs(values))
    digits = size / 10 ** rng.integers(1, 3, (n, 1))
    rounded = np.round(values / digits) * digits
    for share, other in (
        (0.03, counts), (0.03, sporadic), (0.05, walk), (0.03, walk.cumsum(axis=1)), (0.03, quiet),
        (0.015, closed), (0.04, rounded), (0.02, np.maximum(values - size * 0.5, 0)),
    ):  # fmt: skip
        values = np.where((kind >= 0) & (kind < share), other, values)
        kind = kind - share
    return np.nan_to_num(values, posinf=1e6, neginf=-1e6)


def _seen(rng: Rng, n: int, context: int, season: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, "n C"]:
    """Which rows of the history are read: its latest ones, now and then with gaps."""
    shortest = np.minimum(np.maximum(SHORTEST, season + 2), context)
    length = np.exp(rng.uniform(np.log(shortest), np.log(context + 1))).astype(np.int64)
    length = np.where(rng.random(n) < 0.35, context, length)[:, None]
    at = np.arange(context)[None]
    seen = at >= context - length
    scattered = (rng.random((n, 1)) < 0.06) & (rng.random((n, context)) < rng.uniform(0.02, 0.4, (n, 1)))
    begin = rng.integers(0, context, (n, 1))
    block = (rng.random((n, 1)) < 0.03) & (at >= begin) & (at < begin + rng.integers(1, context // 4 + 2, (n, 1)))
    seen &= ~(scattered | block)
    seen[:, -2:] |= seen.sum(axis=1, keepdims=True) < 2
    return seen
