"""From a workbook to a workbook."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tsmamba.cli import cli


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Two sheets: sixty days of sales, and as many of costs."""
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    path = tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as writer:
        for number, name in enumerate(("sales", "costs")):
            values = 10.0 * number + np.arange(60) % 7
            pd.DataFrame({"day": days, name: values}).to_excel(writer, sheet_name=name, index=False)
    return path


def test_a_workbook_gives_a_workbook(book: Path) -> None:
    out = book.with_name("f.xlsx")
    result = run("forecast", book, "--sheet", "costs", "--horizon", 7, "--method", "seasonal_naive", "--out", out)
    assert result.exit_code == 0, result.output
    table = pd.read_excel(out)
    assert list(table.columns) == ["unique_id", "ds", "yhat", "q0.025", "q0.1", "q0.5", "q0.9", "q0.975"]
    assert table["ds"].tolist() == pd.date_range("2024-03-01", periods=7).tolist()
    assert table["yhat"].tolist() == [10.0 + day % 7 for day in range(60, 67)]
    assert table["unique_id"].unique().tolist() == ["costs"]
    assert out.with_name("f.xlsx.json").exists()


def test_the_first_sheet_is_the_default_and_the_csv_lies_beside(book: Path) -> None:
    told = json.loads(run("forecast", book, "--horizon", 2, "--method", "naive", "--json").stdout)
    assert Path(told["out"]) == book.with_name("book.forecast.csv")
    assert pd.read_csv(told["out"])["unique_id"].unique().tolist() == ["sales"]
    assert told["ingest"]["detected"]["sheet"] == "sales"


def test_doctor_s_rules_name_the_sheet(book: Path) -> None:
    assert run("doctor", book, "--sheet", "costs").exit_code == 0
    assert "sheet: costs" in book.with_name("book.rules.yaml").read_text()
    again = run("doctor", book, "--rules", book.with_name("book.rules.yaml"), "--out", book.with_name("c.csv"),
                "--rules-out", book.with_name("r.yaml"))  # fmt: skip
    assert again.exit_code == 0, again.output
    assert book.with_name("c.csv").read_text() == book.with_name("book.clean.csv").read_text()


def test_times_with_a_zone_are_texts_with_their_offset(tmp_path: Path) -> None:
    times = pd.date_range("2024-01-01", periods=72, freq="h", tz="Europe/Berlin")
    path = tmp_path / "zoned.csv"
    pd.DataFrame({"time": times, "y": np.arange(72) % 24}).to_csv(path, index=False)
    assert run("forecast", path, "--horizon", 2, "--method", "naive", "--out", tmp_path / "f.xlsx").exit_code == 0
    assert pd.read_excel(tmp_path / "f.xlsx")["ds"].tolist() == [
        "2024-01-04 00:00:00+01:00",
        "2024-01-04 01:00:00+01:00",
    ]


def test_where_openpyxl_is_missing_it_is_told_before_the_work(
    book: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "openpyxl" else found(name, *rest)
    )
    (tmp_path / "a.csv").write_text("ds,y\n2024-01-01,1\n2024-01-02,2\n")
    for source, out in ((book, "f.csv"), (tmp_path / "a.csv", "f.xlsx")):
        result = run("forecast", source, "--method", "naive", "--out", tmp_path / out)
        assert result.exit_code == 2
        assert "need the package openpyxl" in result.stderr
