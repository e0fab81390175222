"""Parts of synthetic series: numbers over orders of magnitude, seasons, cycles and levels that wander.

Shapes: `n` series, `L` rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Int64

Rng = np.random.Generator
Rows = Float64[np.ndarray, "n L"]
Column = Float64[np.ndarray, "n 1"]

_HARMONICS = 6


def choose(rng: Rng, n: int, shares: Mapping[float, float]) -> Column:
    """One of some numbers a series, by their shares."""
    return rng.choice(list(shares), (n, 1), p=list(shares.values()))


def spread_over(rng: Rng, n: int, low: float, high: float) -> Column:
    """Numbers between two bounds, all orders of magnitude alike."""
    return np.exp(rng.uniform(np.log(low), np.log(high), (n, 1)))


def season_of(rng: Rng, season: Int64[np.ndarray, " n"], rows: int) -> Rows:
    """A season of mean 0 and deviation 1 that may change its shape or its strength over time; 0 for a season of 1."""
    n, longest = len(season), int(season.max())
    if longest < 2:
        return np.zeros((n, rows))
    now, later = (_pattern(rng, season, longest) for _ in range(2))
    phase = (np.arange(rows)[None] + rng.integers(0, longest, (n, 1))) % season[:, None]
    change = choose(rng, n, {0.0: 0.7, 0.3: 0.2, 1.0: 0.1}) * np.linspace(0, 1, rows)[None]
    found = np.take_along_axis(now, phase, 1) * (1 - change) + np.take_along_axis(later, phase, 1) * change
    swells = choose(rng, n, {0.0: 0.75, 0.4: 0.25})
    return found * np.exp(swells * cycles(rng, n, rows))


def _pattern(rng: Rng, season: Int64[np.ndarray, " n"], longest: int) -> Float64[np.ndarray, "n S"]:
    """One season: waves, or each phase by itself, or few that stand out, or two levels."""
    n = len(season)
    at = np.arange(longest)[None]
    angle = 2 * np.pi * at / season[:, None]
    waves = np.zeros((n, longest))
    steep = rng.uniform(0.5, 2, (n, 1))
    for order in range(1, _HARMONICS + 1):
        size = rng.normal(0, 1, (n, 1)) / order**steep
        waves += size * np.cos(order * angle + rng.uniform(0, 2 * np.pi, (n, 1)))
    each = rng.normal(0, 1, (n, longest))
    few = rng.exponential(1, (n, longest)) * (rng.random((n, longest)) < rng.uniform(0.03, 0.3, (n, 1)))
    begin = rng.integers(0, longest, (n, 1))
    open_rows = np.maximum((season[:, None] * rng.uniform(0.2, 0.8, (n, 1))).astype(np.int64), 1)
    levels = (((at - begin) % season[:, None]) < open_rows) + 0.15 * waves
    kind = rng.random((n, 1))
    found = np.where(kind < 0.4, waves, np.where(kind < 0.7, each, np.where(kind < 0.85, waves + 2 * few, levels)))
    inside = at < season[:, None]
    mean = (found * inside).sum(axis=1, keepdims=True) / season[:, None]
    centred = (found - mean) * inside
    return centred / np.sqrt((centred**2).sum(axis=1, keepdims=True) / season[:, None] + 1e-9)


def cycles(rng: Rng, n: int, rows: int) -> Rows:
    """A smooth Gaussian process of deviation about 1: waves of random lengths, of which long ones are larger.

    Source: Rahimi and Recht 2007, Random Features for Large-Scale Kernel Machines.
    """
    at = np.arange(rows)[None]
    scale = np.exp(rng.uniform(np.log(4), np.log(2 * rows), (n, 1)))
    found = np.zeros((n, rows))
    n_waves = 4
    for _ in range(n_waves):
        frequency = np.abs(rng.normal(0, 1, (n, 1))) / scale
        found += np.cos(2 * np.pi * frequency * at + rng.uniform(0, 2 * np.pi, (n, 1)))
    return found * np.sqrt(2 / n_waves)


def grown(
    rng: Rng, shape: tuple[int, int], *, slope: Column, stays: Column, slope_moves: Column, level_moves: Column
) -> Rows:
    """A local level whose slope wanders around its mean (a damped local trend).

    Args:
        rng: of the batch.
        shape: series and rows.
        slope: mean change a row.
        stays: share of the slope's distance from its mean that is left after a row.
        slope_moves, level_moves: deviations of the slope's and the level's shocks.
    """
    n, rows = shape
    slope_shocks = rng.normal(0, 1, (rows, n)) * slope_moves[:, 0]
    level_shocks = rng.normal(0, 1, (rows, n)) * level_moves[:, 0]
    keep = stays[:, 0]
    # The slope begins where its wandering has no beginning.
    away = rng.normal(0, 1, n) * slope_moves[:, 0] / np.sqrt(np.maximum(1 - keep**2, 1 / rows))
    changes = np.empty((rows, n))
    for row in range(rows):
        away = keep * away + slope_shocks[row]
        changes[row] = away
    return ((changes + level_shocks).cumsum(axis=0) + np.arange(rows)[:, None] * slope[:, 0]).T
