"""Series on regular grids, as arrays: what every model, baseline and backtest reads.

Shapes: `T` rows of a series, `E` rows known beyond its end, `P` past covariates, `F` covariates known ahead,
`S` static features, `C` calendar features, `H` horizon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.times.frequency import Frequency, to_wall

Times = np.ndarray
"""Either datetime64 in UTC or int64 row numbers, ascending."""

COUNTED = Frequency("index")
"""The frequency of rows that are only numbered."""

ID, TIME, TARGET = "unique_id", "ds", "y"


@dataclass(frozen=True)
class Series:
    """One series on a regular grid.

    Attributes:
        unique_id: its name.
        times: (T,) ascending, one grid step apart.
        values: (T,) in the data's own units, NaN where nothing was observed.
        past: (T, P) covariates known up to the last row, NaN where unknown.
        future: (T + E, F) covariates known ahead, NaN where unknown.
        static: (S,) features of the series.
    """

    unique_id: str
    times: Times
    values: Float64[np.ndarray, " T"]
    past: Float64[np.ndarray, "T P"]
    future: Float64[np.ndarray, "TE F"]
    static: Float64[np.ndarray, " S"]

    def __len__(self) -> int:
        return len(self.values)

    def before(self, steps_back: int) -> Series:
        """The series without its last `steps_back` values; covariates known ahead stay known."""
        end = max(len(self) - steps_back, 0)
        return replace(self, times=self.times[:end], values=self.values[:end], past=self.past[:end])


@dataclass(frozen=True)
class Panel:
    """Series that share a frequency and their covariates' names.

    Attributes:
        series: in the source's order.
        frequency: the step of their grids, and the zone on whose calendar it is counted.
        past_names, future_names, static_names: of the covariates, in their columns' order.
    """

    series: tuple[Series, ...]
    frequency: Frequency = COUNTED
    past_names: tuple[str, ...] = ()
    future_names: tuple[str, ...] = ()
    static_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.series)

    @property
    def ids(self) -> list[str]:
        """The series' names."""
        return [one.unique_id for one in self.series]

    @property
    def lengths(self) -> list[int]:
        """How many rows each series has."""
        return [len(one) for one in self.series]

    @property
    def aligned(self) -> bool:
        """Whether all series have the same times: then they are channels of one multivariate series."""
        first = self.series[0].times
        return all(np.array_equal(one.times, first) for one in self.series[1:])

    @property
    def season(self) -> int:
        """Rows of the shortest season that the frequency suggests (24 for hours); 1 where it suggests none."""
        return next(iter(self.frequency.seasonal_periods), 1)

    def before(self, steps_back: int) -> Panel:
        """The panel as it was `steps_back` rows earlier: later values are gone, covariates known ahead stay."""
        return replace(self, series=tuple(one.before(steps_back) for one in self.series))

    def select(self, ids: Sequence[str]) -> Panel:
        """The series with these names, in this order."""
        by_name = {one.unique_id: one for one in self.series}
        return replace(self, series=tuple(by_name[name] for name in ids))

    def check_covariates(self, fitted_on: Mapping[str, Sequence[str]]) -> None:
        """Refuses a panel whose covariates are others than those of a fit.

        Args:
            fitted_on: names by kind (past, future, static).

        Raises:
            UserError: they differ.
        """
        found = {"past": self.past_names, "future": self.future_names, "static": self.static_names}
        for kind, names in fitted_on.items():
            if tuple(names) != tuple(found[kind]):
                raise UserError(
                    f"the model was fitted with other {kind} covariates", found=", ".join(found[kind]) or "none",
                    accepted=", ".join(names) or "none", fix="give the files that the fit had (--future, --static)",
                )  # fmt: skip

    def known_ahead(self, horizon: int) -> int:
        """How many of the `horizon` rows beyond its end every series has some covariate of, wherever they lie."""
        later = [np.isfinite(one.future[len(one) : len(one) + horizon]).any(axis=-1) for one in self.series]
        return min((int(known.sum()) for known in later), default=horizon)

    def future_times(self, horizon: int) -> list[Times]:
        """The `horizon` times after each series' end."""
        return [self.frequency.extend(one.times[-1], horizon) for one in self.series]

    def calendar(self, number: int, horizon: int = 0) -> Float64[np.ndarray, "TH C"]:
        """Calendar features of a series' rows and of `horizon` rows beyond them (see `calendar_features`)."""
        times = self.series[number].times
        if horizon and len(times):
            times = np.concatenate([times, self.frequency.extend(times[-1], horizon)])
        return calendar_features(to_wall(times, self.frequency.zone))

    @classmethod
    def wide(
        cls,
        values: Float64[np.ndarray, "T M"],
        names: Sequence[str] | None = None,
        times: Times | None = None,
        frequency: Frequency = COUNTED,
    ) -> Panel:
        """Channels on a common grid, as the long-horizon benchmarks have them.

        Args:
            values: one column a channel, NaN where missing.
            names: of the channels; numbers by default.
            times: (T,); row numbers by default.
            frequency: of the rows.
        """
        rows, channels = values.shape
        times = np.arange(rows) if times is None else times
        names = [str(number) for number in range(channels)] if names is None else names
        series = (make_series(name, times, column) for name, column in zip(names, values.T, strict=True))
        return cls(tuple(series), frequency)


def make_series(unique_id: str, times: Times, values: np.ndarray) -> Series:
    """Makes a series without covariates."""
    none = np.zeros((len(values), 0))
    return Series(unique_id, times, np.asarray(values, np.float64), none, none, np.zeros(0))


def calendar_features(wall: Times) -> Float64[np.ndarray, "T C"]:
    """Time of day, day of week, day of month, day of year, each from -0.5 to 0.5, as long-horizon models take them.

    Args:
        wall: times on the clock on the wall. Integers have no calendar: their features have no columns.
    """
    if not np.issubdtype(wall.dtype, np.datetime64):
        return np.zeros((len(wall), 0))
    index: Any = pd.DatetimeIndex(wall)  # pandas 2 makes its parts at run time
    seconds = index.hour * 3600 + index.minute * 60 + index.second
    parts = (seconds / 82_800, index.day_of_week / 6, (index.day - 1) / 30, (index.day_of_year - 1) / 365)
    return np.stack([np.asarray(part, np.float64) - 0.5 for part in parts], axis=1)
