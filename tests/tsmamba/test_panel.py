"""Panels hold what tables say, on regular grids, and their windows never read what they must not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.times.frequency import DAY, Frequency
from tsmamba.panel.panel import Panel, calendar_features, make_series
from tsmamba.panel.scaling import PanelScaler
from tsmamba.panel.tables import frame_of, panel_of
from tsmamba.panel.windows import Origins, Windows

HOURLY = Frequency("duration", DAY // 24)


def table(lengths: dict[str, int]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": pd.date_range("2024-01-01", periods=length, freq="h").to_numpy("datetime64[ns]"),
                "y": np.arange(length) + 10.0 * number,
                "wind": np.arange(length) * 2.0,
            }
        )
        for number, (name, length) in enumerate(lengths.items())
    ]
    return pd.concat(parts, ignore_index=True)


def ragged(lengths: Sequence[int]) -> Panel:
    """Hourly series s0, s1, ... of these lengths, from the same first hour on."""
    first = np.datetime64("2024-01-01", "ns")
    series = [
        make_series(f"s{number}", first + np.arange(length) * np.timedelta64(1, "h"), np.arange(length) + 10.0 * number)
        for number, length in enumerate(lengths)
    ]
    return Panel(tuple(series), HOURLY)


def test_a_table_becomes_series_whose_gaps_are_missing_values() -> None:
    rows = table({"a": 30, "b": 28}).drop(index=[2, 3]).sample(frac=1, random_state=0, ignore_index=True)
    panel = panel_of(frame_of(rows.sort_values("unique_id", ignore_index=True)))
    assert panel.ids == ["a", "b"]
    assert panel.lengths == [30, 28]
    assert panel.past_names == ("wind",)
    assert not panel.aligned
    np.testing.assert_array_equal(panel.series[0].values[:6], [0, 1, np.nan, np.nan, 4, 5])
    np.testing.assert_array_equal(panel.series[0].past[:6, 0], [0, 2, np.nan, np.nan, 8, 10])
    expected = np.array(["2024-01-02T04:00", "2024-01-02T05:00"], "datetime64[ns]")
    np.testing.assert_array_equal(panel.future_times(2)[1], expected)


def test_rows_ahead_extend_the_covariates_that_are_known_and_no_others() -> None:
    ahead = table({"a": 38}).drop(columns="y").iloc[30:]
    panel = panel_of(frame_of(table({"a": 30}), future=ahead))
    np.testing.assert_array_equal(panel.series[0].future[:, 0], np.arange(38) * 2.0)
    assert len(panel.series[0]) == 30
    assert len(panel.before(2).series[0].future) == 38
    assert (panel.known_ahead(6), panel.known_ahead(20)) == (6, 8)


def test_static_texts_become_columns() -> None:
    static = pd.DataFrame({"unique_id": ["b", "a"], "size": [2, 1], "kind": ["shop", "web"]})
    panel = panel_of(frame_of(table({"a": 30, "b": 30}), static=static))
    assert panel.static_names == ("size", "kind_shop", "kind_web")
    np.testing.assert_array_equal([one.static for one in panel.series], [[1, 0, 1], [2, 1, 0]])


def test_the_calendar_is_read_on_the_wall_clock() -> None:
    times = pd.date_range("2024-06-30 22:00", periods=2, freq="h").to_numpy("datetime64[ns]")
    berlin = Panel.wide(np.zeros((2, 1)), ["a"], times, Frequency("duration", DAY // 24, zone="Europe/Berlin"))
    np.testing.assert_allclose(berlin.calendar(0)[0, :3], [-0.5, -0.5, -0.5])
    assert calendar_features(np.arange(3)).shape == (3, 0)


def test_calendar_features_are_parts_of_their_cycles() -> None:
    wall = np.array(["2024-02-29T13:45:30", "2023-12-31T23:00:00", "2024-01-01T00:00:00"], "datetime64[ns]")
    thursday, sunday, monday = calendar_features(wall)
    seconds = 13 * 3600 + 45 * 60 + 30
    np.testing.assert_allclose(thursday, [seconds / 82_800 - 0.5, 3 / 6 - 0.5, 28 / 30 - 0.5, 59 / 365 - 0.5])
    np.testing.assert_allclose(sunday, [0.5, 0.5, 0.5, 364 / 365 - 0.5])
    np.testing.assert_allclose(monday, [-0.5] * 4)


def test_the_calendar_goes_on_beyond_the_rows() -> None:
    panel, longer = ragged([0, 5]), ragged([0, 8])
    np.testing.assert_array_equal(panel.calendar(1, 3), longer.calendar(1))
    assert panel.calendar(1).shape == (5, 4)
    assert panel.calendar(0, 3).shape == (0, 4)  # nothing says where it would go on


def test_an_earlier_panel_lacks_the_latest_rows_and_keeps_what_is_known_ahead() -> None:
    rows = table({"a": 30, "b": 28})
    panel = panel_of(
        frame_of(rows, future=table({"a": 33, "b": 31}).drop(columns="y").query("ds > '2024-01-02T03:00'"))
    )
    cut = panel.before(5)
    for one, whole in zip(cut.series, panel.series, strict=True):
        np.testing.assert_array_equal(one.times, whole.times[:-5])
        np.testing.assert_array_equal(one.values, whole.values[:-5])
        np.testing.assert_array_equal(one.future, whole.future)
    assert cut.lengths == [25, 23]
    assert panel.before(29).lengths == [1, 0]
    past = panel_of(frame_of(rows))
    np.testing.assert_array_equal(past.before(5).series[1].past, past.series[1].past[:23])


def test_series_are_selected_by_name_in_the_order_asked_for() -> None:
    panel = ragged([3, 4, 5])
    assert panel.select(["s2", "s0"]).lengths == [5, 3]
    assert panel.select(["s2", "s0"]).frequency == HOURLY


def test_series_are_aligned_where_all_have_the_first_one_s_times() -> None:
    assert ragged([3, 3, 3]).aligned
    assert ragged([3]).aligned
    assert not ragged([3, 4, 3]).aligned
    assert not ragged([3, 3, 4]).aligned
    moved = make_series("late", ragged([4]).series[0].times[1:], np.zeros(3))
    assert not replace(ragged([3, 3]), series=(*ragged([3]).series, moved)).aligned


def test_the_season_is_the_shortest_that_the_frequency_suggests() -> None:
    assert ragged([3]).season == 24
    assert Panel.wide(np.zeros((3, 1))).season == 1


def test_a_panel_with_other_covariates_than_the_fit_s_is_refused() -> None:
    panel = replace(ragged([3]), past_names=("wind",), future_names=("sun", "holiday"))
    panel.check_covariates({"past": ["wind"], "future": ("sun", "holiday"), "static": []})
    others = {"past": ([], "none", "wind"), "future": (["holiday", "sun"], "holiday, sun", "sun, holiday"),
              "static": (["size"], "size", "none")}  # fmt: skip
    for kind, (names, accepted, found) in others.items():
        with pytest.raises(UserError, match=f"other {kind} covariates") as caught:
            panel.check_covariates({kind: names})
        assert (caught.value.accepted, caught.value.found) == (accepted, found)


def test_channels_have_a_name_each_and_no_covariates() -> None:
    panel = Panel.wide(np.zeros((4, 2)))
    assert panel.ids == ["0", "1"]
    assert [(one.past.shape, one.future.shape, one.static.shape) for one in panel.series] == [
        ((4, 0), (4, 0), (0,))
    ] * 2
    with pytest.raises(ValueError, match="longer than"):
        Panel.wide(np.zeros((4, 2)), ["a"])


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    lookback=st.integers(1, 8),
    horizon=st.integers(1, 5),
    missing=st.integers(0, 5),
)
def test_windows_hold_exactly_the_rows_around_their_origin(
    lengths: list[int], lookback: int, horizon: int, missing: int
) -> None:
    rng = np.random.default_rng(missing)
    panel = ragged(lengths)
    for _ in range(missing):
        values = panel.series[rng.integers(len(lengths))].values
        values[rng.integers(len(values))] = np.nan
    scaler = PanelScaler.fit(panel, [0] * len(lengths))
    windows = Windows(panel, scaler, lookback, horizon)
    origins = windows.origins([0] * len(lengths), lengths)
    batch = windows.batch(origins)
    assert len(origins) == sum(lengths) + len(lengths)
    for place, (number, row) in enumerate(zip(origins.group, origins.row, strict=True)):
        scaled = scaler.values(panel.series[number])
        padded = np.concatenate([np.full(lookback, np.nan), scaled, np.full(horizon, np.nan)])
        expected = padded[row : row + lookback + horizon].astype(np.float32)
        found = np.concatenate([batch.x[place, 0].numpy(), batch.y[place, 0].numpy()])
        seen = np.concatenate([batch.seen[place, 0].numpy(), batch.known[place, 0].numpy()])
        np.testing.assert_array_equal(seen, np.isfinite(expected))
        np.testing.assert_array_equal(found, np.nan_to_num(expected))
        assert batch.who[place, 0] == number


def test_channels_that_are_read_together_share_their_times() -> None:
    values = np.arange(12.0).reshape(6, 2)
    panel = Panel.wide(values)
    scaler = PanelScaler.fit(panel, [0, 0])
    batch = Windows(panel, scaler, 3, 2, together=True).batch(Origins(np.array([0]), np.array([4])))
    assert batch.x.shape == (1, 2, 3)
    np.testing.assert_allclose(batch.x[0, 1], scaler.values(panel.series[1])[1:4], rtol=1e-6)
    unequal = ragged([5, 4])
    with pytest.raises(ValueError, match="same times"):
        Windows(unequal, PanelScaler.fit(unequal, [0, 0]), 3, 2, together=True)


def test_scales_know_the_training_rows_only_and_survive_json() -> None:
    values = np.random.default_rng(0).normal(5, 3, (50, 2))
    panel, held_back = Panel.wide(values), [20, 20]
    changed = values.copy()
    changed[30:] = 1e6
    scaler = PanelScaler.fit(panel, held_back)
    assert PanelScaler.fit(Panel.wide(changed), held_back) == scaler
    assert PanelScaler.from_dict(scaler.to_dict()) == scaler
    np.testing.assert_allclose(scaler.values(panel.series[0])[:30].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(scaler.values(panel.series[0])[:30].std(), 1)


@pytest.mark.parametrize("level", [0.0, 5.0, 1e9, -3e-7])
def test_a_constant_series_keeps_its_unit(level: float) -> None:
    panel = Panel.wide(np.full((10, 1), level))
    np.testing.assert_array_equal(PanelScaler.fit(panel, [2]).values(panel.series[0]), np.zeros(10))


@pytest.mark.parametrize(
    "index",
    [[*range(15), *range(15)], [n * 3 + n % 2 for n in range(30)]],
    ids=["concatenated", "filtered"],
)
def test_an_index_that_only_numbers_rows_is_no_covariate(index: list[int]) -> None:
    plain = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=30), "y": np.arange(30.0) ** 2})
    frame = frame_of(plain.set_axis(index, axis=0))
    assert (frame.ids, frame.past_covariates) == (["y"], ())


def test_an_index_that_is_a_column_too_is_read_once() -> None:
    plain = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=30), "y": np.arange(30.0) ** 2})
    assert frame_of(plain.set_index("ds", drop=False)).time_column == "ds"
    years = pd.DataFrame({"sales": np.arange(30.0) ** 2}, index=range(1990, 2020))
    assert frame_of(years.sort_index()).ids == ["sales"]


def test_rows_ahead_are_counted_wherever_they_lie() -> None:
    late = table({"a": 40}).drop(columns="y").iloc[34:]
    assert panel_of(frame_of(table({"a": 30}), future=late)).known_ahead(10) == 6
    gap = table({"a": 40}).drop(columns="y").iloc[[30, 31, 36, 37]]
    assert panel_of(frame_of(table({"a": 30}), future=gap)).known_ahead(10) == 4


def test_a_row_ahead_counts_where_one_covariate_is_known() -> None:
    future = np.full((5, 2), np.nan)
    future[3, 0] = future[4, 1] = 1.0
    one = replace(make_series("a", np.arange(2), np.zeros(2)), future=future)
    panel = Panel((one,), future_names=("wind", "sun"))
    assert (panel.known_ahead(3), panel.known_ahead(2)) == (2, 1)


def test_a_row_ahead_counts_where_it_is_known_of_every_series() -> None:
    one, other = (replace(make_series("a", np.arange(2), np.zeros(2)), future=np.zeros((2 + n, 1))) for n in (3, 1))
    assert Panel((one, other), future_names=("wind",)).known_ahead(5) == 1
    assert Panel(()).known_ahead(5) == 5  # of no series nothing is unknown
