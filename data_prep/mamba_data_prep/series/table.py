"""From a text to columns of cells that remember their lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.arrow import pc
from mamba_data_prep.series.dialect import Dialect
from mamba_data_prep.series.report import IngestReport

CHUNK = 50_000
"""Rows that are held as Python strings at once."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length, as text (or typed, from Parquet).

    Attributes:
        path: the file.
        columns: name -> cells.
        lines: (n,) the line of the file (1-based) where each row begins; for Parquet the row.
    """

    path: Path
    columns: dict[str, pa.Array]
    lines: np.ndarray

    def __len__(self) -> int:
        return len(self.lines)

    def keep(self, rows: np.ndarray) -> Table:
        """Gives the rows where a mask (n,) is true."""
        mask = pa.array(rows)
        return Table(self.path, {name: cells.filter(mask) for name, cells in self.columns.items()}, self.lines[rows])

    def with_column(self, name: str, cells: pa.Array) -> Table:
        """Gives the table with one column more."""
        return replace(self, columns={**self.columns, name: cells})

    def text(self, name: str) -> pa.Array:
        """Gives a column's cells as text without blanks around them; typed cells are written out."""
        cells = self.columns[name]
        if not pa.types.is_string(cells.type):
            cells = pc.cast(cells, pa.string())
        return pc.fill_null(pc.utf8_trim_whitespace(cells), "")


@dataclass
class _Oddities:
    """Rows that differ from the header's width, by what becomes of them."""

    blank: list[int] = field(default_factory=list)
    trimmed: list[int] = field(default_factory=list)
    short: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    comments: list[int] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)


def read_table(text: str, path: Path, dialect: Dialect, report: IngestReport) -> Table:
    """Reads the rows below the header.

    Raises:
        UserError: a row has more fields than the header names, or a quote is never closed.
    """
    names, oddities = dialect.names, _Oddities()
    chunks: list[list[pa.Array]] = []
    lines: list[np.ndarray] = []
    for starts, rows in _chunks(_records(text, dialect, path)):
        if (
            any(len(row) != len(names) for row in rows)
            or len(names) == 1
            or any(row[0][:1] in ("", "#", " ") or row[0] == names[0] for row in rows)
        ):
            starts, rows = _regular(starts, rows, dialect, path, oddities)
        if rows:
            chunks.append([pa.array(cells, pa.string()) for cells in zip(*rows, strict=True)])
            lines.append(np.asarray(starts, dtype=np.int64))
    if not chunks:
        raise UserError("there is a header but no data", path=path, line=dialect.skip + 1, fix="check that it is whole")
    columns = {name: pa.concat_arrays([chunk[i] for chunk in chunks]) for i, name in enumerate(names)}
    table = Table(path, columns, np.concatenate(lines))
    table = _without_cut_end(table, text, oddities, report)
    if not len(table):
        line = int(np.concatenate(lines)[0])
        raise UserError("the only row below the header is cut short", path=path, line=line, fix="copy the file again")
    _tell(oddities, report)
    return table


def _records(text: str, dialect: Dialect, path: Path) -> Iterator[tuple[int, list[str]]]:
    stream = io.StringIO(text)
    for _ in range(dialect.skip):
        stream.readline()
    reader = csv.reader(stream, delimiter=dialect.delimiter, skipinitialspace=True)
    before = 0
    try:
        for number, row in enumerate(reader):
            start, before = before + 1, reader.line_num
            if before - start > 20:
                raise _open_quote(path, start + dialect.skip)
            if number >= dialect.header:
                yield start + dialect.skip, row
    except csv.Error as error:
        if "field larger" in str(error):
            raise _open_quote(path, before + 1 + dialect.skip) from None
        raise UserError(f"this is not a table: {error}", path=path, line=before + 1, fix="check that line") from None


def _open_quote(path: Path, line: int) -> UserError:
    return UserError("a quote is opened and not closed", path=path, line=line, fix='close the quote, or double it ("")')


def _chunks(records: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[list[int], list[list[str]]]]:
    starts: list[int] = []
    rows: list[list[str]] = []
    for start, row in records:
        starts.append(start)
        rows.append(row)
        if len(rows) == CHUNK:
            yield starts, rows
            starts, rows = [], []
    if rows:
        yield starts, rows


def _regular(
    starts: list[int], rows: list[list[str]], dialect: Dialect, path: Path, odd: _Oddities
) -> tuple[list[int], list[list[str]]]:
    kept_starts: list[int] = []
    kept: list[list[str]] = []
    for start, row in zip(starts, rows, strict=True):
        row = _one_row(start, row, dialect, path, odd)
        if row is not None:
            kept_starts.append(start)
            kept.append(row)
    return kept_starts, kept


def _one_row(start: int, row: list[str], dialect: Dialect, path: Path, odd: _Oddities) -> list[str] | None:
    names = dialect.names
    width = len(names)
    if not any(cell.strip() for cell in row):
        odd.blank.append(start)
        return [""] if width == 1 else None
    if row[0].startswith("#"):
        odd.comments.append(start)
        odd.texts[start] = dialect.delimiter.join(row)
        return None
    if tuple(cell.strip() for cell in row) == names:
        odd.repeated.append(start)
        return None
    if len(row) > width:
        if any(cell.strip() for cell in row[width:]):
            raise _extra_fields(start, row, dialect, path)
        odd.trimmed.append(start)
        return row[:width]
    if len(row) < width:
        odd.short.append(start)
        odd.texts[start] = dialect.delimiter.join(row)
        return [*row, *[""] * (width - len(row))]
    return row


def _extra_fields(start: int, row: list[str], dialect: Dialect, path: Path) -> UserError:
    mark = dialect.delimiter
    hint = (
        'put quotes around a field that holds the mark ("1,234")' if mark == "," else "quote fields that hold the mark"
    )
    return UserError(
        f"this row has {len(row)} fields where the header names {len(dialect.names)}",
        path=path,
        line=start,
        found=mark.join(row),
        accepted=f"{len(dialect.names)} fields parted by {mark!r}",
        fix=f"{hint}, or name the mark with --read delimiter=",
    )


def _without_cut_end(table: Table, text: str, odd: _Oddities, report: IngestReport) -> Table:
    """Leave out a last line that lacks fields and its line end, as a broken download has; and blanks at the end."""
    last = int(table.lines[-1])
    if len(table.columns) == 1:
        blank = set(odd.blank)
        size = len(table)
        while size and int(table.lines[size - 1]) in blank:
            size -= 1
        odd.blank = [line for line in odd.blank if line > int(table.lines[size - 1])]
        return table.keep(np.arange(len(table)) < size)
    if odd.short and odd.short[-1] == last and not text.endswith("\n"):
        odd.short.pop()
        what = "the last line is cut off, so it was left out"
        report.repair("cut_last_line", what, lines=(last,), examples=[(odd.texts[last], "")])
        return table.keep(table.lines != last)
    return table


def _tell(odd: _Oddities, report: IngestReport) -> None:
    told = (
        ("blank_lines", odd.blank, "blank lines were left out"),
        ("trailing_delimiters", odd.trimmed, "empty fields beyond the header were left out"),
        ("short_rows", odd.short, "rows with fewer fields than the header: the rest counts as missing"),
        ("repeated_header", odd.repeated, "the header stands again among the rows and was left out"),
        ("comment_lines", odd.comments, "comment lines were left out"),
    )
    for rule, lines, what in told:
        if lines:
            examples = [(odd.texts[line], "") for line in lines if line in odd.texts]
            report.repair(rule, what, count=len(lines), lines=lines, examples=examples)
