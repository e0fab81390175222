"""Which columns name series, which hold values, and which are covariates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.numbers import MOSTLY, Reading, Style, accept_numbers, find_style, read_numbers
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.table import Table
from mamba_data_prep.series.times.column import TimeColumn
from mamba_data_prep.series.words import CALENDAR, IDS, STRONG_IDS, TARGETS, plain

Layout = Literal["wide", "long", "single"]


@dataclass(frozen=True)
class Roles:
    """What each column is for.

    Attributes:
        layout: how the table holds its series.
        ids: the columns that name a series.
        targets: the columns to forecast.
        past: covariates known up to the present.
        future: covariates known beyond it.
        static: columns with one value a series.
        values: the numbers of targets and covariates, (n,) each.
        style: the marks in the file's numbers.
    """

    layout: Layout
    ids: tuple[str, ...]
    targets: tuple[str, ...]
    past: tuple[str, ...]
    future: tuple[str, ...]
    static: tuple[str, ...]
    values: dict[str, np.ndarray]
    style: Style


def find_roles(table: Table, column: TimeColumn, delimiter: str, options: ReadOptions, report: IngestReport) -> Roles:
    """Assigns every column.

    Raises:
        UserError: no column holds numbers, a named column is absent, or a cell among numbers is none.
    """
    _check_names(table, options)
    free = [name for name in table.columns if name not in (*column.names, *options.ignore)]
    ids = _ids(table, column, free, options)
    free = [name for name in free if name not in (*ids, *options.static_covariates)]
    style = find_style(table, free, delimiter, options)
    named = {*options.target, *options.past_covariates, *options.future_covariates}
    readings = {name: read_numbers(_cells(table, name), style) for name in free}
    free = _without_unused(table, free, readings, column, named, report)
    targets, past, future = _parts(free, column, ids, options)
    if not targets:
        raise _nothing_to_forecast(table, free)
    unused = [name for name in free if name not in (*targets, *past, *future)]
    if unused:
        what = "columns that are not forecast and not used; name them as covariates to use them"
        report.note("columns_not_used", what, count=len(unused), examples=[(name, "") for name in unused])
    values = {name: accept_numbers(table, name, readings[name], report) for name in (*targets, *past, *future)}
    layout: Layout = "long" if ids else "wide" if len(targets) > 1 else "single"
    return Roles(options.layout or layout, ids, targets, past, future, options.static_covariates, values, style)  # pyright: ignore[reportArgumentType]


def _cells(table: Table, name: str) -> pa.Array:
    return table.text(name) if pa.types.is_string(table.columns[name].type) else table.columns[name]


def _check_names(table: Table, options: ReadOptions) -> None:
    groups = (options.id, options.target, options.past_covariates, options.future_covariates)
    for name in (*(name for group in groups for name in group), *options.static_covariates, *options.ignore):
        if name not in table.columns:
            accepted = ", ".join(table.columns)
            raise UserError(
                "there is no column of this name",
                path=table.path,
                line=1,
                found=name,
                accepted=accepted,
                fix="check the spelling",
            )


def _ids(table: Table, column: TimeColumn, free: list[str], options: ReadOptions) -> tuple[str, ...]:
    if options.id or options.layout in ("wide", "single"):
        return options.id
    taken = {*options.target, *options.past_covariates, *options.future_covariates, *options.static_covariates}
    free = [name for name in free if name not in taken]
    strong = [name for name in free if plain(name) in STRONG_IDS]
    if strong:
        return (strong[0],)
    offset = column.times.offset
    frame = pd.DataFrame({"": column.times.values if offset is None else column.times.values - offset * 1_000_000_000})
    repeated = int(frame.duplicated().sum())
    if not column.names:
        return ()
    candidates = _id_candidates(table, free)
    if not repeated:
        return _one_after_another(table, frame[""].to_numpy(), candidates, free)
    for name in candidates:
        frame[name] = pd.factorize(table.text(name).to_pandas())[0]
    least = 0.02 * len(table)
    for size in (1, 2, 3):
        for chosen in combinations(candidates, size):
            left = int(frame.duplicated(["", *chosen]).sum())
            is_named = all(plain(name) in IDS for name in chosen)
            if left <= least and (is_named or (left == 0 and repeated >= 0.1 * len(table))) and left < 0.5 * repeated:
                return chosen
    return ()


def _one_after_another(table: Table, times: np.ndarray, candidates: list[str], free: list[str]) -> tuple[str, ...]:
    """The columns named like ids whose values follow each other in time: series that never overlap are no one series.

    Each value must hold for two rows at least and never come back, or else it is a state that a series passes through.
    """
    order = np.argsort(times, kind="stable")
    chosen: tuple[str, ...] = ()
    for name in (name for name in candidates if plain(name) in IDS):
        codes = pd.factorize(table.text(name).to_pandas())[0][order]
        kinds = int(codes.max()) + 1
        in_blocks = int(np.count_nonzero(np.diff(codes))) == kinds - 1 and int(np.bincount(codes).min()) > 1
        if kinds > 1 and in_blocks and len(chosen) + 1 < len(free):
            chosen = (*chosen, name)
    return chosen


def _id_candidates(table: Table, free: list[str]) -> list[str]:
    """Columns that may name series: those with such a name, then those of words, each with few values."""
    found: list[tuple[int, int, str]] = []
    for place, name in enumerate(free):
        cells = table.text(name)
        kinds = len(cells.unique())
        if kinds > max(2, len(table) // 2):
            continue
        known = plain(name) in IDS
        whole = np.asarray(pd.to_numeric(pd.Series(cells[:1000].to_pylist()), errors="coerce"), dtype=float)
        numeric = bool(np.mean(~np.isnan(whole)) > 0.5)
        if known or not numeric:
            found.append((0 if known else 1, place, name))
    return [name for _, _, name in sorted(found)][:8]


def _without_unused(
    table: Table,
    free: list[str],
    readings: dict[str, Reading],
    column: TimeColumn,
    named: set[str],
    report: IngestReport,
) -> list[str]:
    """Leave out columns without numbers, numbers of rows, and parts of the date that the time column holds already."""
    kept, told = [], {"text_columns": [], "empty_columns": [], "row_numbers": [], "calendar_columns": []}
    for name in free:
        reading = readings[name]
        if name in named:
            kept.append(name)
        elif reading.filled == 0:
            told["empty_columns"].append(name)
        elif reading.share < 0.5:
            told["text_columns"].append(name)
        elif _counts_rows(name, reading):
            told["row_numbers"].append(name)
        elif column.names and plain(name) in CALENDAR:
            told["calendar_columns"].append(name)
        else:
            kept.append(name)
    why = {
        "text_columns": "columns of words are not used",
        "empty_columns": "columns without any value are not used",
        "row_numbers": "columns that only number the rows are not used",
        "calendar_columns": "parts of the date beside the time column are not used",
    }
    for rule, names in told.items():
        if names:
            report.note(rule, f"{why[rule]}: {', '.join(names[:10])}", count=len(names))
    return kept


def _counts_rows(name: str, reading: Reading) -> bool:
    if plain(name) not in ("", "row", "index", "unnamed 0", "rownames", "column 1", "no", "nr", "id", "idx", "x", "x1"):
        return False
    values = reading.values
    return len(values) > 2 and values[0] in (0.0, 1.0) and bool(np.all(np.diff(values) == 1))


def _parts(
    free: list[str], column: TimeColumn, ids: tuple[str, ...], options: ReadOptions
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    future, past = options.future_covariates, options.past_covariates
    rest = [name for name in free if name not in (*past, *future)]
    if options.target:
        return options.target, past, future
    conventional = bool(ids) or [plain(name) for name in column.names] == ["ds"]
    target = next((name for word in TARGETS for name in rest if plain(name) == word), None)
    if target is not None and (conventional or plain(target) == "target"):
        return (target,), (*past, *(name for name in rest if name != target)), future
    return tuple(rest), past, future


def _nothing_to_forecast(table: Table, free: list[str]) -> UserError:
    return UserError(
        "no column holds numbers to forecast",
        path=table.path,
        line=int(table.lines[0]),
        found=", ".join(table.columns),
        accepted=f"a column whose cells are numbers in at least {MOSTLY:.0%}",
        fix="check the mark between fields (--read delimiter=...) and the decimal mark (--read decimal=...)",
    )
