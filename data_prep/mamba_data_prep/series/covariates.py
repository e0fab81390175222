"""Further files: covariates known for the times to forecast, and features of series that do not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.assemble import numbers_where_possible
from mamba_data_prep.series.frame import SeriesFrame
from mamba_data_prep.series.numbers import accept_numbers, find_style, read_numbers
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.table import Table
from mamba_data_prep.series.times.column import find_times
from mamba_data_prep.series.times.zones import to_instants
from mamba_data_prep.series.words import IDS, STRONG_IDS, plain


def with_future(series: SeriesFrame, table: Table, delimiter: str, options: ReadOptions) -> SeriesFrame:
    """Adds the rows of a file of known-future covariates, for the times after each series' end.

    Raises:
        UserError: it has no column in common with the series' covariates, or lacks the series' names.
    """
    names = [name for name in series.future_covariates if name in table.columns]
    own = replace(
        ReadOptions(), dayfirst=series.options.dayfirst, ignore=tuple(n for n in options.ignore if n in table.columns)
    )
    if series.time_column in table.columns:
        own = replace(own, time=tuple(n for n in series.options.time if n in table.columns))
    report = IngestReport(str(table.path))
    table, column = find_times(table, own, report)
    groups, ids = _ids(table, series)
    times, _ = to_instants(table, column, groups, series.zone if column.times.offset is None else None, report)
    style = find_style(table, names, delimiter, options)
    values = {name: accept_numbers(table, name, read_numbers(table.text(name), style), report) for name in names}
    ds = times if column.format.is_index else times.astype("datetime64[ns]")
    frame = pd.DataFrame({"ds": ds, **values})
    parts = []
    last = series.frame.groupby("unique_id", sort=False)["ds"].last()
    for unique_id, end in last.items():
        own_rows = frame if ids is None else frame.loc[groups == ids.get(_group(series, str(unique_id)), -1)]
        rows = own_rows.loc[own_rows["ds"] > end].drop_duplicates(subset="ds").sort_values("ds")
        parts.append(rows.assign(unique_id=str(unique_id)))
    future = pd.concat(parts, ignore_index=True)[["unique_id", "ds", *names]]
    if future.empty:
        raise UserError(
            "no row of this file lies after the end of the series",
            path=table.path,
            line=int(table.lines[0]),
            found=str(frame["ds"].max()),
            accepted=f"times after {last.max()}",
            fix="give the covariates of the times to forecast",
        )
    series.report.findings.extend(report.findings)
    return replace(series, future=future.astype({"unique_id": str}))


def _group(series: SeriesFrame, unique_id: str) -> str:
    """The name of a series without its target column."""
    if not series.id_columns:
        return unique_id
    return "/".join(str(value) for value in series.keys.loc[unique_id, list(series.id_columns)])


def _ids(table: Table, series: SeriesFrame) -> tuple[np.ndarray, dict[str, int] | None]:
    """The number of each row's series in a further file, and the names' numbers; None if rows are for all."""
    columns = [name for name in series.id_columns if name in table.columns]
    if not columns:
        columns = [name for name in table.columns if plain(name) in STRONG_IDS][:1]
    if not columns:
        if len(series.ids) > 1 and series.id_columns:
            accepted = ", ".join(series.id_columns)
            raise UserError(
                "no column of this file names the series", path=table.path, line=1, accepted=accepted, fix="add it"
            )
        return np.zeros(len(table), dtype=np.int64), None
    texts = pd.DataFrame({name: table.text(name).to_pandas().astype(object) for name in columns})
    names = texts.agg("/".join, axis=1)
    codes, kinds = pd.factorize(names)
    return codes.astype(np.int64), {str(name): number for number, name in enumerate(kinds)}


def with_static(series: SeriesFrame, table: Table) -> SeriesFrame:
    """Adds features that do not change, one row a series; numbers as float64, words as they are.

    Raises:
        UserError: the file does not name the series, names one twice, or knows none of them.
    """
    columns = [name for name in series.id_columns if name in table.columns]
    if not columns:
        columns = [n for n in table.columns if plain(n) in (*STRONG_IDS, *IDS)][:1] or list(table.columns)[:1]
    texts = pd.DataFrame({name: table.text(name).to_pandas().astype(object) for name in table.columns})
    names = texts[columns].agg("/".join, axis=1)
    if names.duplicated().any():
        row = int(np.flatnonzero(names.duplicated())[0])
        raise UserError(
            "this series has a row already",
            path=table.path,
            line=int(table.lines[row]),
            found=names[row],
            fix="delete one of its rows",
        )
    features = numbers_where_possible(texts.drop(columns=columns).set_index(pd.Index(names)))
    groups = [_group(series, unique_id) for unique_id in series.ids]
    known = [group for group in groups if group in features.index]
    if not known:
        raise UserError(
            "this row names none of the series",
            path=Path(table.path),
            line=1,
            found=", ".join(names[:3]),
            accepted=", ".join(groups[:3]),
        )
    if len(known) < len(groups):
        absent = sorted(set(groups) - set(known))
        series.report.note(
            "no_static_features", f"series without static features: {', '.join(absent[:5])}", count=len(absent)
        )
    static = features.reindex(groups)
    static.index = pd.Index(series.ids, name="unique_id")
    return replace(series, static=static)
