"""Public holidays as a covariate: on the right days, known ahead, kept in the bundle, told to a stream."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import Frequency
from tsmamba import Forecaster
from tsmamba.cli import cli
from tsmamba.config import LEVELS, FitConfig
from tsmamba.evaluation.conformal import Calibration, guessed_shifts
from tsmamba.evaluation.selection import Selection, describe
from tsmamba.fitting.fit import fit_panel
from tsmamba.methods.methods import Learned, Task
from tsmamba.panel.holidays import column_of, holiday_flags, local_zone, with_holidays
from tsmamba.panel.source import Source
from tsmamba.panel.tables import frame_of, panel_of

GERMAN_2024 = ["2024-10-03", "2024-12-25", "2024-12-26"]


def days(rows: int = 90) -> pd.DataFrame:
    times = pd.date_range("2024-09-01", periods=rows, freq="D")
    return pd.DataFrame({"ds": times, "y": 20 + 5.0 * (np.arange(rows) % 7) + np.sin(np.arange(rows))})


def test_holidays_are_days_of_the_place() -> None:
    times = np.arange("2024-09-01", "2024-12-31", dtype="datetime64[D]").astype("datetime64[ns]")
    found = times[holiday_flags(times, Frequency.from_alias("D"), "DE") == 1]
    assert np.datetime_as_string(found, "D").tolist() == GERMAN_2024
    bavarian = times[holiday_flags(times, Frequency.from_alias("D"), "de-by") == 1]
    assert np.datetime_as_string(bavarian, "D").tolist() == sorted([*GERMAN_2024, "2024-11-01"])


def test_a_day_begins_at_the_zone_s_midnight() -> None:
    times = np.array(["2024-10-02T21:30", "2024-10-02T22:30", "2024-10-03T21:30", "2024-10-03T22:30"], "datetime64[ns]")
    flags = holiday_flags(times, Frequency.from_alias("h", "Europe/Berlin"), "DE")
    assert flags.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("zone", "place", "found"),
    [
        ("UTC", "DE", "Europe/Berlin"),
        ("UTC", "de-by", "Europe/Berlin"),
        ("UTC", "JP", "Asia/Tokyo"),
        ("UTC", "US", "UTC"),
        ("UTC", "XX", "UTC"),
        ("Europe/London", "DE", "Europe/London"),
        ("+02:00", "DE", "+02:00"),
        (None, "DE", None),
    ],
)
def test_of_times_in_utc_days_are_those_of_the_country_where_it_has_one_time(
    zone: str | None, place: str, found: str | None
) -> None:
    assert local_zone(zone, place) == found


def test_a_file_in_utc_has_the_holidays_of_local_days() -> None:
    table = pd.DataFrame({"ds": pd.date_range("2024-09-30T22:00Z", periods=24 * 8, freq="h"), "y": 1.0})
    frame = with_holidays(frame_of(table), "DE", 24)
    on = frame.frame["ds"][frame.frame[column_of("DE")] == 1]
    assert [on.min(), on.max()] == [pd.Timestamp("2024-10-02T22:00"), pd.Timestamp("2024-10-03T21:00")]
    assert "holidays" not in [note.rule for note in frame.report.notes]
    american = with_holidays(frame_of(table), "US", 24)
    (note,) = [note for note in american.report.notes if note.rule == "holidays"]
    assert "several time zones" in note.what


def test_they_are_known_for_the_past_and_for_the_horizon() -> None:
    frame = with_holidays(frame_of(days()), "DE", 40)
    assert frame.future_covariates == (column_of("DE"),)
    assert frame.future is not None
    assert len(frame.future) == 40
    known = panel_of(frame).series[0].future[:, 0]
    first = np.datetime64("2024-09-01")
    assert (first + np.flatnonzero(known == 1)).astype(str).tolist() == [*GERMAN_2024, "2025-01-01"]
    assert len(known) == 90 + 40
    assert with_holidays(frame, "DE", 40) is frame


def test_other_covariates_stay(tmp_path: Path) -> None:
    table, heat = days(), np.arange(100.0)
    ahead = pd.DataFrame({"ds": pd.date_range("2024-11-30", periods=10, freq="D"), "heat": heat[90:]})
    frame = frame_of(table.assign(heat=heat[:90]), future=ahead)
    known = panel_of(with_holidays(frame, "DE", 30)).series[0].future
    assert known[:100, 0].tolist() == heat.tolist()
    assert np.isnan(known[100:, 0]).all()
    assert known[:, 1].sum() == 3
    assert len(known) == 120


@pytest.mark.parametrize(
    ("alias", "place", "message"),
    [("MS", "DE", "at most a day"), ("2D", "DE", "at most a day"), ("D", "XX", "no holidays are known")],
)
def test_what_has_no_holidays_is_refused(alias: str, place: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        holiday_flags(np.array(["2024-01-01"], "datetime64[ns]"), Frequency.from_alias(alias), place)


def test_a_bundle_keeps_the_place(tmp_path: Path) -> None:
    fitted = Forecaster(7, "ridge", holidays="DE").fit(days())
    again = Forecaster.load(fitted.save(tmp_path / "model"))
    assert again.holidays == "DE"
    method = again.selection_.method
    assert isinstance(method, Learned)
    assert method.model.names["future"] == ["holidays DE"]
    ours, theirs = fitted.predict(), again.predict(frame=days())
    np.testing.assert_allclose(ours["yhat"].to_numpy(), theirs["yhat"].to_numpy(), rtol=1e-6)


def test_the_command_line_tells_what_it_cannot_do(tmp_path: Path) -> None:
    days().to_csv(tmp_path / "days.csv", index=False)
    arguments = ["forecast", str(tmp_path / "days.csv"), "--method", "naive", "--holidays", "XX"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 2
    assert "no holidays are known of this place" in result.stderr


def test_a_stream_knows_its_holidays(tiny: Callable[..., FitConfig], tmp_path: Path) -> None:
    frame = with_holidays(frame_of(days()), "DE", 3)
    panel = panel_of(frame)
    fitted = fit_panel(panel, 3, tiny("causal"))
    torch.manual_seed(0)
    torch.nn.init.normal_(fitted.model.get_submodule("head").weight)  # pyright: ignore[reportArgumentType]
    task = Task(3)
    forecaster = Forecaster(3, "causal", holidays="DE")
    forecaster.task_, forecaster.frequency_, forecaster.source_ = task, "D", Source.of(frame_of(days()))
    calibration = Calibration(LEVELS, 1, guessed_shifts(panel, 3, LEVELS, 1))
    forecaster.selection_ = Selection(("causal",), Learned("causal", task, fitted), calibration)
    forecaster.about_ = describe(forecaster.selection_)
    forecaster.save(tmp_path / "model")
    rows = days().to_csv(index=False, date_format="%Y-%m-%d")
    result = CliRunner().invoke(cli, ["stream", "--model", str(tmp_path)], input=rows, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    streamed = pd.read_csv(io.StringIO(result.stdout)).tail(3)
    whole = Forecaster.load(tmp_path).predict(frame=days())
    figures = ["yhat", *(f"q{level:g}" for level in LEVELS)]
    np.testing.assert_allclose(streamed[figures].to_numpy(), whole[figures].to_numpy(), rtol=1e-5)
