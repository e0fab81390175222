"""Reading labelled sequences from CSV and TSV files, strictly: a bad row is named, never guessed at.

Columns `sequence` or `seq`, `label` or `class` and, if wanted, `split` (train, valid or dev, test); others are ignored.
Fields are separated by commas, semicolons or tabs, plain or gzip; or the first sheet of an Excel file (.xlsx).
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.rna import count_uracils, tell_uracils
from mamba_data_prep.workbooks import sheet_rows

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}
_MISSING = {"", "na", "nan", "none", "null", "n/a"}
_LETTERS = np.zeros(256, bool)
_LETTERS[np.frombuffer(b"ACGTNRYSWKMBDHV", np.uint8)] = True
_UPPER = np.arange(256, dtype=np.uint8)
_UPPER[97:123] -= 32
_UPPER[[ord("U"), ord("u")]] = ord("T")  # RNA is read as DNA, as the tokens do


@dataclass(frozen=True, eq=False)
class TableRow:
    """One labelled sequence and where it stood.

    Attributes:
        bases: uint8 ASCII, upper case.
        split: train, valid, test, or None when the table has no split column.
        line: 1-based line in the file, the header being line 1.
    """

    bases: np.ndarray
    label: str
    split: str | None
    path: Path
    line: int


def read_table(
    path: Path, split: str | None = None, sequence_column: str | None = None, label_column: str | None = None
) -> list[TableRow]:
    """Reads a labelled table; `split` is given to every row when the table has no such column.

    Args:
        path: the table.
        split: of every row when the table has no such column.
        sequence_column, label_column: the columns' names, where they are not the usual ones.

    Raises:
        UserError: the file is missing, not text, lacks a column, or a row is broken; the line is named.
    """
    wanted = _Wanted(split, sequence_column, label_column)
    if path.suffix.lower() == ".xlsx":
        rows = list(_checked_rows(path, _sheet(path), "\t", wanted))
    else:
        with _opened(path) as text:
            rows = list(_rows(path, text, wanted))
    if not rows:
        raise UserError("the table has a header and no rows", path=path, fix="give a table with labelled sequences")
    return rows


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOBase]:
    if not path.is_file():
        raise UserError("no such file", path=path, fix="check the spelling of the path")
    try:
        with _bytes_of(path) as stream:
            yield io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"the gzip file is damaged ({error})", path=path, line=_last_good_line(path) + 1,
            fix="copy or download it again",
        ) from error  # fmt: skip
    except UnicodeDecodeError as error:
        raise UserError(
            "the table is not UTF-8 text", path=path, line=_last_good_line(path) + 1,
            fix="save it as CSV or TSV in UTF-8",
        ) from error  # fmt: skip


def _bytes_of(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """The file's bytes, decompressed where it is gzip."""
    with path.open("rb") as probe:
        gzipped = probe.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path) if gzipped else path.open("rb")


def _last_good_line(path: Path) -> int:
    """The number of lines before the first one that cannot be read, for messages."""
    good = 0
    with suppress(EOFError, OSError, zlib.error, UnicodeDecodeError), _bytes_of(path) as stream:
        for line in stream:
            line.decode("utf-8")
            good += 1
    return good


def _delimiter(path: Path, header: str) -> str:
    """Tab for .tsv names; otherwise what the header holds: a comma, else a semicolon, else (not in a .csv) a tab."""
    suffixes = [s.lower() for s in path.suffixes]
    if ".tsv" in suffixes or (".csv" not in suffixes and "\t" in header):
        return "\t"
    return ";" if ";" in header and "," not in header else ","


@dataclass(frozen=True)
class _Wanted:
    """What a reader asks of a table: the split of rows that name none, and the columns' names."""

    split: str | None
    sequence: str | None
    label: str | None


def _rows(path: Path, text: io.TextIOBase, wanted: _Wanted) -> Iterator[TableRow]:
    header = text.readline()
    delimiter = _delimiter(path, header)
    return _checked_rows(path, _delimited(path, header, text, delimiter), delimiter, wanted)


