"""Calibrated intervals hold what they promise, never cross, and use only what was known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tsmamba.evaluation.backtest import Backtest, roll
from tsmamba.evaluation.conformal import (
    Calibration,
    _adapted,
    _floor,
    _known,
    _overlap,
    _tables,
    calibrate,
    guessed_shifts,
    offsets,
    recent_rows,
    recent_scales,
)
from tsmamba.methods.methods import Local, Task
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.panel import Panel

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
HORIZON = 6
TASK = Task(HORIZON, 1, LEVELS)


def walk(rows: int, series: int = 2, seed: int = 0, sizes: tuple[float, ...] = (1.0, 30.0)) -> Panel:
    steps = np.random.default_rng(seed).normal(size=(rows, series)) * sizes[:series]
    return Panel.wide(np.cumsum(steps, axis=0), [f"s{number}" for number in range(series)])


def backtest_of(panel: Panel, origins: int = 120, stride: int = 5) -> Backtest:
    rows = [HORIZON + stride * number for number in reversed(range(origins))]
    return roll(Local("naive", TASK), panel, rows, 1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_coverage_is_what_was_promised(seed: int) -> None:
    panel = walk(1200, seed=seed)
    scores = calibrate(backtest_of(panel), panel, 1)[0].scores()
    assert scores["coverage_80"] == pytest.approx(0.80, abs=0.04)
    assert scores["coverage_95"] == pytest.approx(0.95, abs=0.03)


def test_coverage_survives_a_change_of_the_noise() -> None:
    """Three times the noise, from three quarters of the rows on: 40 forecasts after it in each of ten worlds."""
    covered = []
    for seed in range(10):
        values = walk(1200, seed=seed).series[0].values
        changes = np.diff(values, prepend=0.0) * np.where(np.arange(1200) < 900, 1.0, 3.0)
        panel = Panel.wide(np.cumsum(changes)[:, None])
        covered.append(calibrate(backtest_of(panel), panel, 1)[0].origins(slice(80, 120)).scores()["coverage_80"])
    # One forecast's steps are off together: they count once, so that there are 400 chances in all.
    low, high = stats.binom.interval(0.999, 400, 0.8)
    assert low / 400 <= np.mean(covered) <= high / 400


@pytest.mark.parametrize("levels", [(0.1, 0.5, 0.9), (0.025, 0.5, 0.975)])
def test_exchangeable_errors_are_covered_exactly_as_often_as_promised(levels: tuple[float, ...]) -> None:
    """Split conformal prediction: the next of many errors alike falls inside as often as the levels say.

    Each draw reads 199 errors of one step and judges the next: all ranks are equally likely, whatever their law.
    """
    rng = np.random.default_rng(1)
    draws, inside = 3000, 0
    for _ in range(draws):
        errors = rng.exponential(size=200)  # of one side: nothing here is a normal distribution's doing
        found = offsets(np.repeat(errors[:199, None, None, None], len(levels), axis=-1), levels)[0]
        inside += int(found[0] <= errors[199] <= found[-1])
    low, high = stats.binom.interval(0.999, draws, levels[-1] - levels[0])
    assert low <= inside <= high


def test_intervals_grow_with_the_step_and_with_the_series() -> None:
    panel = walk(1200)
    forecast = calibrate(backtest_of(panel), panel, 1)[1].apply(Local("naive", TASK).predict(panel), panel)
    width = forecast.quantiles[..., 3] - forecast.quantiles[..., 1]
    assert (width[:, -1] > 1.7 * width[:, 0]).all()
    assert 15 < width[1].mean() / width[0].mean() < 60
    assert width[0].mean() == pytest.approx(2 * 1.2816 * np.sqrt(np.arange(1, HORIZON + 1)).mean(), rel=0.1)


def test_quantiles_never_cross_and_the_point_stays() -> None:
    panel = walk(400)
    before = Local("naive", TASK).predict(panel)
    after = calibrate(backtest_of(panel, 20), panel, 1)[1].apply(before, panel)
    assert (np.diff(after.quantiles, axis=-1) >= 0).all()
    assert np.array_equal(after.point, before.point)


def test_an_interval_uses_only_what_was_known_at_its_origin() -> None:
    panel = walk(600)
    past = backtest_of(panel, 40)
    changed = replace(past, actual=past.actual.copy())
    changed.actual[30:] += 1e6
    ours, theirs = calibrate(past, panel, 1)[0], calibrate(changed, panel, 1)[0]
    assert np.array_equal(ours.quantiles[:31], theirs.quantiles[:31], equal_nan=True)
    assert not np.array_equal(ours.quantiles[31:], theirs.quantiles[31:], equal_nan=True)


def test_quantile_forecasts_are_shifted_not_replaced() -> None:
    """A method whose own intervals are right in shape but too narrow by one gets them wider by one on either side."""
    panel = walk(1500, series=1, sizes=(1.0,))
    past = backtest_of(panel, 200)
    spread = np.sqrt(np.arange(1, HORIZON + 1))[:, None] * np.array([-1.96, -1.28, 0.0, 1.28, 1.96])
    narrow = spread - np.sign(spread)
    shifts = calibrate(replace(past, quantiles=past.point[..., None] + narrow), panel, 1)[1].pooled
    assert shifts[:4, 0].mean() < -0.4
    assert abs(shifts[:, 2].mean()) < 0.5
    assert shifts[:4, 4].mean() > 0.4


def test_few_errors_give_symmetric_intervals() -> None:
    scores = np.random.default_rng(0).exponential(size=(12, 1, 3, 1)).repeat(5, axis=-1)
    found = offsets(scores, LEVELS)
    assert found[:, 0] == pytest.approx(-found[:, 4])
    assert found[:, 2] == pytest.approx(np.zeros(3), abs=0.2)


def test_without_a_past_the_intervals_are_those_of_a_random_walk() -> None:
    shifts = guessed_shifts(walk(50, series=1), 4, LEVELS, 1)
    assert shifts[3, 4] == pytest.approx(2 * shifts[0, 4])
    assert shifts[0, 4] == pytest.approx(1.2533 * 2.01, rel=0.01)
    assert np.isnan(guessed_shifts(Panel.wide(np.ones((2, 1))), 4, LEVELS, 1)).all()


def test_a_calibration_survives_json() -> None:
    panel = walk(1200)
    made = calibrate(backtest_of(panel, 60), panel, 1)[1]
    read = Calibration.from_dict(made.to_dict())
    forecast = Local("naive", TASK).predict(panel)
    assert set(read.own) == {"s0", "s1"}
    assert read.apply(forecast, panel).quantiles == pytest.approx(made.apply(forecast, panel).quantiles, rel=1e-6)


def test_what_was_never_negative_is_not_forecast_so() -> None:
    values = np.random.default_rng(0).exponential(size=(600, 1)) * (np.arange(600)[:, None] % 3 == 0)
    panel = Panel.wide(values)
    forecast = calibrate(backtest_of(panel, 60), panel, 1)[1].apply(Local("drift", TASK).predict(panel), panel)
    assert forecast.quantiles.min() == 0
    assert forecast.point.min() >= 0


def test_steps_of_one_forecast_count_as_far_as_they_err_alone() -> None:
    rng = np.random.default_rng(0)
    alone, together = [], []
    for _ in range(40):
        alone.append(offsets(np.repeat(rng.normal(size=(9, 1, 24, 1)), 5, axis=3), LEVELS)[0])
        together.append(offsets(np.tile(rng.normal(size=(9, 1, 1, 1)), (1, 1, 24, 5)), LEVELS)[0])
    assert np.mean(alone, axis=0)[[1, 3]] == pytest.approx([-1.28, 1.28], abs=0.12)  # as of 216 normal errors
    assert np.mean(together, axis=0)[[1, 3]] == pytest.approx([-1.8, 1.8], abs=0.25)  # as of 9: the largest of them


def test_series_that_never_change_neither_narrow_other_intervals_nor_get_wide_ones() -> None:
    alone = walk(300, series=1)
    constant = replace(alone.series[0], unique_id="constant", values=np.full(300, 1e-6))
    both = replace(alone, series=(*alone.series, constant))
    shifts = [calibrate(backtest_of(panel, 30), panel, 1)[1] for panel in (alone, both)]
    np.testing.assert_array_equal(shifts[0].pooled, shifts[1].pooled)
    forecast = shifts[1].apply(Local("naive", TASK).predict(both), both)
    assert bool((forecast.quantiles[1] == 1e-6).all())
    assert bool((np.diff(forecast.quantiles[0], axis=-1) > 0).all())


def test_a_shift_is_the_table_s_times_the_series_own_scale_and_never_below_its_floor() -> None:
    pooled = np.array([[-1.0, 0.0, 2.0], [-2.0, 0.5, 4.0]])
    calibration = Calibration((0.1, 0.5, 0.9), 1, pooled, {"b": pooled * 10})
    point = np.array([[5.0, 5.0], [5.0, 5.0]])
    forecast = Forecast(("a", "b"), (0.1, 0.5, 0.9), point, np.repeat(point[..., None], 3, axis=-1))
    first, constant = np.zeros(2, np.int64), np.full((2, 1), np.nan)
    found = calibration.shifted(forecast, np.array([3.0, 0.5]), np.array([-np.inf, 6.0]), first, constant)
    np.testing.assert_allclose(found.quantiles[0], [[2.0, 5.0, 11.0], [-1.0, 6.5, 17.0]])
    np.testing.assert_allclose(found.quantiles[1], [[6.0, 6.0, 15.0], [6.0, 7.5, 25.0]])
    np.testing.assert_allclose(found.point, [[5.0, 5.0], [6.0, 6.0]])


@pytest.mark.parametrize(("season", "steps"), [(1, [1, 2, 3, 4, 5]), (2, [1, 1, 2, 2, 3]), (12, [1] * 5)])
def test_a_random_walk_s_intervals_grow_by_seasons_and_know_how_little_they_rest_on(
    season: int, steps: list[int]
) -> None:
    panel = Panel.wide(np.array([[1.0], [2.0], [4.0], [np.nan], [5.0], [7.0], [8.0]]))
    found = guessed_shifts(panel, 5, (0.1, 0.5, 0.9), season)
    tails = np.sqrt(np.pi / 2) * stats.t.ppf((0.1, 0.5, 0.9), 3)  # of four changes between neighbours
    np.testing.assert_allclose(found, np.sqrt(steps)[:, None] * tails)


def test_two_changes_are_the_least_that_say_anything() -> None:
    for values, known in (([1.0, 2.0, 4.0], True), ([1.0, 2.0, np.nan], False), ([1.0, 2.0], False), ([], False)):
        panel = Panel.wide(np.array(values)[:, None])
        assert np.isfinite(guessed_shifts(panel, 2, (0.1, 0.9), 1)).all() == known


def test_a_step_is_known_once_its_row_has_come() -> None:
    found = _known(np.array([5, 3, 1]), 1, 4)
    np.testing.assert_array_equal(found, [[True] * 4, [True, True, False, False], [False] * 4])
    np.testing.assert_array_equal(_known(np.array([1]), 0, 2), [[True, False]])


def _judged(actual: np.ndarray, levels: tuple[float, ...]) -> Backtest:
    k, horizon = actual.shape
    point = np.zeros((k, 1, horizon))
    back = tuple(range(k * horizon, 0, -horizon))
    return Backtest("x", ("a",), levels, back, actual[:, None], point, np.zeros((*point.shape, len(levels))),
                    np.ones(1), np.ones(1))  # fmt: skip


def test_levels_move_by_a_share_of_what_was_missed_and_stay_in_their_tails() -> None:
    levels = (0.1, 0.5, 0.9)
    start, news = np.array(levels), np.ones((2, 2), dtype=np.bool_)
    quantiles = np.broadcast_to([-1.0, 0.0, 1.0], (2, 1, 2, 3)).copy()
    even = _judged(np.array([[-1.0, 0.0], [0.5, 2.0]]), levels)  # 1, 2 and 3 of 4 at or below the quantiles
    moved = start + 0.1 * (start - [0.25, 0.5, 0.75])  # two origins with news: twice a pace of 0.05
    np.testing.assert_allclose(_adapted(start, even, quantiles, news), moved)
    np.testing.assert_array_equal(_adapted(start, even, quantiles, ~news), start)
    np.testing.assert_array_equal(_adapted(start, even, np.full_like(quantiles, np.nan), news), start)
    above, many = _judged(np.full((20, 1), 9.0), levels), np.broadcast_to([-1.0, 0.0, 1.0], (20, 1, 1, 3)).copy()
    every = np.ones((20, 1), dtype=np.bool_)
    np.testing.assert_allclose(_adapted(start, above, many, every), [0.13, 0.5, 1 - 0.1 / 1.9])  # a pace of 0.3 at most
    below = _judged(np.full((20, 1), -9.0), levels)
    np.testing.assert_allclose(_adapted(start, below, many, every), [0.1 / 1.9, 0.35, 0.87])


def test_a_series_has_a_table_of_its_own_from_forty_forecasts_on_and_in_company() -> None:
    scores = np.random.default_rng(0).normal(size=(40, 2, 1, 1))
    scores[0, 1] = np.nan
    known, level = np.ones((40, 1), dtype=np.bool_), np.array([0.9])
    plain = (level, False, True, 1.0)
    pooled, own = _tables(scores, known, ("a", "b"), *plain)
    assert list(own) == ["a"]
    np.testing.assert_array_equal(own["a"], offsets(scores[:, :1], level))
    np.testing.assert_array_equal(pooled, offsets(scores, level))
    assert _tables(scores[:, :1], known, ("a",), *plain)[1] == {}
    hidden = known.copy()
    hidden[:5] = False
    np.testing.assert_array_equal(_tables(scores, hidden, ("a", "b"), *plain)[0], offsets(scores[5:], level))


def test_scales_are_those_of_the_latest_rows_before_each_origin() -> None:
    calm = np.tile([0.0, 1.0], 300)  # changes of 1, over a season of two of 0
    values = np.concatenate([np.cumsum(np.full(50, 100.0)), 5000 + calm])
    panel = Panel.wide(np.stack([values, np.full(650, 3.0)], axis=1))
    assert recent_rows(1) == 400
    assert recent_rows(24) == 720
    np.testing.assert_allclose(recent_scales(panel, (0, 100), 1), [[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(recent_scales(panel, (610,), 1), [[100.0, 0.0]])
    np.testing.assert_allclose(
        recent_scales(panel, (0,), 2)[0, 0], 1.0
    )  # over a season nothing changed: over a step it did
    np.testing.assert_allclose(recent_scales(panel, (649, 650, 700), 1), [[1.0, 1.0]] * 3)  # a row or none says nothing


def test_a_spread_of_its_own_is_moved_a_little_by_a_few_scores_and_wholly_by_many() -> None:
    rng = np.random.default_rng(0)
    level = (0.1, 0.5, 0.9)
    spread = stats.norm.ppf(level)
    for n, low, high in ((4, 0.0, 0.1), (100, 0.4, 0.6), (20_000, 0.9, 1.1)):
        wide = (
            rng.normal(0, 3, size=(n, 1, 1, 1)) - spread
        )  # scores of forecasts whose spread is a third of the errors'
        found = offsets(wide, level, own_spread=True)[0]
        assert low < (found[2] - found[0]) / (2 * (spread[2] - spread[0])) < high
    right = rng.normal(size=(20_000, 1, 1, 1)) - spread
    np.testing.assert_allclose(offsets(right, level, own_spread=True)[0], 0, atol=0.2)
    few = rng.normal(size=(10, 1, 1, 1)) - spread
    np.testing.assert_allclose(offsets(few, level, own_spread=True)[0, [0, 2]].sum(), 0, atol=1e-9)  # mirrored


def test_forecasts_of_the_same_rows_count_once_against_a_spread_of_its_own() -> None:
    back = np.array([12, 11, 10])
    known = np.ones((3, 3), dtype=np.bool_)
    assert _overlap(back, known) == pytest.approx(9 / 5)
    assert _overlap(np.array([12, 9, 6]), known) == 1
    assert _overlap(back, np.zeros((3, 3), dtype=np.bool_)) == 1
    assert _overlap(np.array([2, 1]), np.array([[True] * 3, [True, False, False]])) == pytest.approx(4 / 3)
    wide = np.random.default_rng(0).normal(0, 3, size=(100, 1, 1, 1)) - stats.norm.ppf((0.1, 0.5, 0.9))
    apart, together = (offsets(wide, (0.1, 0.5, 0.9), True, True, overlap)[0, 2] for overlap in (1.0, 9.0))
    assert together == pytest.approx(apart / 5, rel=0.05)


def test_lopsided_levels_are_not_mirrored() -> None:
    level = (0.2, 0.5, 0.6)
    spread = stats.norm.ppf(level)
    scores = 5 + np.random.default_rng(0).normal(size=(60, 1, 1, 1)) - spread  # the forecasts are 5 too low
    assert (offsets(scores, level, own_spread=True, mirrors=False)[0] > 1).all()
    panel = Panel.wide(np.cumsum(np.random.default_rng(1).normal(size=80))[:, None] * 0.1)
    rows = [HORIZON + number for number in reversed(range(60))]
    plain = roll(Local("naive", Task(HORIZON, 1, level)), panel, rows, 1)
    low = replace(plain, point=plain.point - 5, quantiles=plain.quantiles - 5 + 0.01 * spread)  # 5 too low, everywhere
    unit = np.abs(0.01 * spread).mean()
    assert (calibrate(low, panel, 1)[1].pooled * unit > 0.5).all()


def test_errors_are_read_as_if_to_either_side_below_a_hundred_forecasts() -> None:
    level = (0.1, 0.5, 0.9)
    scores = 5 + np.random.default_rng(0).normal(size=(100, 1, 1, 1)) * np.ones(3)
    few, many = offsets(scores[:99], level)[0], offsets(scores, level)[0]
    assert few[0] == pytest.approx(-few[2])
    assert many[0] > 2


def test_symmetric_levels_are_mirrored_where_forecasts_have_a_spread_of_their_own() -> None:
    level = (0.2, 0.5, 0.8)
    panel = Panel.wide(np.cumsum(np.random.default_rng(1).normal(size=80))[:, None] * 0.1)
    plain = roll(
        Local("naive", Task(HORIZON, 1, level)), panel, [HORIZON + number for number in reversed(range(60))], 1
    )
    low = replace(plain, point=plain.point - 5, quantiles=plain.quantiles - 5 + 0.01 * stats.norm.ppf(level))
    pooled = calibrate(low, panel, 1)[1].pooled
    assert (pooled[:, 0] < 0).all()  # though all errors are to the other side
    assert (pooled[:, 2] > 0).all()


def test_a_spread_of_its_own_is_the_unit_of_what_it_is_moved_by() -> None:
    """A forecast with twice the spread is widened twice as much; one without is moved in units of recent changes."""
    level = (0.1, 0.5, 0.9)
    spread = np.array([-1.0, 0.0, 1.0])
    point = np.zeros((3, 2))
    quantiles = np.stack([spread * size * np.ones((2, 1)) for size in (1.0, 2.0, 0.0)])
    forecast = Forecast(("a", "b", "c"), level, point, quantiles)
    calibration = Calibration(level, 1, np.tile(spread * 0.3, (2, 1)), relative=True)
    rest = np.zeros(3, np.int64), np.full((3, 1), np.nan)
    found = calibration.shifted(forecast, np.array([50.0, 50.0, 5.0]), np.full(3, -np.inf), *rest).quantiles
    np.testing.assert_allclose(found[:, 0, 2], [1 + 0.3 * 2 / 3, 2 + 0.3 * 4 / 3, 0.3 * 5])
    again = Calibration.from_dict(calibration.to_dict())
    assert again.relative
    older = {name: value for name, value in calibration.to_dict().items() if name != "relative"}
    assert not Calibration.from_dict(older).relative


def test_past_errors_of_short_histories_do_not_widen_what_knows_how_long_they_were() -> None:
    """Early forecasts err five times as much as late ones, and say half of it: the last gets twice its own width."""
    rng, level = np.random.default_rng(0), (0.1, 0.5, 0.9)
    panel = Panel.wide(np.cumsum(rng.normal(size=400))[:, None])
    rows = list(range(300, HORIZON - 1, -1))
    plain = roll(Local("naive", Task(HORIZON, 1, level)), panel, rows, 1)
    size = np.linspace(5, 1, len(rows))[:, None, None]
    actual = plain.point + size * rng.normal(size=plain.point.shape)
    half = stats.norm.ppf(level) / 2
    narrow = replace(plain, actual=actual, quantiles=plain.point[..., None] + size[..., None] * half)
    shift = calibrate(narrow, panel, 1)[1].pooled[:, 2] * np.abs(half).mean()
    assert (shift > 0.4 * half[2]).all()
    assert (shift < 2 * half[2]).all()


@pytest.mark.parametrize(
    ("history", "floor"), [([0.0, 3.0, np.nan], 0.0), ([2.0], 0.0), ([-1e-9, 3.0], -np.inf), ([np.nan], -np.inf)]
)
def test_a_floor_is_what_was_observed(history: list[float], floor: float) -> None:
    assert _floor(np.array(history)) == floor


def test_shifts_are_in_the_unit_of_the_errors() -> None:
    scores = np.random.default_rng(0).normal(size=(60, 1, HORIZON, 1)) * np.arange(1, HORIZON + 1)[:, None] * np.ones(5)
    np.testing.assert_allclose(offsets(scores * 1e-3, LEVELS), 1e-3 * offsets(scores, LEVELS), rtol=1e-9)
