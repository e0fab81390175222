"""Opening hours and working weeks: found where rows keep to them, written, counted, and switched off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import Frequency, ReadOptions, SeriesFrame, read_series

ALIASES = (
    "h Mon-Fri 08:00-18:00",
    "D Mon-Sat",
    "D Mon+Wed+Fri",
    "D Tue-Sun 17:30",
    "30min Mon-Fri 09:30-16:00",
    "h Mon-Fri 08:00-18:00, Sat 09:00-12:00",
    "h Mon-Sun 09:00-12:00+14:00-17:00",
    "s Mon-Fri 09:30:05-09:30:45",
)


def always(time: pd.Timestamp) -> bool:
    return True


def weekday(time: pd.Timestamp) -> bool:
    return time.dayofweek < 5


def hours(
    start: str, end: str, keep: Callable[[pd.Timestamp], bool] = weekday, zone: str | None = None
) -> pd.DatetimeIndex:
    """Hours from 08:00 to 18:00 on the zone's clock for which `keep` holds."""
    times = pd.date_range(start, end, freq="h", tz=zone)
    times = times[(times.hour >= 8) & (times.hour <= 18)]
    return times[np.array([keep(time) for time in times])]


def read(times: pd.DatetimeIndex, tmp_path: Path, options: ReadOptions = ReadOptions()) -> SeriesFrame:  # noqa: B008
    path = tmp_path / "rows.csv"
    pd.DataFrame({"ds": times, "y": np.arange(len(times)) % 7 + 1.5}).to_csv(path, index=False)
    return read_series(path, options)


@pytest.mark.parametrize("alias", ALIASES)
def test_words_of_a_timetable_give_it_again(alias: str) -> None:
    assert Frequency.from_alias(alias).alias == alias


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ALIASES),
    st.lists(st.integers(-3000, 3000), min_size=1, max_size=20),
    st.sampled_from([None, "Europe/Berlin", "America/New_York"]),
)
def test_counting_undoes_stepping(alias: str, counts: list[int], zone: str | None) -> None:
    frequency = Frequency.from_alias(alias, zone)
    origin = frequency.floor(np.array(["2021-03-24T12:00"], "datetime64[ns]"))[0]
    times = frequency.after(origin, np.array(counts))
    np.testing.assert_array_equal(frequency.count(times, origin), counts)
    np.testing.assert_array_equal(frequency.floor(times), times)


def test_mondays_to_saturdays_are_pandas_s_custom_days() -> None:
    days = pd.offsets.CustomBusinessDay(weekmask="Mon Tue Wed Thu Fri Sat")
    expected = pd.date_range("2021-01-01", periods=200, freq=days).to_numpy().astype("datetime64[ns]")
    np.testing.assert_array_equal(
        Frequency.from_alias("D Mon-Sat").extend(pd.Timestamp("2021-01-01"), 199), expected[1:]
    )


@pytest.mark.parametrize(
    "alias",
    [
        "h Mon-Fri",
        "h Mon-Foo 08:00-18:00",
        "h Mon-Fri 8-18",
        "h Mon-Fri 25:00-26:00",
        "h Mon-Tue-Wed 08:00",
        "x Mon-Fri",
    ],
)
def test_wrong_words_are_refused_or_mean_midnight(alias: str) -> None:
    if alias == "h Mon-Fri":
        assert Frequency.from_alias(alias).alias == "D Mon-Fri"
        return
    with pytest.raises(UserError, match="no such frequency"):
        Frequency.from_alias(alias)


def test_opening_hours_are_found_and_go_on(tmp_path: Path) -> None:
    times = hours("2023-01-02 08:00", "2023-02-24 23:00")
    frame = read(times, tmp_path)
    assert frame.frequency.alias == "h Mon-Fri 08:00-18:00"
    assert frame.frequency.seasonal_periods == (11, 55)
    assert len(frame.frame) == len(times)
    ahead = frame.future_times(12)["ds"].astype(str).tolist()
    assert ahead[0] == "2023-02-27 08:00:00"
    assert ahead[10:] == ["2023-02-27 18:00:00", "2023-02-28 08:00:00"]
    (note,) = [note for note in frame.report.notes if note.rule == "open_times"]
    assert "h Mon-Fri 08:00-18:00" in note.what
    assert "--freq h" in note.what


