"""From a file to `SeriesFrame`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.frame import SeriesFrame
from mamba_data_prep.series.frequency import DAY, Frequency
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.timeformat import TimeFormat


def read_series(
    path: str | Path,
    options: ReadOptions = ReadOptions(),  # noqa: B008  (frozen)
    *,
    future: str | Path | None = None,
    static: str | Path | None = None,
) -> SeriesFrame:
    """Read a table of time series.

    Args:
        path: CSV (plain or gzip) or Parquet.
        options: what is known of the file; the rest is detected.
        future: a file with covariates known for the times to forecast.
        static: a file with one row a series.

    Raises:
        UserError: the file cannot be read without guessing; the message says what to tell.
    """
    if not Path(path).is_file():
        raise UserError("there is no such file", path=path, fix="check the spelling of the path")
    table = pd.read_parquet(path) if str(path).endswith(".parquet") else pd.read_csv(path)
    names = [*options.time, *(c for c in table.columns if str(c).casefold() in _TIMES)]
    report = IngestReport(str(path))
    if names:
        ds = pd.to_datetime(table[names[0]], utc=True, format="mixed")
        table[names[0]] = ds.dt.tz_localize(None).astype("datetime64[ns]")
    ids = [c for c in table.columns if str(c) in (*options.id, "unique_id", "item_id")][:1]
    time = names[0] if names else "ds"
    if not names:
        table["ds"] = np.arange(len(table), dtype=np.int64)
    long = table if ids else table.melt(time, [c for c in table.select_dtypes("number") if c != time], "unique_id", "y")
    target = next((c for c in (*options.target, "y", "target") if c in long), None) or long.columns[-1]
    long = long.rename(columns={time: "ds", target: "y", **({ids[0]: "unique_id"} if ids else {})})
    covariates = tuple(str(c) for c in long.select_dtypes("number") if c not in ("y", "ds"))
    frame = long[["unique_id", "ds", "y", *covariates]].astype({"unique_id": str, "y": float})
    frequency = _frequency(frame)
    pieces = []
    for name, group in frame.groupby("unique_id", sort=False):
        group = group.drop_duplicates("ds").sort_values("ds")
        steps = frequency.count(group["ds"].to_numpy(), group["ds"].iloc[0])
        grid = group.set_index(steps).loc[lambda g: ~g.index.duplicated()].reindex(range(int(steps[-1]) + 1))
        grid["ds"], grid["unique_id"] = frequency.after(group["ds"].iloc[0], np.arange(len(grid))), name
        pieces.append(grid)
    known = pd.read_csv(future, parse_dates=["ds"]) if future else None
    both = tuple(c for c in covariates if known is not None and c in known)
    return SeriesFrame(
        pd.concat(pieces, ignore_index=True),
        frequency,
        "long" if ids else ("single" if len(pieces) == 1 else "wide"),
        TimeFormat(),
        time_column=str(names[0]) if names else "",
        id_columns=tuple(ids),
        target_columns=(str(target),),
        past_covariates=tuple(c for c in covariates if c not in both),
        future_covariates=both,
        static=pd.read_csv(static).set_index("unique_id") if static else None,
        future=known,
        report=report,
    )


_TIMES = ("ds", "date", "time", "timestamp", "datetime", "date_time", "time_hour", "month", "week")


def _frequency(frame: pd.DataFrame) -> Frequency:
    if frame["ds"].dtype.kind == "i":
        return Frequency("index")
    gaps = frame.sort_values("ds").groupby("unique_id")["ds"].diff().dropna()
    gap = gaps[gaps > pd.Timedelta(0)].mode().iloc[0].value
    first = frame["ds"].iloc[0]
    if gap in (28 * DAY, 29 * DAY, 30 * DAY, 31 * DAY):
        return Frequency("month", 1, day=first.day)
    if gap in (365 * DAY, 366 * DAY):
        return Frequency("month", 12, day=first.day, anchor=first.month)
    if gap % DAY == 0:
        return Frequency("day", gap // DAY, anchor=first.weekday())
    return Frequency("duration", gap)
