"""Excel workbooks (.xlsx): the rows of a sheet, through openpyxl, which is an extra (`pip install seqmamba[excel]`)."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from mamba_data_prep.errors import UserError

MOST_ROWS = 1_048_576
"""Rows that a sheet can hold, its header among them."""


def check_installed(path: Path) -> None:
    """Refuse a workbook where nothing can read or write it.

    Raises:
        UserError: openpyxl is not installed.
    """
    if importlib.util.find_spec("openpyxl") is None:
        fix = "pip install 'seqmamba[excel]', or save the sheet as CSV"
        raise UserError("Excel files need the package openpyxl", path=path, fix=fix)


def is_workbook(data: bytes) -> bool:
    """Whether a file's bytes are those of an Excel workbook, whatever its name says."""
    return data.startswith(b"PK\x03\x04") and (b"xl/" in data or b"[Content_Types]" in data[:4096])


def sheet_rows(path: Path, data: bytes | None = None, sheet: str | None = None) -> Iterator[tuple[int, list[Any]]]:
    """Row numbers (1-based) and cells of a sheet: text, numbers, truth values, dates and times, or None.

    Args:
        path: of the workbook, for messages; it is read where there is no `data`.
        data: its bytes.
        sheet: its name; the first one that is not hidden by default.

    Raises:
        UserError: openpyxl is not installed, the file is damaged, or there is no such sheet.
    """
    check_installed(path)
    line = 0
    try:
        _, chosen = _open(path, data, sheet)
        for line, cells in enumerate(chosen.iter_rows(values_only=True), start=1):
            yield line, list(cells)
    except UserError:
        raise
    except Exception as error:  # whatever openpyxl meets in a damaged file, of which it reads the rows one by one
        raise UserError(
            "this is not an Excel file that can be read", path=path, line=line + 1 if line else None, found=str(error),
            fix="save the sheet as CSV",
        ) from error  # fmt: skip


def _open(path: Path, data: bytes | None, sheet: str | None) -> tuple[list[str], Any]:
    """The names of a workbook's sheets, and the sheet that is read."""
    from openpyxl import load_workbook

    book = load_workbook(path if data is None else io.BytesIO(data), read_only=True, data_only=True)
    names = [one.title for one in book.worksheets]
    if sheet is not None and sheet not in names:
        raise UserError("the workbook has no such sheet", path=path, found=sheet, accepted=", ".join(names))
    shown = [one for one in book.worksheets if one.sheet_state == "visible"] or book.worksheets
    return names, shown[0] if sheet is None else book[sheet]


def sheet_names(path: Path, data: bytes, sheet: str | None = None) -> tuple[list[str], str]:
    """The names of a workbook's sheets, and of the one that `sheet_rows` reads.

    Raises:
        UserError: see `sheet_rows`.
    """
    check_installed(path)
    try:
        names, chosen = _open(path, data, sheet)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            "this is not an Excel file that can be read", path=path, line=1, found=str(error),
            fix="save the sheet as CSV",
        ) from error  # fmt: skip
    return names, chosen.title


def sheet_text(path: Path, data: bytes, sheet: str | None = None) -> str:
    """A sheet as comma-separated text, a line a row: numbers with a decimal point, ISO dates, blanks for empty cells.

    Empty columns to the left and right are left out, and so are empty rows at the end.

    Raises:
        UserError: see `sheet_rows`.
    """
    rows = [cells for _, cells in sheet_rows(path, data, sheet)]
    used = [[place for place, cell in enumerate(cells) if cell not in (None, "")] for cells in rows]
    first = min((places[0] for places in used if places), default=0)
    width = max((places[-1] + 1 for places in used if places), default=0)
    while used and not used[-1]:
        used.pop()
    rows = [(cells + [None] * width)[first:width] for cells in rows[: len(used)]]
    timed = {
        place
        for cells in rows
        for place, cell in enumerate(cells)
        if isinstance(cell, datetime) and cell.time() != time()
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for cells in rows:
        writer.writerow([_text(cell, place in timed) for place, cell in enumerate(cells)])
    return text.getvalue()


def _text(cell: Any, has_time: bool) -> str:
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.isoformat(" ") if has_time else cell.date().isoformat()
    if isinstance(cell, date | time):
        return cell.isoformat()
    return " ".join(str(cell).split())