def test_a_step_that_is_named_switches_them_off(tmp_path: Path) -> None:
    times = hours("2023-01-02 08:00", "2023-02-24 23:00")
    frame = read(times, tmp_path, ReadOptions(frequency="h"))
    assert frame.frequency.alias == "h"
    assert frame.future_times(1)["ds"].iloc[0] == times[-1] + pd.Timedelta(hours=1)
    assert not [note for note in frame.report.notes if note.rule == "open_times"]


def test_a_timetable_may_be_named(tmp_path: Path) -> None:
    times = hours("2023-01-02 08:00", "2023-01-04 18:00", always)  # too few to find it
    assert read(times, tmp_path).frequency.alias == "h"
    frame = read(times, tmp_path, ReadOptions(frequency="h Mon-Fri 08:00-18:00"))
    assert len(frame.frame) == 33
    assert frame.future_times(1)["ds"].iloc[0] == pd.Timestamp("2023-01-05 08:00")


def test_holidays_and_missing_hours_are_gaps(tmp_path: Path) -> None:
    times = hours("2023-01-02 08:00", "2023-02-24 23:00", lambda time: weekday(time) and time.day != 17)
    frame = read(times.delete([5, 100]), tmp_path)
    assert frame.frequency.alias == "h Mon-Fri 08:00-18:00"
    assert int(frame.frame["y"].isna().sum()) == 2 * 11 + 2
    (gaps,) = [found for found in frame.report.findings if found.rule == "gaps"]
    assert gaps.count == 24


def test_one_row_at_night_ends_the_pattern(tmp_path: Path) -> None:
    times = hours("2023-01-02 08:00", "2023-02-24 23:00").insert(11, pd.Timestamp("2023-01-02 21:00"))
    alias = read(times, tmp_path).frequency.alias
    assert alias == "h"


def test_a_gap_is_no_closing_time(tmp_path: Path) -> None:
    """A logger that was off for a week, or off at random, keeps to no timetable."""
    every = pd.date_range("2023-01-01", periods=24 * 28, freq="h")
    assert read(every.delete(slice(200, 368)), tmp_path).frequency.alias == "h"
    rng = np.random.default_rng(0)
    assert read(every[rng.random(len(every)) < 0.6], tmp_path).frequency.alias == "h"


def test_hours_that_are_open_every_day(tmp_path: Path) -> None:
    frame = read(hours("2023-01-02 08:00", "2023-01-10 18:00", always), tmp_path)
    assert frame.frequency.alias == "h Mon-Sun 08:00-18:00"
    assert frame.frequency.seasonal_periods == (11, 77)


def test_a_short_saturday(tmp_path: Path) -> None:
    def keep(time: pd.Timestamp) -> bool:
        return weekday(time) or (time.dayofweek == 5 and time.hour < 13)

    frame = read(hours("2023-01-02 08:00", "2023-02-26 18:00", keep), tmp_path)
    assert frame.frequency.alias == "h Mon-Fri 08:00-18:00, Sat 08:00-12:00"
    assert frame.frequency.seasonal_periods == (60,)


def test_mondays_to_saturdays(tmp_path: Path) -> None:
    days = pd.date_range("2023-01-02", "2023-04-30", freq="D")
    days = days[(days.dayofweek < 6) & (days != "2023-02-15")]
    frame = read(days, tmp_path)
    assert frame.frequency.alias == "D Mon-Sat"
    assert frame.frequency.seasonal_periods == (6, 313)
    assert frame.future_times(1)["ds"].iloc[0] == pd.Timestamp("2023-05-01")


def test_working_days_stay_b(tmp_path: Path) -> None:
    assert read(pd.bdate_range("2023-01-02", periods=60), tmp_path).frequency.alias == "B"


