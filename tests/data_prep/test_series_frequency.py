"""Steps of series: counting undoes stepping, and days stay days when clocks change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import Frequency, ReadOptions, read_series

STARTS = {
    "h": "2020-01-01 03:00",
    "15min": "2020-01-01 00:15",
    "D": "2020-02-27",
    "W-SUN": "2020-01-05",
    "B": "2020-01-03",
    "MS": "2020-01-01",
    "ME": "2020-01-31",
    "BME": "2020-01-31",
    "BMS": "2020-01-01",
    "QS-JAN": "2020-01-01",
    "QE-DEC": "2019-12-31",
    "YS-JAN": "2020-01-01",
    "2W-WED": "2020-01-01",
}


@pytest.mark.parametrize("alias", STARTS)
def test_steps_agree_with_pandas(alias: str) -> None:
    frequency = Frequency.from_alias(alias)
    expected = pd.date_range(STARTS[alias], periods=41, freq=alias).to_numpy()
    assert frequency.alias == alias
    np.testing.assert_array_equal(
        frequency.extend(pd.Timestamp(STARTS[alias]), 40), expected[1:].astype("datetime64[ns]")
    )


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(STARTS)), st.lists(st.integers(-200, 200), min_size=1, max_size=20))
def test_counting_undoes_stepping(alias: str, counts: list[int]) -> None:
    frequency, origin = Frequency.from_alias(alias), pd.Timestamp(STARTS[alias])
    times = frequency.after(origin, np.array(counts))
    np.testing.assert_array_equal(frequency.count(times, origin), counts)


def test_midnight_stays_midnight_when_clocks_change() -> None:
    frequency = Frequency("day", 1, "Europe/Berlin")
    utc = frequency.extend(pd.Timestamp("2022-03-25 23:00"), 3)
    assert [str(time)[:16] for time in utc] == ["2022-03-26T23:00", "2022-03-27T22:00", "2022-03-28T22:00"]


def test_hours_stay_hours_when_clocks_change() -> None:
    frequency = Frequency.from_alias("h", "Europe/Berlin")
    utc = frequency.extend(pd.Timestamp("2022-03-27 00:00"), 2)
    assert [str(time)[:16] for time in utc] == ["2022-03-27T01:00", "2022-03-27T02:00"]


def test_seasons() -> None:
    assert Frequency.from_alias("h").seasonal_periods == (24, 168)
    assert Frequency.from_alias("MS").seasonal_periods == (12,)
    assert Frequency.from_alias("QS").seasonal_periods == (4,)
    assert Frequency("index").seasonal_periods == ()


def test_an_unknown_alias_is_refused() -> None:
    with pytest.raises(UserError, match="no such frequency"):
        Frequency.from_alias("fortnight")


def test_series_of_different_lengths_and_starts_keep_their_own_grids(tmp_path) -> None:
    rows = [("a", h, h) for h in range(5)] + [("b", h, -h) for h in (7, 8, 11)]
    path = tmp_path / "panel.csv"
    path.write_text("unique_id,ds,y\n" + "".join(f"{k},2020-01-01 {h:02d}:00,{v}\n" for k, h, v in rows))
    read = read_series(path)
    sizes = read.frame.groupby("unique_id", sort=False).size()
    assert sizes.to_dict() == {"a": 5, "b": 5}
    assert read.frame["y"].isna().sum() == 2


def test_options_survive_yaml(tmp_path) -> None:
    options = ReadOptions(time=("day",), missing=("-999",), dayfirst=True, duplicates="mean")
    options.save(tmp_path / "rules.yaml")
    assert ReadOptions.load(tmp_path / "rules.yaml") == options


def test_an_unknown_rule_is_refused(tmp_path) -> None:
    (tmp_path / "rules.yaml").write_text("delimeter: ;\n")
    with pytest.raises(UserError, match=r"no such reading option[\s\S]*did you mean delimiter"):
        ReadOptions.load(tmp_path / "rules.yaml")
    with pytest.raises(UserError, match="no such reading option"):
        ReadOptions().having(["colour=red"])
    assert ReadOptions().having(["duplicates=mean", "delimiter=tab", "header=2"]) == ReadOptions(
        delimiter="\t", header=2, duplicates="mean"
    )


@pytest.mark.parametrize("alias", ["D", "h", "W-MON", "7min"])
def test_steps_are_counted_over_the_whole_calendar(alias: str) -> None:
    frequency = Frequency.from_alias(alias)
    first = np.datetime64("1900-01-01T00:00", "ns")
    counts = np.array([0, 1, 2, 10_000])
    last = int((np.datetime64("2190-01-01", "ns") - first) // (frequency.after(first, np.array([1]))[0] - first))
    counts = np.append(counts, [last - 1, last])
    times = frequency.after(first, counts)
    assert frequency.count(times, first).tolist() == counts.tolist()
    assert frequency.count(times + np.timedelta64(1, "s"), first).tolist() == counts.tolist()
    assert frequency.count(times[:1], times[-1]).tolist() == [-last]


@pytest.mark.parametrize(("last", "steps"), [("2224-01-05", "73,053"), ("2250-01-05", "too many")])
def test_a_wrong_year_is_refused_with_a_longer_step_than_the_own(last: str, steps: str, tmp_path: Path) -> None:
    first = 1700 if steps == "too many" else 2024
    path = tmp_path / "a.csv"
    path.write_text("ds,y\n" + "".join(f"{first}-01-{day:02d},{day}\n" for day in range(1, 29)) + f"{last},1\n")
    with pytest.raises(UserError, match=f"a grid with step D has {steps} steps for 29 rows") as caught:
        read_series(path)
    assert caught.value.path == path
    assert str(caught.value.fix).endswith("--freq MS")
