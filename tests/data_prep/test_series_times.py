"""Times in every spelling that is read: the right instants, the right step, and the same text when they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.series import TimeFormat, read_series
from mamba_data_prep.series.times.detect import detect_times

FORMATS = {
    "slashes_unpadded": ("1990/1/1 0:00,1990/1/1 1:00,1990/1/1 2:00", "h", "1990-01-01"),
    "month": ("1949-01,1949-02,1949-03", "MS", "1949-01-01"),
    "quarter": ("1956 Q1,1956 Q2,1956 Q3", "QS-JAN", "1956-01-01"),
    "quarter_first": ("Q1-1956,Q2-1956,Q3-1956", "QS-JAN", "1956-01-01"),
    "quarter_small": ("1956q1,1956q2,1956q3", "QS-JAN", "1956-01-01"),
    "quarter_before": ("1Q1956,2Q1956,3Q1956", "QS-JAN", "1956-01-01"),
    "quarter_short": ("4Q19,1Q20,2Q20", "QS-JAN", "2019-10-01"),
    "month_in_full": ("May 2020,June 2020,July 2020", "MS", "2020-05-01"),
    "month_in_capitals": ("01-JAN-20,02-JAN-20,03-JAN-20", "D", "2020-01-01"),
    "weekday_in_full": ('"Friday, January 31, 2020","Saturday, February 1, 2020"', "D", "2020-01-31"),
    "small_half_days": ("1/31/2020 10:00 pm,1/31/2020 11:00 pm,2/1/2020 12:00 am", "h", "2020-01-31 22:00"),
    "seven_digits": ("2020-01-01 00:00:00.0000000,2020-01-01 01:00:00.0000000", "h", "2020-01-01"),
    "word_utc": ("2020-01-01 00:00 UTC,2020-01-01 01:00 UTC,2020-01-01 02:00 UTC", "h", "2020-01-01"),
    "offset_of_hours": ("2020-01-01 00:00:00+00,2020-01-01 01:00:00+00", "h", "2020-01-01"),
    "offset_of_half_hours": ("2020-01-01 05:30+05:30,2020-01-01 06:30+05:30", "h", "2020-01-01"),
    "week": ("1991 W06,1991 W07,1991 W08", "W-MON", "1991-02-04"),
    "iso_week": ("2020-W53,2021-W01,2021-W02", "W-MON", "2020-12-28"),
    "year": ("1990,1991,1992", "YS-JAN", "1990-01-01"),
    "compact": ("20200101,20200102,20200103", "D", "2020-01-01"),
    "compact_minutes": ("202001010000,202001010015,202001010030", "15min", "2020-01-01"),
    "named_months": ("01-Jan-2020,02-Jan-2020,03-Jan-2020", "D", "2020-01-01"),
    "american_named": ('"Jan 1, 2020","Jan 2, 2020","Jan 3, 2020"', "D", "2020-01-01"),
    "named_month_year": ("Nov-99,Dec-99,Jan-00", "MS", "1999-11-01"),
    "month_ends": ("2020-01-31,2020-02-29,2020-03-31", "ME", "2020-01-31"),
    "quarter_ends": ("2019-12-31,2020-03-31,2020-06-30", "QE-DEC", "2019-12-31"),
    "day_first": ("30/12/2019,31/12/2019,1/1/2020", "D", "2019-12-30"),
    "month_first": ("12/30/2019,12/31/2019,1/1/2020", "D", "2019-12-30"),
    "german": ("01.02.2020,02.02.2020,03.02.2020", "D", "2020-02-01"),
    "twelve_hours": ("1/31/2020 10:00 PM,1/31/2020 11:00 PM,2/1/2020 12:00 AM", "h", "2020-01-31 22:00"),
    "epoch_seconds": ("1577836800,1577840400,1577844000", "h", "2020-01-01"),
    "epoch_milliseconds": ("1577836800000,1577836860000,1577836920000", "min", "2020-01-01"),
    "midnight_without_clock": ("2020-01-01,2020-01-01 01:00:00,2020-01-01 02:00:00", "h", "2020-01-01"),
    "fractions": ("2020-01-01 00:00:00.000,2020-01-01 00:00:00.500,2020-01-01 00:00:01.000", "500ms", "2020-01-01"),
    "ordinal": ("2020-031,2020-032,2020-033", "D", "2020-01-31"),
    "weekdays": ("2020-01-02,2020-01-03,2020-01-06,2020-01-07,2020-01-08", "B", "2020-01-02"),
    "every_ten": ("10,20,30", "int", 10),
}


def cells_of(name: str) -> list[str]:
    text = FORMATS[name][0]
    return [cell.strip('"') for cell in (text.split('","') if '"' in text else text.split(","))]


def table_of(name: str, folder: Path) -> Path:
    path = folder / "table.csv"
    path.write_text("time,y\n" + "".join(f'"{cell}",{i}\n' for i, cell in enumerate(cells_of(name))))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_times_and_their_step(name: str, tmp_path: Path) -> None:
    read = read_series(table_of(name, tmp_path))
    _, frequency, first = FORMATS[name]
    assert read.frequency.alias == frequency
    assert read.frame["ds"].iloc[0] == (first if isinstance(first, int) else pd.Timestamp(first))
    assert read.frame["y"].tolist() == list(range(len(cells_of(name))))
    assert read.report.findings == []


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "midnight_without_clock"])
def test_times_are_written_as_the_source_writes_them(name: str, tmp_path: Path) -> None:
    read = read_series(table_of(name, tmp_path))
    written = read.format_times(read.frame["ds"])
    assert written == cells_of(name)
    assert len(read.format_times(read.future_times(3)["ds"])) == 3


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.datetimes(pd.Timestamp("1700-01-01"), pd.Timestamp("2200-01-01")), min_size=1, max_size=20),
    st.sampled_from(
        [
            "%Y-%m-%d %H:%M:%S.%f",
            "%d.%m.%Y %H:%M:%S.%f",
            "%-m/%-d/%Y %-I:%M:%S.%f %p",
            "%Y%m%dT%H%M%S.%f",
            "%Y-%j %H:%M:%S.%f",
        ]
    ),
)
def test_reading_undoes_writing(times: list, pattern: str) -> None:
    values = np.array(times, dtype="datetime64[ns]")
    format = TimeFormat(pattern)
    read = format.parse(pa.array(format.format(values)))
    assert read.ok.all()
    np.testing.assert_array_equal(read.values.astype("datetime64[ns]"), values)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_time_or_none(text: str) -> None:
    detected = detect_times(pa.array([text.strip()]), integers=True)
    assert detected is None or 0 <= detected.share <= 1


def test_days_that_no_calendar_has_are_no_times() -> None:
    cells = pa.array(["2020-02-29", "2021-02-29", "2020-13-01", "2020-04-31", "2020-00-10"])
    assert TimeFormat("%Y-%m-%d").parse(cells).ok.tolist() == [True, False, False, False, False]
    assert TimeFormat("%G-W%V").parse(pa.array(["2020-W53", "2021-W53"])).ok.tolist() == [True, False]


@pytest.mark.parametrize(
    ("days", "step"),
    [("2022-03-31,2022-04-29,2022-05-31,2022-06-30", "BME"), ("2022-04-01,2022-05-02,2022-06-01,2022-07-01", "BMS")],
)
def test_business_days_at_the_edges_of_months_are_months(days: str, step: str, tmp_path: Path) -> None:
    (path := tmp_path / "table.csv").write_text("date,y\n" + "".join(f"{day},1.5\n" for day in days.split(",")))
    read = read_series(path)
    assert (read.frequency.alias, len(read.frame)) == (step, 4)
    assert read.report.findings == []
    expected = pd.date_range(days.split(",")[-1], periods=8, freq=step)[1:]
    assert read.format_times(read.future_times(7)["ds"]) == expected.strftime("%Y-%m-%d").tolist()
