"""How a text lays out its table: the mark between fields, the lines before the table, and the header."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.times.format import MONTHS
from mamba_data_prep.series.words import is_missing, is_time_name

SAMPLE = 400
"""Lines that are looked at to find the layout."""

_DELIMITERS = (",", ";", "\t", "|")
_TYPED = re.compile(
    r"[\s$€£(]*[-+\u2212]?[\d.][\d\s.,:/'+\-\u2212TZQWM\u00a0\u202f]*([eE][-+]?\d+)?\s*[%)\w°/³²]{0,6}\s*"
)
_PERIOD = re.compile(r"(1[89]|20|21)\d\d([-/. ]?(\d\d|[QM W]\d{1,2})([-/.]\d\d)?)?")
_NUMBER = re.compile(r"\s*[-+\u2212(]?[$€£]?\s*(\d[\d.,' \u00a0\u202f]*|[.,]\d+)([eE][-+]?\d+)?\s*[%)]?\s*")


@dataclass(frozen=True)
class Dialect:
    """The layout of a text.

    Attributes:
        delimiter: the mark between fields.
        skip: lines before the table.
        header: records that name the columns (0, 1 or more).
        names: the columns' names, unique and not empty.
    """

    delimiter: str
    skip: int
    header: int
    names: tuple[str, ...]


def find_dialect(text: str, path: Path, options: ReadOptions, report: IngestReport) -> Dialect:
    """Finds the layout from the first lines, and notes what it rests on.

    Raises:
        UserError: the lines hold no table.
    """
    lines = list(islice(_lines(text), SAMPLE))
    skip = _comments(lines) if options.skip is None else options.skip
    delimiter = options.delimiter or _delimiter(lines[skip:])
    rows = list(csv.reader([line + "\n" for line in lines[skip:]], delimiter=delimiter, skipinitialspace=True))
    width = _width(rows)
    if options.skip is None:
        skipped = _titles(rows, width)
        rows, skip = rows[skipped:], skip + skipped
    _refuse_times_across(rows, path, skip + 1)
    header = _header_rows(rows, width) if options.header is None else options.header
    if len(rows) <= header:
        raise UserError("there is a header but no data", path=path, line=skip + 1, fix="check that the file is whole")
    if skip and any(line.strip() for line in lines[:skip]):
        what = "lines before the table were left out"
        report.repair("lines_before_table", what, count=skip, lines=range(1, skip + 1), examples=_dropped(lines[:skip]))
    names = _names(rows[:header], width, skip + 1, path, report)
    report.detected |= {"delimiter": {"\t": "tab", " ": "space"}.get(delimiter, delimiter), "header lines": header}
    return Dialect(delimiter, skip, header, names)


def _lines(text: str):  # noqa: ANN202  (an iterator that never copies the whole text)
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _dropped(lines: Sequence[str]) -> list[tuple[str, str]]:
    return [(line[:60], "") for line in lines if line.strip()]


def _comments(lines: Sequence[str]) -> int:
    """Lines at the start that are blank or comments; a comment directly before the data may be the header itself."""
    count = 0
    while count < len(lines) and (not lines[count].strip() or lines[count].lstrip().startswith(("#", "//"))):
        count += 1
    if 0 < count < len(lines) and lines[count - 1].startswith("#"):
        mark = next((mark for mark in _DELIMITERS if mark in lines[count]), None)
        named, first = lines[count - 1].split(mark), lines[count].split(mark)
        if mark and len(named) == len(first) and any(map(_is_number, first)) and not any(map(_is_number, named)):
            return count - 1
    return count


def _delimiter(lines: Sequence[str]) -> str:
    scores = {mark: _score(lines, mark) for mark in _DELIMITERS}
    best = max(scores, key=lambda mark: scores[mark])
    if scores[best] > 0:
        return best
    spaced = [re.sub(r" +", " ", line.strip()) for line in lines]
    return " " if _score(spaced, " ") > 0.7 and not _dated_alone(spaced) else ","


def _dated_alone(lines: Sequence[str]) -> bool:
    return sum(bool(re.fullmatch(r"\S+ \d{1,2}:\d{2}\S*", line)) for line in lines) > len(lines) / 2


def _score(lines: Sequence[str], mark: str) -> float:
    """How much the text looks like a table under this mark: regular width times cells that are typed."""
    rows = [row for row in csv.reader([line + "\n" for line in lines], delimiter=mark, skipinitialspace=True) if row]
    width = _width(rows)
    if width < 2:
        return 0.0
    regular = [row[:width] for row in rows if len(row) >= width and not any(cell.strip() for cell in row[width:])]
    cells = [cell for row in regular for cell in row]
    typed = sum(bool(_TYPED.fullmatch(cell)) or is_missing(cell) for cell in cells)
    return len(regular) / len(rows) * (0.05 + typed / len(cells))


def _width(rows: Sequence[Sequence[str]]) -> int:
    """The commonest number of fields, without fields at the end that no row fills."""
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    widths = Counter(len(row) for row in filled)
    width = max(widths, key=lambda width: (widths[width], width), default=0)
    return max((i + 1 for row in filled for i, cell in enumerate(row[:width]) if cell.strip()), default=0)


def _titles(rows: Sequence[Sequence[str]], width: int) -> int:
    """Lines before the first row of full width: titles and notes (a header may lack the name of row numbers)."""
    for index, row in enumerate(rows):
        filled = [cell for cell in row if cell.strip()]
        if len(filled) < 2 <= len(row) and _names_follow(rows[index + 1 :]):
            continue  # spreadsheets pad a title to the width of the table
        if (
            len(row) >= width
            or (len(row) == width - 1 >= 2 and len(filled) == len(row))
            or (index == 0 and len(row) == 1 == width - 1 and _data_follows(rows))
        ):
            return index
    return 0


def _data_follows(rows: Sequence[Sequence[str]]) -> bool:
    return len(rows) > 1 and len(rows[1]) > 1 and all(map(_is_number, rows[1]))


def _names_follow(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the next row of several cells holds words alone."""
    several = ([cell for cell in row if cell.strip()] for row in rows)
    below = next((filled for filled in several if len(filled) > 1), [])
    return bool(below) and not any(_TYPED.fullmatch(cell) for cell in below)


