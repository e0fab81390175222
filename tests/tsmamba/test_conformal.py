"""Calibrated intervals hold what they promise, never cross, and use only what was known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tsmamba.evaluation.backtest import Backtest, roll
from tsmamba.evaluation.conformal import Calibration, calibrate, guessed_shifts, offsets
from tsmamba.methods.methods import Local, Task
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
