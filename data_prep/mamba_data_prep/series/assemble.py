"""From a table with roles to `SeriesFrame`: names of series, one row a series and step, facts worth knowing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.arrow import pc
from mamba_data_prep.series.frame import SeriesFrame
from mamba_data_prep.series.grid import Grid, Rows, to_grid
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.roles import Roles
from mamba_data_prep.series.table import Table
from mamba_data_prep.series.times.column import TimeColumn, pinned
from mamba_data_prep.series.times.zones import to_instants

_SILENT = 3
"""Rows without a value at the end of a series that are worth a word."""


def assemble(table: Table, column: TimeColumn, roles: Roles, options: ReadOptions, report: IngestReport) -> SeriesFrame:
    """Puts the rows on their grids and every series below the other.

    Raises:
        UserError: see `to_instants` and `to_grid`; or a row names no series.
    """
    groups, keys = _groups(table, roles)
    times, zone = to_instants(table, column, groups, options.zone, report)
    if zone:
        report.detected["zone"] = zone
    names = [*roles.targets, *roles.past, *roles.future]
    values = np.column_stack([roles.values[name] for name in names])
    rows = Rows(groups, times, values, table.lines)
    options = replace(options, time=column.names)
    grid = to_grid(rows, list(keys.index), table, zone, options, report, index=column.format.is_index)
    grid, beyond = _split_future(grid, roles, keys)
    frame, keys = _frame(grid, keys, roles)
    frame = _to_own_ends(frame, roles, report)
    _facts(frame, roles, report)
    return SeriesFrame(
        frame,
        grid.frequency,
        roles.layout,
        column.format,
        zone=zone,
        time_column=column.names[0] if column.names else "",
        id_columns=roles.ids,
        target_columns=roles.targets,
        keys=keys,
        past_covariates=roles.past,
        future_covariates=roles.future,
        static=_static(table, groups, keys, roles),
        future=None if beyond is None else _future(beyond, keys, roles),
        options=_resolved(column, roles, zone, options),
        report=report,
    )


def _groups(table: Table, roles: Roles) -> tuple[np.ndarray, pd.DataFrame]:
    """The number of each row's series, by first appearance, and the series' values of the id columns."""
    if not roles.ids:
        return np.zeros(len(table), dtype=np.int64), pd.DataFrame(index=pd.Index([""], dtype=object))
    for name in roles.ids:
        blank = np.flatnonzero(pc.equal(table.text(name), "").to_numpy(zero_copy_only=False))
        if len(blank):
            line = int(table.lines[blank[0]])
            fix = "write the series' name there, or delete the line"
            raise UserError(f"there is no name of a series in column {name!r}", path=table.path, line=line, fix=fix)
    texts = pd.DataFrame({name: table.text(name).to_pandas().astype(object) for name in roles.ids})
    codes = texts.groupby(list(roles.ids), sort=False).ngroup().to_numpy(dtype=np.int64)
    first = np.unique(codes, return_index=True)[1]
    keys = texts.iloc[first].reset_index(drop=True)
    keys.index = pd.Index(["/".join(map(str, values)) for values in keys.to_numpy()], dtype=object)
    return codes, keys


def _split_future(grid: Grid, roles: Roles, keys: pd.DataFrame) -> tuple[Grid, Grid | None]:
    """Rows at a series' end that have known-future covariates but no target are the future, not missing values."""
    if not roles.future:
        return grid, None
    targets, future = len(roles.targets), len(roles.future)
    observed = (~np.isnan(grid.values[:, :targets])).any(axis=1)
    last = np.full(len(keys), -1)
    np.maximum.at(last, grid.series[observed], np.flatnonzero(observed))
    beyond = np.arange(len(grid.values)) > last[grid.series]
    beyond &= ~np.isnan(grid.values[:, -future:]).all(axis=1)
    if not beyond.any():
        return grid, None

    def part(rows: np.ndarray) -> Grid:
        return Grid(grid.series[rows], grid.times[rows], grid.values[rows], grid.frequency)

    return part(~beyond), part(beyond)