def _is_number(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell))


def _header_rows(rows: Sequence[Sequence[str]], width: int) -> int:
    """How many first rows are words where the columns below hold numbers or times."""
    body = [row for row in rows[1:] if len(row) >= width] or list(rows[1:])
    if not body:
        return 0 if rows and all(map(_is_number, rows[0])) else 1
    typed = {
        i
        for i in range(width)
        if sum(i < len(row) and bool(_TYPED.fullmatch(row[i])) for row in body)
        > 0.5 * sum(i < len(row) and not is_missing(row[i]) for row in body)
    }
    count = 0
    for row in rows[:6]:
        if any(i in typed and bool(_TYPED.fullmatch(cell)) for i, cell in enumerate(row)):
            return count + 1 if _has_numbered_names(row, typed) else count if typed else 1
        if not any(cell.strip() for cell in row):
            break
        count += 1
    return count if typed else 1


def _has_numbered_names(row: Sequence[str], typed: Collection[int]) -> bool:
    """Whether a row names columns, some of them by numbers: `date,0,1,OT`, or `,0,1,2` as pandas writes them.

    A word for times stands where the rows below have times, or nothing does and the others count from 0 or 1.
    """
    if any(i in typed and is_time_name(cell) and not _TYPED.fullmatch(cell) for i, cell in enumerate(row)):
        return True
    first, *others = [cell.strip() for cell in row]
    counted = [str(start + place) for start in (0, 1) for place in range(len(others))]
    return not first and 0 in typed and len(others) > 1 and others in (counted[: len(others)], counted[len(others) :])


def _refuse_times_across(rows: Sequence[Sequence[str]], path: Path, line: int) -> None:
    """Refuse a table that has a column for each time: its header would be read as data, its months as series."""
    first = [cell.strip() for cell in rows[0]] if rows else []
    months = [cell[:3].lower() for cell in first[1:13]]
    if months == list(MONTHS):
        raise UserError(
            "the months run across the header, one column for each",
            path=path,
            line=line,
            found=",".join(first)[:80],
            accepted="a row for each month",
            fix=f"turn the table: a row for each {first[0] or 'year'} and month, such as 1990-01,12.5",
        )
    names = next((place for place, cell in enumerate(first) if _PERIOD.fullmatch(cell)), len(first))
    times = first[names:]
    if 1 <= names <= 8 and len(times) >= 3 and all(map(_PERIOD.fullmatch, times)) and times == sorted(set(times)):
        columns = ", ".join(map(repr, first[:names]))
        raise UserError(
            "the times run across the header, one column for each",
            path=path,
            line=line,
            found=",".join(first)[:80],
            accepted="a row for each time",
            fix=f"turn the table: pandas.read_csv(FILE).melt([{columns}], var_name='ds', value_name='y').to_csv(...)",
        )


def _names(header: Sequence[Sequence[str]], width: int, line: int, path: Path, report: IngestReport) -> tuple[str, ...]:
    if not header:
        report.note("no_header", "the first line is data, so columns are named by their place", lines=(line,))
        return tuple(f"column {i + 1}" for i in range(width))
    if len(header) == 1 and len(header[0]) < width:
        header = [_with_row_names(list(header[0]), width, line, path, report)]
    width = max(width, *(len(row) for row in header))
    named = next((row for row in header if any(map(is_time_name, row)) and all(cell.strip() for cell in row)), None)
    merged = len(header) > 1
    raw = (
        list(named)
        if named
        else [
            " ".join(dict.fromkeys(c[i].strip() for c in header if i < len(c) and c[i].strip())) for i in range(width)
        ]
    )
    if merged:
        what = "the table has several header lines: " + ("one names the columns" if named else "they were joined")
        report.repair(
            "header_lines",
            what,
            count=len(header),
            lines=range(line, line + len(header)),
            examples=[(" | ".join(row), "") for row in header],
        )
    return _unique(
        [" ".join(name.split()).lstrip("#\ufeff ") if i == 0 else " ".join(name.split()) for i, name in enumerate(raw)],
        line,
        report,
    )


def _with_row_names(header: list[str], width: int, line: int, path: Path, report: IngestReport) -> list[str]:
    missing = width - len(header)
    if missing == 1 and len(header) >= 2:
        report.repair("row_names", "the first column has no name in the header", lines=(line,), examples=[("", "row")])
        return ["row", *header]
    raise UserError(
        f"the header names {len(header)} columns, the rows have {width} fields",
        path=path,
        line=line,
        found=", ".join(header),
        fix="name every column; if numbers have decimal commas, put ';' between fields (or --read delimiter=...)",
    )


def _unique(names: Sequence[str], line: int, report: IngestReport) -> tuple[str, ...]:
    taken: list[str] = []
    renamed: list[tuple[str, str]] = []
    for place, name in enumerate(names):
        new = name or f"column {place + 1}"
        number = 2
        while new in taken:
            new, number = f"{name} ({number})", number + 1
        if new != name:
            renamed.append((name, new))
        taken.append(new)
    if renamed:
        what = "columns without a name, or with one that was taken, were given one"
        report.repair("column_names", what, count=len(renamed), lines=(line,), examples=renamed)
    return tuple(taken)
