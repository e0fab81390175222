"""What covariates known ahead add to a series, linearly: taken off before a method forecasts, put back after it.

`y_t = beta' c_t + u_t`, where `u` is what the method forecasts. `beta` is read from differences over a season, in which
level, trend and season of the series hardly show.

Source: Hyndman, Athanasopoulos 2021, Forecasting: Principles and Practice, chapter 10 (dynamic regression models).

Shapes: `T` rows of a series, `E` rows known beyond its end, `F` covariates known ahead, `H` horizon.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from tsmamba.panel.panel import Panel, Series
from tsmamba.panel.scaling import PanelScaler, standardised

STRENGTHS = (1e-3, 1e-2, 0.1, 1.0, 10.0, np.inf)
"""Penalties on the common coefficients, by the mean square of the covariates' differences; infinite: no effect."""

OWN_ROWS = (10.0, 100.0, 1000.0, np.inf)
"""Penalties on a series' differences from the common coefficients, in rows; infinite: it has none of its own."""

_CHOOSING = 5
"""One part in so many of each series' rows, its latest, chooses the penalties."""


@dataclass(frozen=True)
class Products:
    """Sums of products over rows of differences: `inner` (F, F), `outer` (F,) with the series', `square` of those."""

    inner: Float64[np.ndarray, "F F"]
    outer: Float64[np.ndarray, " F"]
    square: float
    rows: int

    @classmethod
    def of(cls, z: Float64[np.ndarray, "n F"], y: Float64[np.ndarray, " n"]) -> Products:
        """Computes the sums of products over some rows."""
        return cls(z.T @ z, z.T @ y, float(y @ y), len(y))

    def __add__(self, other: Products) -> Products:
        """Adds the sums of two parts of the rows."""
        return Products(
            self.inner + other.inner, self.outer + other.outer, self.square + other.square, self.rows + other.rows
        )

    def error(self, beta: Float64[np.ndarray, " F"]) -> float:
        """The sum of squares that the coefficients leave."""
        return float(beta @ (self.inner @ beta - 2 * self.outer)) + self.square

    def solve(self, penalty: float, towards: Float64[np.ndarray, " F"]) -> Float64[np.ndarray, " F"]:
        """`argmin_b |y - z b|^2 + penalty |b - towards|^2`; an infinite penalty gives `towards`."""
        if not np.isfinite(penalty) or self.rows == 0:
            return towards
        unit = max(float(np.trace(self.inner)) / (len(towards) * self.rows), 1e-12)
        penalty = penalty * unit + 1e-9 * unit * self.rows
        return np.linalg.solve(self.inner + penalty * np.eye(len(towards)), self.outer + penalty * towards)


@dataclass(frozen=True)
class Effects:
    """Linear effects of covariates known ahead.

    Attributes:
        names: of the covariates.
        scaler: of series and covariates; coefficients are in their units.
        common: (F,) coefficients of a series that was not fitted on.
        own: coefficients by the series' name.
    """

    names: tuple[str, ...]
    scaler: PanelScaler
    common: Float64[np.ndarray, " F"]
    own: Mapping[str, Float64[np.ndarray, " F"]]

    @classmethod
    def fit(cls, panel: Panel, season: int) -> Effects:
        """Reads the effects from differences over `season` rows; the latest fifth of the rows chooses the penalties."""
        scaler = PanelScaler.fit(panel, [0] * len(panel))
        differences = [_differences(one, scaler, season) for one in panel.series]
        cuts = [len(y) - len(y) // _CHOOSING for _, y in differences]
        early = [Products.of(z[:cut], y[:cut]) for (z, y), cut in zip(differences, cuts, strict=True)]
        late = [Products.of(z[cut:], y[cut:]) for (z, y), cut in zip(differences, cuts, strict=True)]

        def left(penalties: tuple[float, float]) -> float:
            return sum(part.error(beta) for part, beta in zip(late, _solved(early, *penalties)[1], strict=True))

        penalties = min(itertools.product(STRENGTHS[::-1], OWN_ROWS[::-1]), key=left)
        common, own = _solved([one + other for one, other in zip(early, late, strict=True)], *penalties)
        return cls(panel.future_names, scaler, common, dict(zip(panel.ids, own, strict=True)))

    def without(self, panel: Panel) -> Panel:
        """The panel with the effects taken off its values.

        Raises:
            UserError: the panel has other covariates than the one fitted on.
        """
        panel.check_covariates({"future": self.names})
        series = (replace(one, values=one.values - self._of(one)[: len(one)]) for one in panel.series)
        return replace(panel, series=tuple(series))

    def ahead(self, panel: Panel, horizon: int) -> Float64[np.ndarray, "S H"]:
        """The effects in the rows after each series' end; where nothing is known of a row, those of the mean."""
        found = np.zeros((len(panel), horizon))
        for place, one in enumerate(panel.series):
            later = self._of(one)[len(one) : len(one) + horizon]
            found[place, : len(later)] = later
        return found

    def _of(self, one: Series) -> Float64[np.ndarray, " TE"]:
        beta = self.own.get(one.unique_id, self.common)
        return standardised(one.future, self.scaler.future) @ beta * self.scaler.scale(one).deviation

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        own = {name: beta.tolist() for name, beta in self.own.items()}
        return {"names": list(self.names), "scaler": self.scaler.to_dict(), "common": self.common.tolist(), "own": own}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Effects:
        """The effects that `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: they are none.
        """
        own = {str(name): np.array(beta, np.float64) for name, beta in values["own"].items()}
        return cls(
            tuple(values["names"]), PanelScaler.from_dict(values["scaler"]), np.array(values["common"], np.float64), own
        )


def _differences(one: Series, scaler: PanelScaler, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences of covariates (n, F) and values (n,) where both rows are known, in scaled units."""
    covariates, values = one.future[: len(one)], scaler.values(one)
    known = np.isfinite(values) & np.isfinite(covariates).all(axis=1)
    both = known[lag:] & known[:-lag]
    z = standardised(covariates, scaler.future)
    return (z[lag:] - z[:-lag])[both], (values[lag:] - values[:-lag])[both]


def _solved(parts: Sequence[Products], strength: float, own_rows: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Common coefficients, and each series' own."""
    whole = sum(parts[1:], parts[0])
    common = whole.solve(strength * whole.rows, np.zeros(len(whole.outer)))
    return common, [part.solve(own_rows, common) for part in parts]
