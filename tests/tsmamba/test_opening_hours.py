"""Forecasts of series that are observed only at opening hours or on working days."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from click.testing import CliRunner, Result

from tsmamba.cli import cli
from tsmamba.panel.holidays import holiday_flags
from tsmamba.panel.source import Source
from tsmamba.panel.tables import frame_of, panel_of


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


def shop(weeks: int = 8, start: str = "2024-01-01") -> pd.DataFrame:
    """Sales from 08:00 to 18:00 of working days: a course of the day, and Fridays twice as good."""
    times = pd.date_range(start, periods=24 * 7 * weeks, freq="h")
    times = times[(times.hour >= 8) & (times.hour <= 18) & (times.dayofweek < 5)]
    noise = np.random.default_rng(0).normal(0, 0.2, len(times))
    sales = (10 - np.abs(times.hour - 13)) * np.where(times.dayofweek == 4, 2, 1) + noise
    return pd.DataFrame({"time": times, "sales": sales})


def test_open_hours_alone_are_forecast(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    shop().to_csv(path, index=False)
    result = run("forecast", path, "--horizon", 55, "--method", "seasonal_naive", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["frequency"] == "h Mon-Fri 08:00-18:00"
    assert told["season"] == 55
    assert any("h Mon-Fri 08:00-18:00" in note for note in told["notes"])
    table = pd.read_csv(told["out"], parse_dates=["ds"])
    following = shop(9).iloc[-55:]
    assert table["ds"].tolist() == following["time"].tolist()
    assert np.abs(table["yhat"].to_numpy() - following["sales"].to_numpy()).max() < 2


def test_freq_h_forecasts_the_night_as_well(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    shop().to_csv(path, index=False)
    result = run("forecast", path, "--horizon", 3, "--method", "naive", "--freq", "h", "--json")
    told = json.loads(result.stdout)
    assert told["frequency"] == "h"
    assert not any("Mon-Fri" in note for note in told["notes"])
    assert pd.read_csv(told["out"])["ds"].tolist() == [f"2024-02-23 {hour}:00:00" for hour in (19, 20, 21)]


def test_doctor_tells_the_open_times(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    shop().to_csv(path, index=False)
    report = json.loads(run("doctor", path, "--json").stdout)
    assert report["detected"]["frequency"] == "h Mon-Fri 08:00-18:00"
    assert "open_times" in [note["rule"] for note in report["notes"]]
    clean = json.loads(run("doctor", tmp_path / "shop.clean.csv", "--json").stdout)
    assert clean["findings"] == []
    assert clean["detected"]["frequency"] == "h Mon-Fri 08:00-18:00"


def test_a_model_reads_a_few_new_rows_as_its_own(tmp_path: Path) -> None:
    shop().to_csv(tmp_path / "shop.csv", index=False)
    shop(9).iloc[-20:].to_csv(tmp_path / "new.csv", index=False)
    fitted = run("fit", tmp_path / "shop.csv", "--horizon", 5, "--method", "seasonal_naive", "--out", tmp_path / "run")
    assert fitted.exit_code == 0, fitted.output
    result = run("forecast", tmp_path / "new.csv", "--model", tmp_path / "run")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "new.forecast.csv")
    assert table["ds"].tolist() == [f"2024-03-04 {hour:02d}:00:00" for hour in range(8, 13)]


def test_a_model_refuses_rows_at_closed_hours(tmp_path: Path) -> None:
    shop().to_csv(tmp_path / "shop.csv", index=False)
    times = pd.date_range("2024-03-04", periods=40, freq="h")
    pd.DataFrame({"time": times, "sales": np.arange(40.0)}).to_csv(tmp_path / "new.csv", index=False)
    run("fit", tmp_path / "shop.csv", "--horizon", 5, "--method", "seasonal_naive", "--out", tmp_path / "run")
    result = run("forecast", tmp_path / "new.csv", "--model", tmp_path / "run")
    assert result.exit_code == 2
    assert "another step" in result.stderr


def test_covariates_of_closed_hours_are_left_out() -> None:
    table = shop().assign(price=lambda rows: rows["time"].dt.hour * 1.0)
    later = pd.DataFrame({"time": pd.date_range("2024-02-23 19:00", "2024-02-26 12:00", freq="h")})
    future = later.assign(price=later["time"].dt.hour * 1.0)
    known = panel_of(frame_of(table, future=future)).series[0].future[len(table) :, 0]
    np.testing.assert_array_equal(known, [8, 9, 10, 11, 12])


def test_covariates_of_a_weekend_are_left_out_for_working_days() -> None:
    days = pd.bdate_range("2024-01-01", periods=60)  # to a Friday
    table = pd.DataFrame({"time": days, "y": np.arange(60) % 7 + 1.0, "price": days.day * 1.0})
    later = pd.date_range(days[-1] + pd.Timedelta(days=1), periods=4, freq="D")
    known = panel_of(frame_of(table, future=pd.DataFrame({"time": later, "price": later.day * 1.0}))).series[0].future
    np.testing.assert_array_equal(known[60:, 0], later.day[2:])


def test_a_source_keeps_its_open_times() -> None:
    source = Source.of(frame_of(shop()))
    assert Source.from_dict(json.loads(json.dumps(source.to_dict()))) == source


def test_holidays_are_known_of_open_hours() -> None:
    frame = frame_of(shop())
    times = frame.frame["ds"].to_numpy()
    flags = holiday_flags(times, frame.frequency, "DE")
    assert flags.sum() == 11  # New Year's Day
