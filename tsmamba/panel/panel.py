"""Series on regular grids, as arrays: what every model, baseline and backtest reads.

Shapes: `T` rows of a series, `E` rows known beyond its end, `P` past covariates, `F` covariates known ahead,
`S` static features, `C` calendar features, `H` horizon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float64

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.frame import SeriesFrame
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
        """Rows of each series."""
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
        """Rows beyond its end, at most `horizon`, of which every series has some covariate known ahead."""
        later = [np.isfinite(one.future[len(one) : len(one) + horizon]).any(axis=-1) for one in self.series]
        return min((int(np.argmin(np.append(known, False))) for known in later), default=horizon)

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

    @classmethod
    def from_series(cls, source: SeriesFrame) -> Panel:
        """The panel of a table that was read from a file.

        Raises:
            UserError: a covariate is no number.
        """
        return cls.from_frame(
            source.frame,
            source.frequency,
            past=source.past_covariates,
            future=source.future_covariates,
            future_rows=source.future,
            static=None if source.static is None else source.static.rename_axis(ID).reset_index(),
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        frequency: Frequency,
        *,
        past: Sequence[str] = (),
        future: Sequence[str] = (),
        future_rows: pd.DataFrame | None = None,
        static: pd.DataFrame | None = None,
    ) -> Panel:
        """A panel from a long table.

        Args:
            frame: columns `unique_id`, `ds`, `y` and those named in `past` and `future`; rows in any order. Times are
                datetimes in UTC or whole numbers. Rows missing from the grid become NaN.
            frequency: of the grid.
            past: columns known up to the last row.
            future: columns known ahead.
            future_rows: the rows beyond the end, with `unique_id`, `ds` and the columns named in `future`.
            static: one row a series, with `unique_id`; texts become one column a value.

        Raises:
            UserError: a column is missing, a time repeats, or times do not lie on the grid.
        """
        _check_columns(frame, [ID, TIME, TARGET, *past, *future], "the table")
        facts = _facts(static)
        ahead = _groups(future_rows, [ID, TIME, *future])
        series = []
        for name, rows in frame.groupby(ID, sort=False, observed=True):
            one = _on_grid(str(name), rows, frequency, list(past), list(future), ahead.get(str(name)))
            static_row = facts.reindex([name]).to_numpy(np.float64)[0]
            series.append(replace(one, static=static_row))
        if not series:
            raise UserError("there is no series", fix="give a table with at least one row")
        return cls(tuple(series), frequency, tuple(past), tuple(future), tuple(map(str, facts.columns)))


def make_series(unique_id: str, times: Times, values: np.ndarray) -> Series:
    """A series without covariates."""
    none = np.zeros((len(values), 0))
    return Series(unique_id, times, np.asarray(values, np.float64), none, none, np.zeros(0))


def calendar_features(wall: Times) -> Float64[np.ndarray, "T C"]:
    """Time of day, day of week, day of month, day of year, each from -0.5 to 0.5, as long-horizon models take them.

    Args:
        wall: times on the clock on the wall. Integers have no calendar: their features have no columns.
    """
    if not np.issubdtype(wall.dtype, np.datetime64):
        return np.zeros((len(wall), 0))
    index = pd.DatetimeIndex(wall)
    seconds = index.hour * 3600 + index.minute * 60 + index.second
    parts = (seconds / 82_800, index.day_of_week / 6, (index.day - 1) / 30, (index.day_of_year - 1) / 365)
    return np.stack([np.asarray(part, np.float64) - 0.5 for part in parts], axis=1)


def _check_columns(frame: pd.DataFrame, names: Sequence[str], what: str) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise UserError(
            f"{what} lacks the column {missing[0]}", found=", ".join(map(str, frame.columns)), accepted=", ".join(names)
        )


def _facts(static: pd.DataFrame | None) -> pd.DataFrame:
    if static is None:
        return pd.DataFrame()
    table = static.set_index(ID)
    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    return pd.get_dummies(table, columns=texts, prefix_sep="=", dtype=float)


def _groups(rows: pd.DataFrame | None, names: Sequence[str]) -> Mapping[str, pd.DataFrame]:
    if rows is None:
        return {}
    _check_columns(rows, names, "the table of covariates known ahead")
    return {str(name): part for name, part in rows.groupby(ID, sort=False, observed=True)}


def _on_grid(
    name: str,
    rows: pd.DataFrame,
    frequency: Frequency,
    past: list[str],
    future: list[str],
    ahead: pd.DataFrame | None,
) -> Series:
    rows = rows.sort_values(TIME, kind="stable")
    places = _places(name, rows[TIME].to_numpy(), frequency)
    length = int(places[-1]) + 1
    columns = [TARGET, *past, *future]
    table = np.full((length, len(columns)), np.nan)
    table[places] = _numbers(rows, columns, name)
    first = rows[TIME].iloc[0]
    known = table[:, 1 + len(past) :]
    if ahead is not None and future:
        later = frequency.count(ahead[TIME].to_numpy(), first)
        longest = max(length, int(later.max()) + 1)
        known = np.concatenate([known, np.full((longest - length, len(future)), np.nan)])
        beyond = later >= length
        known[later[beyond]] = _numbers(ahead, future, name)[beyond]
    grid = frequency.after(first, np.arange(length))
    return Series(name, grid, table[:, 0], table[:, 1 : 1 + len(past)], known, np.zeros(0))


def _numbers(rows: pd.DataFrame, columns: list[str], name: str) -> np.ndarray:
    try:
        return rows[columns].to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"a column is not made of numbers ({error})", record=name, found=", ".join(columns), accepted="numbers"
        ) from None


def _places(name: str, times: Times, frequency: Frequency) -> np.ndarray:
    """Each row's place on the grid that begins at the first of the ascending times."""
    places = frequency.count(times, times[0])
    same = np.flatnonzero(np.diff(places) == 0)
    if len(same):
        raise UserError("two rows fall on one step of a series", record=name, found=str(times[same[0] + 1]))
    return places
