"""From a file to `SeriesFrame`, step by step; each step tells the report what it did."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.arrow import pc
from mamba_data_prep.series.assemble import assemble
from mamba_data_prep.series.covariates import with_future, with_static
from mamba_data_prep.series.dialect import Dialect, find_dialect
from mamba_data_prep.series.frame import SeriesFrame
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.roles import find_roles
from mamba_data_prep.series.source import read_bytes, to_sheet, to_text
from mamba_data_prep.series.table import Table, read_table
from mamba_data_prep.series.times.column import find_times
from mamba_data_prep.workbooks import is_workbook


def read_series(
    path: str | Path,
    options: ReadOptions = ReadOptions(),  # noqa: B008  (frozen)
    *,
    future: str | Path | None = None,
    static: str | Path | None = None,
) -> SeriesFrame:
    """Reads a table of time series, wide or long, and puts every series on its regular grid.

    Args:
        path: delimited text (plain or gzip; "-" is standard input), Parquet or an Excel workbook.
        options: what is known of the file; the rest is detected.
        future: a file with covariates known for the times to forecast; its columns must be in the main file too.
        static: a file with one row a series.

    Raises:
        UserError: the file cannot be read without guessing; the message says what to tell.
    """
    report = IngestReport(str(path))
    table, dialect = open_table(path, options, report)
    further = None
    if future is not None:
        further = open_table(future, ReadOptions(delimiter=options.delimiter), IngestReport(str(future)))
        options = _with_known_future(table, further[0], options)
    table, column = find_times(table, options, report)
    roles = find_roles(table, column, dialect.delimiter, options, report)
    series = assemble(table, column, roles, options, report)
    if table.columns and dialect.names:
        pinned = replace(series.options, delimiter=dialect.delimiter, skip=dialect.skip, header=dialect.header)
        series = replace(series, options=replace(pinned, encoding=report.detected.get("codec", options.encoding)))
    if further is not None:
        series = with_future(series, further[0], further[1].delimiter, options)
    if static is not None:
        series = with_static(series, open_table(static, ReadOptions(), IngestReport(str(static)))[0])
    return series


def open_table(path: str | Path, options: ReadOptions, report: IngestReport) -> tuple[Table, Dialect]:
    """Gives a file's cells and its layout; Parquet has a layout without names.

    Raises:
        UserError: the file holds no table.
    """
    data = read_bytes(path, report)
    if is_workbook(data):
        text = to_sheet(data, path, options.sheet, report)
        options = replace(options, delimiter=",", encoding=None)
    elif options.sheet is not None:
        raise UserError(
            "only Excel workbooks have sheets", path=path, found=f"--sheet {options.sheet}", fix="leave it out"
        )
    elif data[:4] == b"PAR1":
        return _parquet(data, Path(path), report), Dialect(",", 0, 1, ())
    else:
        text = to_text(data, path, options.encoding, report)
    del data
    dialect = find_dialect(text, Path(path), options, report)
    return read_table(text, Path(path), dialect, report), dialect


def _parquet(data: bytes, path: Path, report: IngestReport) -> Table:
    try:
        content = pq.read_table(io.BytesIO(data))
        content.validate(full=True)  # text that is no UTF-8 would otherwise be met by whoever uses it first
        names = content.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"this is broken Parquet ({reason})", path=path, line=1, fix="copy the file again") from None
    if content.num_rows == 0:
        raise UserError("there is a header but no data", path=path, line=1, fix="check that the file is whole")
    report.detected["format"] = "Parquet"
    columns = {}
    for name, cells in zip(names, content.columns, strict=True):
        if name.startswith("__index_level_"):
            name = "ds" if "ds" not in names else name
        simple = _simple(cells.combine_chunks())
        if simple is not None:
            columns[name] = simple
    return Table(path, columns, np.arange(1, content.num_rows + 1))


def _simple(cells: pa.Array | pa.ChunkedArray) -> pa.Array | None:
    """Numbers and booleans as they are, text as text, times as ISO text; None for lists and other nested things."""
    if isinstance(cells, pa.ChunkedArray):
        cells = pa.concat_arrays(cells.chunks)
    kind = cells.type
    if pa.types.is_dictionary(kind):
        return _simple(cells.dictionary_decode())
    if pa.types.is_timestamp(kind):
        seconds = pc.cast(cells, pa.timestamp("s", kind.tz), safe=False)
        whole = pc.all(pc.equal(pc.cast(seconds, kind), cells)).as_py()
        cells = seconds if whole is not False else cells
        if (
            kind.tz is None
            and whole is not False
            and pc.all(pc.equal(pc.cast(pc.cast(seconds, pa.date32()), seconds.type), seconds)).as_py() is not False
        ):
            cells = pc.cast(seconds, pa.date32())
        elif kind.tz is not None:
            naive = pc.cast(pc.cast(cells, pa.timestamp(cells.type.unit, "UTC")), pa.timestamp(cells.type.unit))
            return pc.binary_join_element_wise(pc.cast(naive, pa.string()), "Z", "")
        return pc.cast(cells, pa.string())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_date(kind):
        return pc.cast(cells, pa.string())
    nested = pa.types.is_nested(kind) or pa.types.is_binary(kind)
    return None if nested else pc.cast(cells, pa.string()) if pa.types.is_null(kind) else cells


def _with_known_future(table: Table, further: Table, options: ReadOptions) -> ReadOptions:
    """The options with the columns that both files hold as known-future covariates."""
    taken = {*options.future_covariates, *options.target, *options.id, *options.time, *options.past_covariates}
    report = IngestReport()
    _, column = find_times(table, options, report)
    # What is said of the targets must not hide the other columns: any that holds numbers may be known ahead.
    open_to_all = replace(options, target=(), decimal=options.decimal or ".")
    roles = find_roles(table, column, ",", open_to_all, report)
    both = [n for n in table.columns if n in further.columns and n not in taken and n in (*roles.targets, *roles.past)]
    future = (*options.future_covariates, *both)
    absent = [name for name in options.future_covariates if name not in further.columns]
    if not future or absent:
        raise UserError(
            "no covariate of the series is in this file" if not future else "a covariate is not in this file",
            path=further.path,
            line=1,
            found=", ".join(absent or further.columns),
            accepted=", ".join(name for name in table.columns if name not in column.names),
            fix="name its columns as the main file does, and give their past there",
        )
    return replace(options, future_covariates=future)
