"""Reversible scaling of each series by what its training rows show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from mamba_data_prep.errors import UserError
from tsmamba.panel.panel import Panel, Series

_LEAST = 1e-8
"""A deviation below this share of the series' size is rounding: such a series is constant, and keeps its unit."""


@dataclass(frozen=True)
class Scale:
    """The centre and the unit of one series."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: np.ndarray) -> Scale:
        """Mean and population deviation of the observed values; (0, 1) where nothing was observed."""
        seen = values[np.isfinite(values)]
        if not len(seen):
            return cls(0.0, 1.0)
        mean, deviation = float(seen.mean()), float(seen.std())
        return cls(mean, deviation if deviation > _LEAST * max(abs(mean), _LEAST) else 1.0)


@dataclass(frozen=True)
class PanelScaler:
    """Scales of the series and of the covariates.

    Attributes:
        series: by the series' name.
        past, future, static: one a covariate, over all series.
    """

    series: Mapping[str, Scale]
    past: tuple[Scale, ...]
    future: tuple[Scale, ...]
    static: tuple[Scale, ...]

    @classmethod
    def fit(cls, panel: Panel, held_back: Sequence[int]) -> PanelScaler:
        """Reads the training rows only.

        Args:
            panel: the series.
            held_back: for each series, how many rows at its end are not for training; they are not looked at.
        """
        cut = [one.before(rows) for one, rows in zip(panel.series, held_back, strict=True)]
        return cls(
            {one.unique_id: Scale.of(one.values) for one in cut},
            _columns([one.past for one in cut]),
            _columns([one.future[: len(one)] for one in cut]),
            _columns([one.static[None] for one in cut]),
        )

    def scale(self, series: Series) -> Scale:
        """The series' own scale, from its history where it was not among those fitted on."""
        return self.series.get(series.unique_id) or Scale.of(series.values)

    def values(self, series: Series) -> Float64[np.ndarray, " T"]:
        """The series in its unit."""
        scale = self.scale(series)
        return (series.values - scale.mean) / scale.deviation

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        covariates = {name: [_pair(one) for one in getattr(self, name)] for name in ("past", "future", "static")}
        return {"series": {name: _pair(one) for name, one in self.series.items()}, **covariates}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PanelScaler:
        """The scaler that `to_dict` wrote.

        Raises:
            UserError: it is not one.
        """
        try:
            covariates = [tuple(Scale(*pair) for pair in values[name]) for name in ("past", "future", "static")]
            return cls({name: Scale(*pair) for name, pair in values["series"].items()}, *covariates)
        except (TypeError, KeyError, AttributeError):
            raise UserError("the model's scales cannot be read", fix="fit the model again") from None


def standardised(table: np.ndarray, scales: Sequence[Scale]) -> np.ndarray:
    """Columns in their units; what is unknown becomes the mean, 0."""
    if not scales:
        return np.zeros(table.shape)
    means = np.array([one.mean for one in scales])
    deviations = np.array([one.deviation for one in scales])
    return np.nan_to_num((table - means) / deviations)


def _columns(tables: Sequence[np.ndarray]) -> tuple[Scale, ...]:
    whole = np.concatenate(tables)
    return tuple(Scale.of(column) for column in whole.T)


def _pair(scale: Scale) -> list[float]:
    return [scale.mean, scale.deviation]
