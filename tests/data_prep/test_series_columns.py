"""Which columns are times and which name series, where names or cells could mislead."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import ReadOptions, SeriesFrame, read_series
from mamba_data_prep.series.clean import clean_table


def _read(folder: Path, text: str, **options: object) -> SeriesFrame:
    path = folder / "table.csv"
    path.write_text(text)
    return read_series(path, ReadOptions(**options))  # pyright: ignore[reportArgumentType]


def _two_in_turn(name: str, names: tuple[str, str]) -> str:
    months = pd.date_range("2015-01-01", periods=48, freq="MS").strftime("%Y-%m-%d")
    rows = [f"{names[place // 24]},{month},{place}" for place, month in enumerate(months)]
    return "\n".join((f"{name},ds,y", *rows, ""))


@pytest.mark.parametrize("name", ["id", "store", "sensor_id", "unique_id"])
@pytest.mark.parametrize("names", [("A", "B"), ("1", "2")])
def test_series_that_do_not_overlap_are_a_panel(tmp_path: Path, name: str, names: tuple[str, str]) -> None:
    series = _read(tmp_path, _two_in_turn(name, names))
    assert (series.ids, series.id_columns, series.past_covariates) == (list(names), (name,), ())
    assert series.future_times(1)["ds"].astype(str).tolist() == ["2017-01-01", "2019-01-01"]


def test_a_state_that_comes_back_names_no_series(tmp_path: Path) -> None:
    days = pd.date_range("2020-01-01", periods=40).strftime("%Y-%m-%d")
    rows = [f"{day},{'on' if place // 5 % 2 else 'off'},{place}" for place, day in enumerate(days)]
    series = _read(tmp_path, "\n".join(("ds,state,y", *rows, "")))
    assert series.ids == ["y"]


QUARTERS = "Quarter,sales\n" + "".join(f"{q}-{year},{year - 2000 + q}\n" for year in (2015, 2016) for q in (1, 2, 3, 4))


@pytest.mark.parametrize("told", [{}, {"time_format": "%q-%Y"}, {"time": ("Quarter",)}])
def test_numbers_of_quarters_are_no_months(tmp_path: Path, told: dict[str, object]) -> None:
    series = _read(tmp_path, QUARTERS, **told)
    assert (series.frequency.alias, len(series.frame)) == ("QS-JAN", 8)
    assert series.format_times(series.future_times(2)["ds"]) == ["1-2017", "2-2017"]


def test_a_format_is_obeyed_whatever_the_column(tmp_path: Path) -> None:
    text = "when,v\n" + "".join(f"{year}_{q},{q}\n" for year in (2015, 2016) for q in (1, 2, 3, 4))
    assert _read(tmp_path, text, time_format="%Y_%q").frequency.alias == "QS-JAN"
    with pytest.raises(UserError, match="no column holds times in this format") as caught:
        _read(tmp_path, text, time_format="%Y/%q")
    assert caught.value.found == "%Y/%q"


REMARK = "".join(f'"{1 + n // 12}-{1 + n % 12:02}",{200 + n}\n' for n in range(36)) + "\nSales over three years\n"


@pytest.mark.parametrize(
    ("write", "ahead"),
    [
        ("Q{q} FY{y}", "Q1 FY24"),
        ("FY20{y} Q{q}", "FY2024 Q1"),
        ("FY20{y}-Q{q}", "FY2024-Q1"),
        ("FY {y} Q{q}", "FY 24 Q1"),
        ("FY20{y}Q{q}", "FY2024Q1"),
    ],
)
def test_quarters_of_fiscal_years_are_quarters(tmp_path: Path, write: str, ahead: str) -> None:
    rows = [f"{write.format(q=n % 4 + 1, y=18 + n // 4)},{100 + n}" for n in range(24)]
    series = _read(tmp_path, "\n".join(("period,sales", *rows, "")))
    assert series.frequency.alias == "QS-JAN"
    assert series.format_times(series.future_times(1)["ds"]) == [ahead]


def test_months_in_another_language_are_told_to_be_translated(tmp_path: Path) -> None:
    names = ("ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sep", "oct", "nov", "dic")
    rows = [f"{names[n % 12]}-{2018 + n // 12},{n}" for n in range(48)]
    with pytest.raises(UserError) as caught:
        _read(tmp_path, "\n".join(("mes,ventas", *rows, "")))
    assert "if ene is one, translate it" in str(caught.value.fix)
    with pytest.raises(UserError) as caught:
        _read(tmp_path, "month,sales\nJan-2018,1\nFeb-2018,2\nno month,3\nApr-2018,4\nMay-2018,4\nJun-2018,4\n")
    assert caught.value.fix == "correct or delete that line"


def test_a_remark_at_the_end_is_no_row(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as such"):
        _read(tmp_path, '"Month","Sales"\n' + REMARK)
    counted = _read(tmp_path, '"Month","Sales"\n' + REMARK, ignore=("Month",))
    assert counted.frame["y"].tolist() == [200.0 + n for n in range(36)]
    total = _read(tmp_path, "row,v\n" + "".join(f"{n * n},{n % 5}\n" for n in range(9)) + "Total,16\n", target=("v",))
    assert len(total.frame) == 9


@pytest.mark.parametrize(
    ("write", "first"),
    [
        ("{a:%d.%m.%Y %H:%M} - {b:%d.%m.%Y %H:%M}", "14.01.2021 00:00"),
        ("{a:%Y-%m-%d %H:%M} - {b:%H:%M}", "2021-01-14 00:00"),
        ("{a:%Y-%m-%dT%H:%M}/{b:%Y-%m-%dT%H:%M}", "2021-01-14T00:00"),
        ("{a:%Y-%m-%d %H:%M} to {b:%Y-%m-%d %H:%M}", "2021-01-14 00:00"),
    ],
)
def test_intervals_are_read_as_their_beginnings(tmp_path: Path, write: str, first: str) -> None:
    hours = pd.date_range("2021-01-12", periods=48, freq="h")
    rows = [f"{write.format(a=hour, b=hour + pd.Timedelta('1h'))},{n}" for n, hour in enumerate(hours)]
    series = _read(tmp_path, "\n".join(("MTU,load", *rows, "")))
    assert (series.frequency.alias, len(series.frame)) == ("h", 48)
    assert series.format_times(series.future_times(1)["ds"]) == [first]
    assert "time_intervals" in [finding.rule for finding in series.report.findings]


def test_times_that_are_unique_go_before_dates_that_repeat(tmp_path: Path) -> None:
    hours = pd.date_range("2021-01-01", periods=72, freq="h")
    rows = [f"{hour:%Y-%m-%d},{hour:%Y-%m-%d %H:%M},{n}" for n, hour in enumerate(hours)]
    series = _read(tmp_path, "\n".join(("date,reading taken,v", *rows, "")))
    assert (series.time_column, series.frequency.alias) == ("reading taken", "h")


def test_rows_that_contradict_each_other_are_told_with_their_time_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in column 'date'"):
        _read(tmp_path, "date,v\n2020-01-01,1\n2020-01-01,2\n2020-01-02,3\n2020-01-03,4\n")


def test_a_wide_table_s_series_goes_on_from_its_own_end(tmp_path: Path) -> None:
    """As in a long table; a single missing value at the end is a gap to be filled, not an end."""
    rows = [f"{day:%Y-%m-%d},{n},{n if n < 30 else ''},{n if n < 39 else ''}" for n, day in enumerate(_days(40))]
    path = tmp_path / "wide.csv"
    path.write_text("date,a,b,c\n" + "\n".join(rows) + "\n")
    series = read_series(path)
    sizes = series.frame.groupby("unique_id", sort=False).size()
    assert sizes.to_dict() == {"a": 40, "b": 30, "c": 40}
    ahead = series.future_times(1).set_index("unique_id")["ds"].dt.strftime("%Y-%m-%d").to_dict()
    assert ahead == {"a": "2024-02-10", "b": "2024-01-31", "c": "2024-02-10"}
    (note,) = [note for note in series.report.notes if note.rule == "ended_series"]
    assert "b (the last 10 rows)" in note.what
    clean = clean_table(series)
    assert clean["a"].tolist() == list(range(40))
    assert clean["b"].isna().tolist() == [False] * 30 + [True] * 10


def test_the_first_column_of_a_wide_table_may_be_the_one_that_ended(tmp_path: Path) -> None:
    rows = [f"{day:%Y-%m-%d},{n if n < 30 else ''},{n}" for n, day in enumerate(_days(40))]
    path = tmp_path / "wide.csv"
    path.write_text("date,a,b\n" + "\n".join(rows) + "\n")
    clean = clean_table(read_series(path))
    assert clean["date"].iloc[-1] == "2024-02-09"
    assert clean["b"].tolist() == list(range(40))
    assert clean["a"].isna().sum() == 10


def _days(count: int) -> pd.DatetimeIndex:
    return pd.date_range("2024-01-01", periods=count, freq="D")
