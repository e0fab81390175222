"""Excel workbooks of series: read like the same table as CSV, from the sheet that is meant."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from openpyxl import Workbook

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import ReadOptions, read_series

DAYS = pd.date_range("2024-01-01", periods=30, freq="D")
TABLE = [["date", "sales"], *([day.to_pydatetime(), 1.5 * number] for number, day in enumerate(DAYS))]


def book(path: Path, **sheets: Sequence[Sequence[Any]]) -> Path:
    made = Workbook()
    made.remove(made.worksheets[0])
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    made.save(path)
    return path


def test_a_sheet_reads_like_the_csv(tmp_path: Path) -> None:
    frame = read_series(book(tmp_path / "b.xlsx", Sales=TABLE))
    path = tmp_path / "same.csv"
    pd.DataFrame({"date": DAYS, "sales": 1.5 * np.arange(30)}).to_csv(path, index=False)
    pd.testing.assert_frame_equal(frame.frame, read_series(path).frame)
    assert frame.report.detected["sheet"] == "Sales"
    assert frame.report.findings == []
    assert frame.format_times(frame.future_times(1)["ds"]) == ["2024-01-31"]


def test_the_first_sheet_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    path = book(tmp_path / "b.xlsx", Sales=TABLE, Notes=[["nothing"], ["here"]], Costs=[["date", "cost"], *TABLE[1:]])
    frame = read_series(path)
    assert frame.target_columns == ("sales",)
    (note,) = [note for note in frame.report.notes if note.rule == "sheets"]
    assert "Notes, Costs" in note.what
    named = read_series(path, ReadOptions(sheet="Costs"))
    assert named.target_columns == ("cost",)
    assert not [note for note in named.report.notes if note.rule == "sheets"]


def test_a_hidden_first_sheet_is_passed_over(tmp_path: Path) -> None:
    from openpyxl import load_workbook

    path = book(tmp_path / "b.xlsx", Hidden=[["a"], ["b"]], Sales=TABLE)
    made = load_workbook(path)
    made["Hidden"].sheet_state = "hidden"
    made.save(path)
    assert read_series(path).report.detected["sheet"] == "Sales"


def test_titles_empty_columns_and_blank_cells(tmp_path: Path) -> None:
    rows = [[None, "Sales of the shop", None, None], [], [None, "date", "sales", None]]
    rows += [[None, day.to_pydatetime(), None if number == 4 else number, None] for number, day in enumerate(DAYS)]
    frame = read_series(book(tmp_path / "b.xlsx", A=[*rows, [None] * 4, []]))
    y = frame.frame["y"].to_numpy()
    assert np.flatnonzero(np.isnan(y)).tolist() == [4]
    assert y[-1] == 29


def test_hours_keep_their_midnights(tmp_path: Path) -> None:
    hours = pd.date_range("2024-01-01", periods=60, freq="h")
    rows = [["time", "load"], *([hour.to_pydatetime(), number % 24] for number, hour in enumerate(hours))]
    frame = read_series(book(tmp_path / "b.xlsx", A=rows))
    assert frame.frequency.alias == "h"
    assert frame.frame["ds"].tolist() == hours.tolist()


def test_excel_s_own_words_for_no_value(tmp_path: Path) -> None:
    rows = [*TABLE[:9], [datetime(2024, 1, 9), "#N/A"], *TABLE[10:]]
    assert int(read_series(book(tmp_path / "b.xlsx", A=rows)).frame["y"].isna().sum()) == 1


def test_mistakes_are_told(tmp_path: Path) -> None:
    path = book(tmp_path / "b.xlsx", Sales=TABLE, Empty=[])
    with pytest.raises(UserError, match="no such sheet") as caught:
        read_series(path, ReadOptions(sheet="sales"))
    assert "Sales, Empty" in str(caught.value)
    with pytest.raises(UserError, match="the sheet is empty"):
        read_series(path, ReadOptions(sheet="Empty"))
    cut = tmp_path / "cut.xlsx"
    cut.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match="not an Excel file that can be read"):
        read_series(cut)
    (tmp_path / "a.csv").write_text("ds,y\n2024-01-01,1\n2024-01-02,2\n")
    with pytest.raises(UserError, match="only Excel workbooks have sheets"):
        read_series(tmp_path / "a.csv", ReadOptions(sheet="A"))


def test_where_openpyxl_is_missing_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "b.xlsx", Sales=TABLE)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="need the package openpyxl") as caught:
        read_series(path)
    assert "seqmamba[excel]" in str(caught.value)
