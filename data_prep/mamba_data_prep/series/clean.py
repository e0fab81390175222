"""Writing a `SeriesFrame` as a table that reads back without a single repair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.series.frame import SeriesFrame
from mamba_data_prep.series.times.format import TimeFormat
from mamba_data_prep.series.times.frequency import DAY, to_wall


def clean_table(series: SeriesFrame) -> pd.DataFrame:
    """Gives the series in the source's layout: time and id columns, targets side by side, covariates, ISO times.

    Times carry their offset where the source has a zone; where rows are only counted there is no time column, unless
    the source has one. Rows of known-future covariates follow with blank targets.
    """
    frame = series.frame
    targets = list(series.target_columns)
    covariates = [*series.past_covariates, *series.future_covariates]
    columns = _ids(series, frame["unique_id"], "column")
    first = frame.loc[frame["unique_id"].isin(_longest(series))].reset_index(drop=True)
    rows = _row_names(series, first)
    parts: dict[str, object] = {name: _ids(series, first["unique_id"], name) for name in series.id_columns}
    if series.time_column or series.frequency.unit != "index":
        parts[_time_name(series)] = _iso(series)(first["ds"])
    for target in targets:
        own = frame.loc[columns == target]
        parts[target] = own["y"].set_axis(_row_names(series, own)).reindex(rows).to_numpy()
    for name in covariates:
        parts[name] = first[name].to_numpy()
    table = pd.DataFrame(parts)
    return table if series.future is None else pd.concat([table, _beyond(series, targets[0])], ignore_index=True)


def _longest(series: SeriesFrame) -> list[str]:
    """Of the targets that stand side by side in the source, the one with most rows: others may have ended earlier."""
    sizes = series.frame.groupby("unique_id", sort=False).size()
    groups = series.keys.loc[sizes.index, list(series.id_columns)].agg(tuple, axis=1) if series.id_columns else None
    picked = sizes.groupby(np.zeros(len(sizes)) if groups is None else groups, sort=False).idxmax()
    return list(map(str, picked))


def _row_names(series: SeriesFrame, rows: pd.DataFrame) -> pd.MultiIndex:
    """What tells rows of the source's table apart: the values of its id columns, and the time."""
    ids = [_ids(series, rows["unique_id"], name) for name in series.id_columns]
    return pd.MultiIndex.from_arrays([*ids, rows["ds"].to_numpy()])


def _beyond(series: SeriesFrame, target: str) -> pd.DataFrame:
    future = series.future if series.future is not None else pd.DataFrame()
    rows = future.loc[_ids(series, future["unique_id"], "column") == target].reset_index(drop=True)
    ids = {name: _ids(series, rows["unique_id"], name) for name in series.id_columns}
    values = {name: rows[name].to_numpy() for name in series.future_covariates}
    return pd.DataFrame({**ids, _time_name(series): _iso(series)(rows["ds"]), **values})


def _ids(series: SeriesFrame, unique_ids: pd.Series | pd.DataFrame, name: str) -> np.ndarray:
    return series.keys[name].reindex(np.asarray(unique_ids)).to_numpy(dtype=object)


def _time_name(series: SeriesFrame) -> str:
    return series.time_column or "ds"


def _iso(series: SeriesFrame):  # noqa: ANN202  (a function of a column)
    """How times of this frequency are written: the date alone where every time is midnight."""
    ds = series.frame["ds"]
    if series.frequency.unit == "index":
        return lambda times: times.astype(str).to_numpy()
    wall = to_wall(ds.to_numpy().astype("datetime64[ns]"), series.zone).astype(np.int64)
    is_date = series.zone is None and bool((wall % DAY == 0).all()) and series.frequency.unit != "duration"
    fraction = "" if (wall % 1_000_000_000 == 0).all() else ".%f"
    zone = "" if series.zone is None else "%Z"
    pattern = TimeFormat("%Y-%m-%d" if is_date else f"%Y-%m-%d %H:%M:%S{fraction}{zone}")
    return lambda times: pattern.format(times.to_numpy().astype("datetime64[ns]"), series.zone)


def write_clean(series: SeriesFrame, path: str | Path) -> Path:
    """Writes `clean_table` as CSV in UTF-8: decimal points, blanks for missing values, numbers to the last digit."""
    table = clean_table(series)
    for name in table.columns:
        values = table[name]
        whole = values.dtype.kind == "f" and (values.isna() | ((values % 1 == 0) & (values.abs() < 2**53))).all()
        if whole and not np.signbit(values[values == 0]).any():
            table[name] = values.astype("Int64")
    with atomic_write(path) as stream:
        table.to_csv(stream, index=False, lineterminator="\n")
    return Path(path)
