"""Forecast tables in every format, with times as the source writes them or as real times."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from mamba_data_prep.series import ReadOptions, SeriesFrame, read_series
from tsmamba.output.table import write_table

TABLE = pd.DataFrame(
    {
        "unique_id": ["NA", "b,c"],
        "ds": pd.to_datetime(["2024-01-01T10:00", "2024-01-01T11:00"]),
        "yhat": [1.25, float("nan")],
        "q0.5": [1e-7, 3.0],
    }
)
TIMES = ["1.1.2024 11:00", "1.1.2024 12:00"]
HOURS = "time,y\n" + "".join(f"{day}.1.2024 {hour:02d}:00,{hour}\n" for day in (1, 2, 13) for hour in range(24))


@pytest.fixture
def frame(tmp_path: Path) -> SeriesFrame:
    """A table whose times are written as `TIMES` are, on Berlin's clock."""
    (tmp_path / "hours.csv").write_text(HOURS)
    return read_series(tmp_path / "hours.csv", ReadOptions(zone="Europe/Berlin", dayfirst=True))


def read(path: Path) -> list[dict]:
    if path.suffix in (".csv", ".tsv"):
        options = {"sep": "\t" if path.suffix == ".tsv" else ",", "keep_default_na": False}
        return pd.read_csv(path, dtype=str, **options).to_dict("records")
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl"])
def test_text_formats_keep_names_and_the_source_s_times(ending: str, frame: SeriesFrame, tmp_path: Path) -> None:
    path = tmp_path / f"f{ending}"
    write_table(path, TABLE, frame)
    rows = read(path)
    assert [row["unique_id"] for row in rows] == ["NA", "b,c"]
    assert [row["ds"] for row in rows] == TIMES
    assert float(rows[0]["yhat"]) == 1.25
    assert float(rows[0]["q0.5"]) == 1e-7
    assert rows[1]["yhat"] in ("", None)


def test_parquet_keeps_real_times_in_the_source_s_zone(frame: SeriesFrame, tmp_path: Path) -> None:
    write_table(tmp_path / "f.parquet", TABLE, frame)
    back = pd.read_parquet(tmp_path / "f.parquet")
    assert back["ds"].tolist() == TABLE["ds"].dt.tz_localize("UTC").tolist()
    assert back["ds"].dt.hour.tolist() == [11, 12]
    assert list(back.columns) == list(TABLE.columns)
