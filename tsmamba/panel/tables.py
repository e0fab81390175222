"""Between tables of series and the panels that models read, and back."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import ReadOptions, SeriesFrame, read_series
from mamba_data_prep.series.words import is_time_name
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.panel import ID, TARGET, TIME, Panel, Series

MOST_USUAL = 60
"""Longest season that is forecast whole by default."""


def panel_of(frame: SeriesFrame) -> Panel:
    """A frame's series as arrays, with its covariates; series without any value are left out.

    Raises:
        UserError: no series has a value.
    """
    past, future = list(frame.past_covariates), list(frame.future_covariates)
    static = _static_numbers(frame.static)
    ahead = {} if frame.future is None else dict(tuple(frame.future.groupby(ID, sort=False)))
    series = []
    for name, rows in frame.frame.groupby(ID, sort=False):
        values = rows[TARGET].to_numpy(np.float64)
        if not np.isfinite(values).any():
            continue
        known = rows[future].to_numpy(np.float64)
        if future and name in ahead:
            known = np.concatenate([known, _after(frame, rows[TIME].iloc[-1], ahead[name], future)])
        facts = static.loc[name].to_numpy(np.float64) if static is not None else np.zeros(0)
        covariates = rows[past].to_numpy(np.float64)
        series.append(Series(str(name), rows[TIME].to_numpy(), values, covariates, known, facts))
    if not series:
        raise UserError("no series has a value", path=frame.report.path or None)
    names = tuple(map(str, static.columns)) if static is not None else ()
    return Panel(tuple(series), frame.frequency, past_names=tuple(past), future_names=tuple(future), static_names=names)


def frame_of(
    table: pd.DataFrame,
    options: ReadOptions = ReadOptions(),  # noqa: B008  (frozen)
    *,
    future: pd.DataFrame | None = None,
    static: pd.DataFrame | None = None,
) -> SeriesFrame:
    """A data frame by the rules by which files are read.

    Args:
        table: wide or long; times as a column or as the index.
        options: what is known of it.
        future: rows of covariates known for the times to forecast.
        static: one row a series.

    Raises:
        UserError: it cannot be understood without guessing.
    """
    zones = {str(part.dt.tz) for _, part in _with_index(table).items() if isinstance(part.dtype, pd.DatetimeTZDtype)}
    if len(zones) == 1 and options.zone is None:
        options = replace(options, zone=zones.pop())
    with tempfile.TemporaryDirectory() as folder:
        paths = [_stored(part, Path(folder) / f"{name}.parquet") for name, part in _named(table, future, static)]
        try:
            frame = read_series(paths[0] or "", options, future=paths[1], static=paths[2])
        except UserError as error:
            raise UserError(
                error.problem, path="the data frame", line=error.line, record=error.record, found=error.found,
                accepted=error.accepted, fix=error.fix,
            ) from None  # fmt: skip
    frame.report.path = "the data frame"
    return frame


def forecast_table(forecast: Forecast, frame: SeriesFrame) -> pd.DataFrame:
    """A forecast as a long table: `unique_id, ds, yhat` and a column for each quantile.

    Args:
        forecast: of the frame's series (those that have values).
        frame: tells the times, which stay instants in UTC here: see `with_zone` and `with_written_times`.
    """
    steps = forecast.point.shape[1]
    every = frame.future_times(steps)
    names, instants = np.asarray(every[ID]), np.asarray(every[TIME])
    answered = np.isin(names, forecast.ids)
    order = {name: place for place, name in enumerate(forecast.ids)}
    places = [order[str(name)] for name in names[answered][::steps]]
    columns: dict[str, Any] = {
        ID: names[answered],
        TIME: instants[answered],
        "yhat": forecast.point[places, :steps].reshape(-1),
    }
    for number, level in enumerate(forecast.levels):
        columns[f"q{level:g}"] = forecast.quantiles[places, :steps, number].reshape(-1)
    return pd.DataFrame(columns)


def with_zone(table: pd.DataFrame, zone: str | None) -> pd.DataFrame:
    """A forecast's table with times on the clock of the source's zone, as Python and Parquet have them.

    Args:
        table: from `forecast_table`.
        zone: of the source; None where its times have none.
    """
    if zone is None:
        return table
    return table.assign(**{TIME: table[TIME].dt.tz_localize("UTC").dt.tz_convert(zone)})


def with_written_times(table: pd.DataFrame, frame: SeriesFrame) -> pd.DataFrame:
    """A forecast's table with times as texts, as the source writes them.

    Args:
        table: from `forecast_table`.
        frame: tells how its source writes times.
    """
    return table.assign(**{TIME: frame.format_times(table[TIME].to_numpy())})


def default_horizon(frame: SeriesFrame, season: int) -> int:
    """A season where that is no more than 60 rows, else two of the calendar's shortest, else 12; short for few rows."""
    shortest = min(frame.frequency.seasonal_periods, default=0)
    usual = season if 1 < season <= MOST_USUAL else (2 * shortest if 1 < shortest <= MOST_USUAL else 12)
    longest = int(np.unique(frame.frame[ID].to_numpy(), return_counts=True)[1].max())
    return max(min(usual, longest // 4), 1)


def _named(*parts: pd.DataFrame | None) -> list[tuple[str, pd.DataFrame | None]]:
    return list(zip(("table", "future", "static"), parts, strict=True))


def _stored(part: pd.DataFrame | None, path: Path) -> Path | None:
    if part is None:
        return None
    part = _with_index(part)
    aware = [name for name in part.columns if isinstance(part[name].dtype, pd.DatetimeTZDtype)]
    part = part.assign(**{name: part[name].dt.tz_localize(None) for name in aware})  # the options tell the zone
    part.rename(columns=str).to_parquet(path, index=False)
    return path


def _with_index(part: pd.DataFrame) -> pd.DataFrame:
    """A table with its index as columns, without levels that it has as columns already or that only number its rows.

    Numbers without a name are what concatenating and filtering leave: they tell times only where no column does and
    none of them comes twice.
    """
    index = part.index
    numbers = index.nlevels == 1 and index.name is None and pd.api.types.is_numeric_dtype(index.dtype)
    told = any(is_time_name(str(n)) or pd.api.types.is_datetime64_any_dtype(part[n].dtype) for n in part.columns)
    if isinstance(index, pd.RangeIndex) or (numbers and (told or index.has_duplicates)):
        return part.reset_index(drop=True)
    held = [level for level, name in enumerate(index.names) if name is not None and name in part.columns]
    if held:
        part = part.reset_index(level=held, drop=True)
    return part if len(held) == index.nlevels else part.reset_index()


def _after(frame: SeriesFrame, end: pd.Timestamp, rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Covariates on the grid after a series' end, as far as they are known."""
    times = rows[TIME].to_numpy()
    steps = frame.frequency.count(times, end)
    later = steps >= 1
    if frame.frequency.unit in ("business", "open"):  # what is told of closed days and hours is no row of the series
        later &= frame.frequency.after(end, steps) == times
    table = np.full((int(steps[later].max(initial=0)), len(names)), np.nan)
    table[steps[later] - 1] = rows[names].to_numpy(np.float64)[later]
    return table


def _static_numbers(static: pd.DataFrame | None) -> pd.DataFrame | None:
    """Features as numbers: a column of words becomes one of 0 and 1 for each word."""
    if static is None:
        return None
    return pd.get_dummies(static, dtype=np.float64).astype(np.float64)


def without_values(frame: SeriesFrame) -> list[str]:
    """Names of the series that have no value at all, and therefore no forecast."""
    with_some = set(frame.frame.loc[frame.frame[TARGET].notna(), ID])
    return [name for name in frame.ids if name not in with_some]