def _delimited(path: Path, header: str, text: io.TextIOBase, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields, the header's first."""
    csv.field_size_limit(sys.maxsize)
    yield 1, next(csv.reader([header], delimiter=delimiter), [])
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 2
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise UserError(f"the row cannot be read ({error})", path=path, line=line, fix="mend the quotes") from error
        if fields is None:
            return
        yield line, fields


def _sheet(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Row numbers and cells as text of an Excel file's first sheet."""
    if not path.is_file():
        raise UserError("no such file", path=path, fix="check the spelling of the path")
    for line, cells in sheet_rows(path):
        fields = ["" if cell is None else str(cell) for cell in cells]
        yield line, fields if any(fields) else []


def _checked_rows(
    path: Path, table: Iterator[tuple[int, list[str]]], delimiter: str, wanted: _Wanted
) -> Iterator[TableRow]:
    names = [name.strip().lower() for name in next(table, (1, []))[1]]
    columns = _columns(path, names, delimiter, wanted)
    uracils = 0
    for line, fields in table:
        if not fields:
            continue
        if len(fields) != len(names):
            raise UserError(
                "the row has another number of fields than the header",
                path=path,
                line=line,
                found=f"{len(fields)} fields",
                accepted=f"{len(names)} fields: {', '.join(names)}",
                fix="mend the row, or quote fields that hold the delimiter",
            )
        yield _row(path, line, fields, columns, wanted.split)
        uracils += count_uracils(fields[columns["sequence"]].encode())
    tell_uracils(path, uracils)


def _columns(path: Path, names: list[str], delimiter: str, wanted: _Wanted) -> dict[str, int]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError("the header repeats a column", path=path, line=1, found=", ".join(repeated), fix="rename one")
    usual = {"sequence": ("sequence", "seq"), "label": ("label", "class")}
    asked = {"sequence": wanted.sequence, "label": wanted.label}
    found: dict[str, int] = {}
    for column, own in usual.items():
        named = asked[column]
        own = own if named is None else (named.strip().lower(),)
        present = next((name for name in own if name in names), None)
        if present is None:
            separated = {"\t": "tab", ";": "semicolon"}.get(delimiter, "comma")
            raise UserError(
                f"the header lacks the column {own[0]}",
                path=path,
                line=1,
                found=", ".join(names) if any(names) else "no header",
                accepted=f"sequence (or seq), label (or class) and, if wanted, split, {separated}-separated",
                fix=f"add a header line, or say which column it is with --{column}-column NAME",
            )
        found[column] = names.index(present)
    return found | ({"split": names.index("split")} if "split" in names else {})


def _row(path: Path, line: int, fields: list[str], columns: dict[str, int], split: str | None) -> TableRow:
    label = fields[columns["label"]].strip()
    if label.lower() in _MISSING:
        raise UserError(
            "the label is missing", path=path, line=line, found=label, accepted="a class name or number",
            fix="fill it in or remove the row",
        )  # fmt: skip
    if "split" in columns:
        named = fields[columns["split"]].strip()
        if named.lower() not in SPLIT_NAMES:
            raise UserError(
                "the split is unknown", path=path, line=line, found=named, accepted=", ".join(SPLIT_NAMES),
                fix="use one of these names, or remove the column to split automatically",
            )  # fmt: skip
        split = SPLIT_NAMES[named.lower()]
    return TableRow(_bases(path, line, fields[columns["sequence"]].strip()), label, split, path, line)


def _bases(path: Path, line: int, sequence: str) -> np.ndarray:
    if not sequence:
        raise UserError("the sequence is empty", path=path, line=line, fix="fill it in or remove the row")
    bases = _UPPER[np.frombuffer(sequence.encode("utf-8"), np.uint8)]
    bad = np.flatnonzero(~_LETTERS[bases])
    if len(bad):
        letter = chr(bases[bad[0]]) if bases[bad[0]] < 128 else "a letter outside ASCII"
        raise UserError(
            f"the sequence holds a letter that is no base, at position {bad[0] + 1:,}",
            path=path,
            line=line,
            found=letter,
            accepted="A C G T U N and the IUPAC codes R Y S W K M B D H V, either case",
            fix="mend or remove the row",
        )
    return bases
