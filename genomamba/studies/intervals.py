"""How sure one may be of a figure: over seeds, over test examples, over blocks of a genome."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959963984540054
_RESAMPLES = 2000


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of a figure over seeds, by Student's t; a single seed has no interval (not a number)."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def of_share(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share of independent examples (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = right / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return middle - half, middle + half


def over_groups(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean whose examples come in groups that are alike, by resampling groups.

    Args:
        values: of each example, (M,).
        groups: the group of each, int (M,).
        seed: of the resampling.
    """
    _, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (_RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