def _frame(grid: Grid, keys: pd.DataFrame, roles: Roles) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The long table: groups in order, in each group its targets in order."""
    targets = len(roles.targets)
    names, table = _series_names(keys, roles)
    starts = np.unique(grid.series, return_index=True)[1]
    lengths = np.diff(np.append(starts, [len(grid.series)]))
    if targets == 1:
        order, codes = np.arange(len(grid.series)), grid.series
    else:
        order = np.concatenate([np.tile(np.arange(s, s + n), targets) for s, n in zip(starts, lengths, strict=True)])
        codes = np.repeat(
            np.repeat(grid.series[starts], targets) * targets + np.tile(np.arange(targets), len(starts)),
            np.repeat(lengths, targets),
        )
    ids = pd.Series(pd.Categorical.from_codes(codes, categories=names)).astype(str)
    y = grid.values[order, codes % targets if targets > 1 else 0]
    columns = {"unique_id": ids, "ds": grid.times[order], "y": y}
    for place, name in enumerate((*roles.past, *roles.future)):
        columns[name] = grid.values[order, targets + place]
    return pd.DataFrame(columns), table


def _series_names(keys: pd.DataFrame, roles: Roles) -> tuple[list[str], pd.DataFrame]:
    names, rows = [], []
    for key, values in zip(keys.index, keys.to_numpy(), strict=True):
        for target in roles.targets:
            if not roles.ids:
                names.append(target)
            else:
                names.append(key if len(roles.targets) == 1 else f"{key}/{target}")
            rows.append([*values, target])
    table = pd.DataFrame(rows, columns=pd.Index([*keys.columns, "column"]), index=pd.Index(names, name="unique_id"))
    return names, table


def _future(grid: Grid, keys: pd.DataFrame, roles: Roles) -> pd.DataFrame:
    targets = len(roles.targets)
    numbers = np.repeat(grid.series * targets, targets) + np.tile(np.arange(targets), len(grid.series))
    rows = np.repeat(np.arange(len(grid.series)), targets)
    order = np.argsort(numbers, kind="stable")
    columns = {"unique_id": np.asarray(keys.index)[numbers[order]], "ds": grid.times[rows[order]]}
    first = targets + len(roles.past)
    for place, name in enumerate(roles.future):
        columns[name] = grid.values[rows[order], first + place]
    return pd.DataFrame(columns).astype({"unique_id": str})


def _static(table: Table, groups: np.ndarray, keys: pd.DataFrame, roles: Roles) -> pd.DataFrame | None:
    if not roles.static:
        return None
    frame = pd.DataFrame({name: table.text(name).to_pandas() for name in roles.static})
    changing = frame.groupby(groups).nunique().max()
    for name, kinds in changing.items():
        if kinds > 1:
            fix = "give it as a past or future covariate"
            raise UserError("a static covariate changes within a series", path=table.path, line=1, found=name, fix=fix)
    first = numbers_where_possible(frame.groupby(groups).first())
    repeated = first.loc[np.repeat(first.index, len(roles.targets))]
    repeated.index = keys.index
    return repeated


def numbers_where_possible(features: pd.DataFrame) -> pd.DataFrame:
    """Gives columns as float64 where every cell is a number or blank, as they are elsewhere."""
    columns = {}
    for name, cells in features.items():
        numbers = pd.Series(pd.to_numeric(cells, errors="coerce"), index=features.index, dtype=float)
        columns[name] = numbers if (numbers.notna() | (cells == "")).all() else cells
    return pd.DataFrame(columns, index=features.index)


def _facts(frame: pd.DataFrame, roles: Roles, report: IngestReport) -> None:
    """What changes nothing but matters to a forecast."""
    y = frame["y"].to_numpy()
    grouped = frame.groupby("unique_id", sort=False, observed=True)["y"]
    summary = grouped.agg(["count", "min", "max", "size"])
    report.detected |= {"layout": roles.layout, "series": len(summary), "rows": len(frame)}
    missing = int(np.isnan(y).sum())
    if missing:
        report.note(
            "missing_values", f"{missing:,} of {len(y):,} values are missing; models leave them out", count=missing
        )
    kinds = {
        "no_values": (summary["count"] == 0, "series without any value"),
        "constant_series": (
            (summary["min"] == summary["max"]) & (summary["count"] > 1),
            "series with one value throughout",
        ),
        "short_series": ((summary["count"] > 0) & (summary["count"] < 10), "series with fewer than ten values"),
    }
    for rule, (mask, what) in kinds.items():
        if mask.any():
            shown = ", ".join(map(str, np.asarray(summary.index)[mask.to_numpy()][:5]))
            report.note(rule, f"{what}: {shown}", count=int(mask.sum()))
    if missing == len(y):
        raise UserError("every value is missing", path=report.path, fix="check the column to forecast (--target)")
    for code in (-999.0, -9999.0, -99999.0, -99.0):
        count = int((y == code).sum())
        if count > 1 and np.nanmin(y) == code:
            what = f"{code:g} may stand for 'no value'; if so, say --read missing={code:g}"
            report.note("suspicious_value", what, count=count)


def _to_own_ends(frame: pd.DataFrame, roles: Roles, report: IngestReport) -> pd.DataFrame:
    """The frame without the last rows of a wide table's series that ended earlier than others, as long tables are.

    Series that have values, but none in many of their last rows, are told of in any case. Where covariates are known
    ahead the rows stay, for what is known of them.
    """
    names, y = np.asarray(frame["unique_id"], dtype=object), np.asarray(frame["y"], dtype=np.float64)
    first = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    rows = np.diff(np.append(first, [len(names)]))
    seen = np.where(np.isnan(y), -1, np.arange(len(y)))
    silent = first + rows - 1 - np.maximum.reduceat(seen, first)
    ended = np.flatnonzero((silent >= _SILENT) & (silent >= rows / 20) & (silent < rows))
    if not len(ended):
        return frame
    cut = roles.layout == "wide" and not roles.future
    shown = ", ".join(f"{names[first[one]]} (the last {silent[one]:,} rows)" for one in ended[:5])
    what = f"series without values at their end: {shown}"
    report.note("ended_series", what + ("; each goes on from its own last value" if cut else ""), count=len(ended))
    if not cut:
        return frame
    kept = np.ones(len(y), dtype=bool)
    for one in ended:
        kept[first[one] + rows[one] - silent[one] : first[one] + rows[one]] = False
    return frame.loc[kept].reset_index(drop=True)


def _resolved(column: TimeColumn, roles: Roles, zone: str | None, options: ReadOptions) -> ReadOptions:
    named = options.zone if column.times.offset is None else zone if zone and "/" in zone else options.zone
    return replace(
        pinned(options, column),
        decimal=roles.style.decimal,
        thousands=roles.style.thousands,
        zone=named,
        layout=roles.layout,
        id=roles.ids,
        target=roles.targets,
        past_covariates=roles.past,
        future_covariates=roles.future,
    )