@pytest.mark.parametrize("keep", [[0, 2, 4], [1, 3], [5, 6]])
def test_some_days_of_the_week(keep: list[int], tmp_path: Path) -> None:
    days = pd.date_range("2023-01-01", "2023-04-30", freq="D")
    frame = read(days[days.dayofweek.isin(keep)], tmp_path)
    assert frame.frequency.seasonal_periods[0] == len(keep)
    assert set(frame.future_times(10)["ds"].dt.dayofweek) == set(keep)
    assert not frame.frame["y"].isna().any()


def test_times_of_day_that_no_step_tells(tmp_path: Path) -> None:
    days = pd.date_range("2023-01-01", periods=45, freq="D")
    times = pd.DatetimeIndex(sorted(day + pd.Timedelta(hours=hour) for day in days for hour in (7, 12, 22)))
    frame = read(times, tmp_path)
    assert len(frame.frame) == len(times)
    assert frame.frequency.seasonal_periods == (3, 21)
    assert frame.future_times(2)["ds"].dt.hour.tolist() == [7, 12]


@pytest.mark.parametrize("written", ["offsets", "zone"])
def test_opening_hours_stay_on_the_wall_when_clocks_change(written: str, tmp_path: Path) -> None:
    local = hours("2023-03-01", "2023-04-30", zone="Europe/Berlin")
    times = local if written == "offsets" else local.tz_localize(None)
    frame = read(times, tmp_path, ReadOptions(zone="Europe/Berlin"))
    assert frame.frequency.alias == "h Mon-Fri 08:00-18:00"
    assert len(frame.frame) == len(times)
    ahead = frame.future_times(300)["ds"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    assert set(ahead.dt.hour) == set(range(8, 19))
    assert set(ahead.dt.dayofweek) == set(range(5))


def test_hours_of_the_night_in_which_clocks_change_are_no_timetable(tmp_path: Path) -> None:
    """Open on Sundays but from 04:00 to 06:00: the hour from 02:00 comes twice in October and never in March."""
    times = pd.date_range("2023-05-01", "2023-08-01", freq="h", tz="Europe/Berlin")
    frame = read(times[~times.hour.isin([4, 5])], tmp_path, ReadOptions(zone="Europe/Berlin"))
    assert frame.frequency.alias == "h"


def test_a_panel_of_shops(tmp_path: Path) -> None:
    rows = []
    for shop, (start, missing) in {"a": ("2023-01-02", 3), "b": ("2023-01-18", 40), "c": ("2023-02-20", 7)}.items():
        times = hours(start, "2023-02-24 23:00")
        rows.append(pd.DataFrame({"shop": shop, "ds": times, "y": np.arange(len(times))}).drop(index=missing))
    path = tmp_path / "panel.csv"
    pd.concat(rows).to_csv(path, index=False)
    frame = read_series(path)
    assert frame.frequency.alias == "h Mon-Fri 08:00-18:00"
    assert int(frame.frame["y"].isna().sum()) == 3
    assert frame.future_times(1)["ds"].nunique() == 1


@pytest.mark.parametrize(
    ("pandas", "alias"), [("SMS", "SMS-15"), ("SME", "SME-15"), ("SMS-16", "SMS-16"), ("SME-10", "SME-10")]
)
def test_halves_of_months(pandas: str, alias: str, tmp_path: Path) -> None:
    times = pd.date_range("2021-01-01", periods=80, freq=pandas)
    frame = read(times[:40].delete(7), tmp_path)
    assert frame.frequency.alias == alias
    assert frame.frequency.seasonal_periods == (24,)
    assert int(frame.frame["y"].isna().sum()) == 1
    np.testing.assert_array_equal(frame.future_times(40)["ds"].to_numpy(), times[40:].to_numpy())
    named = Frequency.from_alias(alias)
    np.testing.assert_array_equal(named.count(times.to_numpy(), times[0]), np.arange(80))
    np.testing.assert_array_equal(named.floor((times + pd.Timedelta(days=5)).to_numpy()), times.to_numpy())


def test_fortnights_are_no_halves_of_months(tmp_path: Path) -> None:
    assert read(pd.date_range("2021-01-01", periods=40, freq="14D"), tmp_path).frequency.alias == "2W-FRI"
