"""A supervised head: which changes do harm is learnt from other exons, by rules, by a model's vectors, or by both.

What a model's vectors know of harm is the difference between a head that has them and one that has the rules alone:
the consequence, which base becomes which, the bases around, G and C, CpG. Exons are never parted: a change is judged by
a head that was fitted on other exons, its penalty chosen there too, by the same kind of parting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64, Integer

from genomamba.studies.brca1.labelled import Change

GAP: Final = 100
"""Bases without any change that part one exon from the next."""
FOLDS: Final = 13
"""Groups of exons that are left out in turn, at most: one each for Findlay's thirteen."""
_INNER: Final = 4
_PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def exons(changes: Sequence[Change]) -> Integer[np.ndarray, " M"]:
    """The number of the exon, or of another stretch without a gap, that each change lies in."""
    places = np.unique([one.position for one in changes])
    number = np.concatenate([[0], np.cumsum(np.diff(places) > GAP)])
    return number[np.searchsorted(places, [one.position for one in changes])]


def learnt(
    features: Float64[np.ndarray, "M F"], harmful: Float64[np.ndarray, " M"], groups: Integer[np.ndarray, " M"]
) -> Float64[np.ndarray, " M"]:
    """Log odds of harm of each change, by a logistic regression fitted on the changes of other groups.

    Args:
        features: of each change; standardised here, by the changes that are fitted on.
        harmful: 1 or 0.
        groups: exons.

    Returns:
        Not a number where the changes of other groups are all alike, or there is one group alone.
    """
    found = np.full(len(features), np.nan)
    for train, test in _parts(groups, FOLDS):
        if len(set(harmful[train])) == 2:
            penalty = _penalty(features[train], harmful[train], groups[train])
            found[test] = _fit(features[train], harmful[train], penalty).decision_function(features[test])
    return found


def _penalty(features: np.ndarray, harmful: np.ndarray, groups: np.ndarray) -> float:
    """The inverse penalty under which left-out groups are likeliest."""
    losses = dict.fromkeys(_PENALTIES, 0.0)
    for train, test in _parts(groups, _INNER):
        if len(set(harmful[train])) < 2:
            continue
        for penalty in losses:
            odds = _fit(features[train], harmful[train], penalty).decision_function(features[test])
            losses[penalty] += float(np.logaddexp(0, np.where(harmful[test] > 0, -odds, odds)).sum())
    return min(losses, key=losses.__getitem__)


def _parts(groups: np.ndarray, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import GroupKFold

    count = min(most, len(np.unique(groups)))
    return list(GroupKFold(count).split(groups, groups=groups)) if count > 1 else []


def _fit(features: np.ndarray, harmful: np.ndarray, penalty: float):  # noqa: ANN202  (scikit-learn's pipeline)
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=500)).fit(features, harmful)
