"""What the baselines read of a history, what they are asked, and what of their answers is believed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tsmamba.methods import baselines

NAN = float("nan")
ROWS = np.arange(120.0)
AIRLINE = (100 + 2 * ROWS) * (1 + 0.3 * np.sin(2 * np.pi * ROWS / 12))


def test_two_observed_rows_make_a_line() -> None:
    assert baselines.drift(np.array([NAN, 1.0, NAN, 5.0]), 2).tolist() == [7, 9]
    assert baselines.drift(np.array([NAN, 5.0]), 2).tolist() == [5, 5]
    assert baselines.drift(np.array([NAN, 1.0, 2.0, 7.0, NAN]), 2).tolist() == [13, 16]  # 3 a row, the last one missing


def test_each_place_of_a_season_goes_on_with_its_own_last_value() -> None:
    assert baselines.seasonal_naive(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 4, 3).tolist() == [3, 4, 5, 3]
    assert baselines.seasonal_naive(np.array([1.0, NAN, 3.0, 4.0, NAN, NAN]), 4, 3).tolist() == [4, 4, 3, 4]
    assert np.isnan(baselines.seasonal_naive(np.full(5, NAN), 2, 3)).all()
    assert baselines.seasonal_naive(np.array([1.0, 2.0, NAN]), 2, 1).tolist() == [2, 2]


def test_the_latest_rows_are_read_ten_seasons_or_400_whichever_is_more() -> None:
    long = np.random.default_rng(0).normal(size=1000)
    for season, rows in ((1, 400), (40, 400), (41, 410), (200, 1000)):
        np.testing.assert_array_equal(baselines._prepared(long, season), long[-rows:])
    ended = long.copy()
    ended[500:] = NAN
    assert len(baselines._prepared(ended, 1)) == 0  # nothing of the latest was observed
    assert baselines.ets(ended, 2, 1).tolist() == baselines.drift(ended, 2).tolist()


def test_a_gap_whose_neighbours_a_season_away_are_missing_too_is_bridged_by_those_two_away() -> None:
    history = np.tile([0.0, 100.0], 6) + np.arange(12.0) ** 2
    holed = history.copy()
    holed[[3, 5, 7]] = NAN
    found = baselines._prepared(holed, 2)
    assert found[5] == (history[1] + history[9]) / 2
    np.testing.assert_array_equal(found[np.isfinite(holed)], holed[np.isfinite(holed)])  # what was observed stays
    assert baselines._prepared(np.array([0.0, NAN, 100.0]), 2).tolist() == [0, 50, 100]


@pytest.mark.parametrize(("rows", "asked"), [(9, False), (10, True)])
def test_fewer_than_ten_rows_go_on_in_a_line(rows: int, asked: bool) -> None:
    history = np.arange(float(rows)) ** 2
    found = baselines._estimated(lambda values, season: np.full(2, 1.0), history, 2, 1)
    assert (found != baselines.drift(history, 2)).all() == asked


@pytest.mark.parametrize(("rows", "season", "asked"), [(24, 12, 12), (23, 12, 1), (200, 24, 24), (200, 25, 1)])
def test_seasons_of_up_to_24_rows_that_are_seen_twice_are_smoothed_state_by_state(
    rows: int, season: int, asked: int
) -> None:
    seasons = []

    def estimate(values: np.ndarray, found: int) -> np.ndarray:
        seasons.append(found)
        return np.zeros(1)

    baselines._estimated(estimate, np.arange(float(rows)) % 7, 1, season)
    assert seasons == [asked]


@pytest.mark.parametrize("additive", [False, True])
def test_a_method_reads_a_series_in_units_of_its_own_size(additive: bool) -> None:
    history = np.array([1.0, 3.0] * 6)
    read = []

    def estimate(values: np.ndarray, season: int) -> np.ndarray:
        read.append(values)
        return np.array([0.5])

    found = baselines._estimated(estimate, history, 1, 1, additive=additive)
    np.testing.assert_allclose(read[0], history - 2 if additive else history / 2)
    np.testing.assert_allclose(found, [2.5] if additive else [1.0])
    baselines._estimated(estimate, history, 1, 1)
    np.testing.assert_allclose(read[1], history / 2)  # ratios are kept, unless the method is known to ignore them


def test_a_long_season_is_taken_out_and_put_back_in_its_place() -> None:
    season, asked = np.repeat([-5.0, 5.0], 15), []

    def estimate(values: np.ndarray, found: int) -> np.ndarray:
        asked.append(found)
        return np.full(40, values[-1])

    history = np.tile(season, 5)[:-10] + 0.2 * np.arange(140)
    found = baselines._estimated(estimate, history, 40, 30)
    np.testing.assert_allclose(found, np.tile(season, 3)[20:60] + 0.2 * 139, atol=0.5)
    assert asked == [1]


@pytest.mark.parametrize(
    ("point", "believed"),
    [([23.0], True), ([23.1], False), ([-19.0], True), ([-19.1], False), ([NAN], False), ([2.0, 99.0], False)],
)
def test_a_forecast_ten_ranges_beyond_what_was_seen_is_not_believed(point: list[float], believed: bool) -> None:
    history = np.array([1.0, 3.0, NAN, 1.5])
    found = baselines._sane(lambda: np.array(point), history, len(point), 1)
    assert found.tolist() == (point if believed else [1.5] * len(point))


def test_an_optimiser_that_fails_leaves_the_seasonal_naive_forecast() -> None:
    def fails() -> np.ndarray:
        raise RuntimeError("no convergence")

    assert baselines._sane(fails, np.array([1.0, 2.0, 3.0, 4.0]), 3, 2).tolist() == [3, 4, 3]


@pytest.mark.parametrize(("value", "change", "constant"), [(1e6, 5e-7, True), (1e6, 1e-5, False), (0.0, 1e-12, False)])
def test_changes_of_mere_rounding_are_none(value: float, change: float, constant: bool) -> None:
    assert baselines._is_constant(value + np.array([0.0, NAN, change, 0.0])) == constant
    assert baselines._is_constant(np.array([NAN, value]))
    assert baselines._is_constant(np.array([NAN]))


@pytest.mark.parametrize(("rows", "intermittent"), [(33, False), (34, True)])
def test_demand_is_intermittent_beyond_132_rows_a_demand(rows: int, intermittent: bool) -> None:
    demand = np.zeros(rows)
    demand[:25] = 2.0
    assert baselines.is_intermittent(np.append(demand, NAN)) == intermittent
    assert baselines.is_intermittent(np.array([0.0, 6.0]))
    assert not baselines.is_intermittent(np.zeros(rows))


def test_one_demand_alone_has_no_distance_to_another() -> None:
    assert baselines.croston(np.array([0.0, 0.0, 6.0, NAN]), 2).tolist() == [2, 2]
    two = baselines.croston(np.array([0.0, 0.0, 6.0, 0.0, 0.0, 6.0]), 2)
    assert two == pytest.approx(0.95 * 6 / 3, rel=1e-6)  # Syntetos and Boylan's correction of a demand every third row


@pytest.mark.parametrize(
    ("rows", "season", "judged"), [(98, 14, True), (97, 14, False), (200, 12, False), (200, 13, True), (200, 24, True)]
)
def test_forms_of_long_seasons_are_judged_on_the_last_three(
    rows: int, season: int, judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(baselines, "_held_out_error", lambda form, _, cuts, __: tried.append(cuts) or 0.0)
    history = np.resize(np.arange(float(season)), rows) + np.random.default_rng(0).random(rows)
    baselines.ets_form(history, season)
    assert bool(tried) == judged
    assert all(cuts == [rows - season, rows - 2 * season, rows - 3 * season] for cuts in tried)


def test_a_form_loses_the_season_that_a_history_is_too_short_for() -> None:
    short = AIRLINE[:20]
    without = baselines._smoothing("MAdN", 1).forecast(short / short.mean(), 3)["mean"] * short.mean()
    assert baselines.ets(short, 3, 12, "MAdM") == pytest.approx(without)
    assert baselines.ets(short, 3, 12, "MAdM") != pytest.approx(baselines.ets(short, 3, 1))


def test_a_season_of_two_rows_is_one() -> None:
    history = np.tile([1.0, 5.0], 20)
    history[3] = 5.1
    assert baselines.ets(history, 4, 2, "ANA") == pytest.approx([1, 5, 1, 5], abs=0.1)
    assert baselines.arima(history, 4, 2, "(0,0,0)(0,1,0)") == pytest.approx([1, 5, 1, 5])


def test_ratios_mean_something_where_all_that_was_observed_is_above_0() -> None:
    assert baselines._is_positive(np.array([1e-9, NAN]))
    assert not baselines._is_positive(np.array([0.0, 1.0]))


def test_a_form_tells_whether_its_trend_is_damped() -> None:
    rng = np.random.default_rng(0)
    level = 100 * (1 - 0.9 ** np.arange(80)) + rng.normal(0, 0.05, 80)
    line = 2.0 * np.arange(80) + rng.normal(0, 0.05, 80)
    assert baselines.ets_form(level, 1)[1:] == "AdN"
    assert baselines.ets_form(line, 1)[1:] == "AN"


@pytest.mark.parametrize(("lowest", "more"), [(1.0, {"MNM", "MAdM"}), (0.0, set())])
def test_the_form_with_the_smallest_error_on_the_last_seasons_is_taken(
    lowest: float, more: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {"MNM": 3.0, "MAdM": 2.0, "ANA": 1.0, "AAdA": 4.0}
    tried = set()
    monkeypatch.setattr(baselines, "_held_out_error", lambda form, *_: tried.add(form) or errors.get(form, 5.0))
    history = lowest + np.resize(np.arange(14.0), 140)
    assert baselines.ets_form(history, 14) == "ANA"
    assert {"ANA", "AAdA"} <= tried
    assert tried & {"MNM", "MAdM"} == more


def test_a_forms_error_is_the_mean_over_the_seasons_it_is_judged_on(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(baselines, "ets", lambda *given: read.append(given) or np.full(given[1], 2.0))
    history = np.array([9.0, 9.0, 1.0, NAN, 6.0, 2.0])
    assert baselines._held_out_error("ANA", history, [4, 2], 2) == pytest.approx((4 + 0 + 1) / 3)
    assert [(len(past), horizon, season, form) for past, horizon, season, form in read] == [
        (4, 2, 2, "ANA"), (2, 2, 2, "ANA"),
    ]  # fmt: skip
    assert baselines._held_out_error("ANA", np.full(6, NAN), [4, 2], 2) == float("inf")


def test_additive_forms_do_not_care_where_zero_lies() -> None:
    values = np.random.default_rng(1).normal(size=60).cumsum()
    for form in ("ANN", "AAN"):
        near, far = baselines.ets(values, 3, 1, form), baselines.ets(values + 1e6, 3, 1, form) - 1e6
        np.testing.assert_allclose(near, far, atol=1e-6)
    plain = baselines.theta(values - values.mean(), 3, 1)
    np.testing.assert_allclose(baselines.theta(values - values.mean() - 1e3, 3, 1) + 1e3, plain, atol=1e-6)


def test_a_trend_goes_on_by_theta_and_by_the_form_that_it_needs() -> None:
    line = 50 + 2.0 * np.arange(60) + np.random.default_rng(2).normal(0, 0.3, 60)
    assert (baselines.theta(line, 4, 1)[1:] > line[-1] + 1).all()
    np.testing.assert_allclose(baselines.ets(line, 4, 1), 50 + 2.0 * np.arange(60, 64), atol=1.5)
    np.testing.assert_allclose(baselines.arima(line, 4, 1), 50 + 2.0 * np.arange(60, 64), atol=2.5)


def test_an_order_says_its_constant_and_is_followed_to_the_letter() -> None:
    rng = np.random.default_rng(3)
    noise = 10 + rng.normal(size=80)
    walk = (1 + rng.normal(0, 0.2, 80)).cumsum()
    assert re.fullmatch(r"\(\d,0,\d\)\(0,0,0\) with mean", baselines.arima_order(noise, 1))
    assert re.fullmatch(r"\(\d,1,\d\)\(0,0,0\) with drift", baselines.arima_order(walk, 1))
    assert re.fullmatch(r"\(\d,0,\d\)\(0,0,0\)", baselines.arima_order(noise - noise.mean(), 1))
    assert baselines.arima(noise, 2, 1, "(0,0,0)(0,0,0) with mean") == pytest.approx([noise.mean()] * 2, abs=1e-3)
    assert baselines.arima(noise, 2, 1, "(0,0,0)(0,0,0)") == pytest.approx([0, 0])
    assert baselines.arima(noise, 2, 12, "(0,0,0)(0,0,0)") == pytest.approx([0, 0])
    assert baselines.arima(walk, 2, 1, "(0,1,0)(0,0,0)") == pytest.approx([walk[-1]] * 2)
    step = (walk[-1] - walk[0]) / 79
    assert baselines.arima(walk, 2, 1, "(0,1,0)(0,0,0) with drift") == pytest.approx(
        [walk[-1] + step, walk[-1] + 2 * step], rel=1e-3
    )
    seasonal = baselines.arima(noise, 2, 1, "(0,0,0)(0,1,0)")  # there is no season to differ from
    np.testing.assert_array_equal(seasonal, baselines.arima(noise, 2, 1))
    assert baselines.arima_order(np.arange(5.0), 1) == baselines.ANY_ORDER
