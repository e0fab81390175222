"""Widths by season: they differ where errors clearly do, elsewhere they do not, and coverage is what is promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mamba_data_prep.series import Frequency
from tsmamba.evaluation.backtest import roll
from tsmamba.evaluation.conformal import Calibration, calibrate
from tsmamba.evaluation.season_widths import clusters, constant_phases, phases_ahead, row_means, sizes_by_phase
from tsmamba.methods.methods import Local, Task
from tsmamba.panel.panel import Panel, make_series

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
SEASON, HORIZON = 7, 7
TASK = Task(HORIZON, SEASON, LEVELS)


def days(values: np.ndarray) -> Panel:
    """Daily series from a Friday on."""
    times = pd.date_range("2021-01-01", periods=len(values), freq="D").to_numpy()
    return Panel.wide(values, times=times.astype("datetime64[ns]"), frequency=Frequency("day"))


def noisy(deviations: list[float], seed: int, rows: int = 1001, series: int = 1) -> Panel:
    """A weekly course, with noise whose size depends on the day."""
    rng = np.random.default_rng(seed)
    day = np.arange(rows) % SEASON
    noise = rng.normal(size=(rows, series)) * np.array(deviations)[day][:, None]
    return days(20 + 3.0 * day[:, None] + noise)


def calibrated(panel: Panel, origins: int = 160) -> tuple:
    back = [HORIZON + number for number in np.linspace(0, 800, origins).astype(int)[::-1].tolist()]
    return calibrate(roll(Local("seasonal_naive", TASK), panel, back, SEASON), panel, SEASON)


@pytest.mark.parametrize(
    "deviations", [[1.0] * 7, [1.0, 1.0, 1.0, 1.0, 1.0, 0.05, 0.05], [1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 8.0]]
)
def test_coverage_is_what_was_promised(deviations: list[float]) -> None:
    """Of even noise and of noise by season, over four worlds."""
    covered: dict[str, list[float]] = {"coverage_80": [], "coverage_95": []}
    for seed in range(4):
        past, _ = calibrated(noisy(deviations, seed))
        scores = past.origins(slice(50, 160)).scores()
        for name, shares in covered.items():
            shares.append(scores[name])
    assert np.mean(covered["coverage_80"]) == pytest.approx(0.80, abs=0.03)
    assert np.mean(covered["coverage_95"]) == pytest.approx(0.95, abs=0.03)


def test_each_day_has_its_own_width_and_its_own_coverage() -> None:
    deviations = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 4.0])
    inside, width = np.zeros(SEASON), np.zeros(SEASON)
    for seed in range(4):
        panel = noisy(deviations.tolist(), seed)
        past, calibration = calibrated(panel)
        late = past.origins(slice(50, 160))
        day = (len(panel.series[0]) - np.array(late.steps_back)[:, None] + np.arange(HORIZON)) % SEASON
        low, high = late.quantiles[:, 0, :, 1], late.quantiles[:, 0, :, 3]
        hit = (late.actual[:, 0] >= low) & (late.actual[:, 0] <= high)
        inside += np.bincount(day.ravel(), hit.ravel(), SEASON) / np.bincount(day.ravel(), minlength=SEASON) / 4
        forecast = calibration.apply(Local("seasonal_naive", TASK).predict(panel), panel)
        days_ahead = (len(panel.series[0]) + np.arange(HORIZON)) % SEASON
        width[days_ahead] += (forecast.quantiles[0, :, 3] - forecast.quantiles[0, :, 1]) / 4
    assert np.abs(inside - 0.8).max() < 0.08
    np.testing.assert_allclose(width / width[:5].mean(), deviations, rtol=0.35)


def test_even_errors_have_one_width() -> None:
    sized = [calibrated(noisy([1.0] * 7, seed))[1].sizes for seed in range(6)]
    assert sum(map(len, sized)) <= 1


def test_days_that_do_not_clearly_differ_share_one_width() -> None:
    deviations = np.array([1.0, 1.0, 1.0, 0.1, 1.0, 1.0, 4.0])
    for seed in range(4):
        errors = np.abs(np.random.default_rng(seed).normal(size=(1, 60 * SEASON)) * np.tile(deviations, 60))
        found = sizes_by_phase(errors, np.zeros(1, np.int64), SEASON, 0.025)
        assert len(np.unique(found)) == 3
        assert len(np.unique(found[deviations == 1])) == 1
        np.testing.assert_allclose(found / found[0], deviations, rtol=0.3, atol=0.1)


def test_means_are_parted_only_where_chance_would_not() -> None:
    rng = np.random.default_rng(0)
    parted = [clusters(rng.normal(size=7), 1.0, 400).any() for _ in range(500)]
    assert np.mean(parted) < 0.01
    np.testing.assert_array_equal(clusters(np.array([9.0, 0.1, 5.0, 0.0, 5.2]), 0.01, 400), [2, 0, 1, 0, 1])
    np.testing.assert_array_equal(clusters(np.array([2.0, 2.0, 3.0]), 0.0, 400), [0, 0, 1])
    np.testing.assert_array_equal(clusters(np.array([2.0]), 1.0, 400), [0])


def test_few_rows_of_a_phase_tell_nothing() -> None:
    errors = np.random.default_rng(0).normal(size=(1, 11 * SEASON)) * np.tile([1, 1, 1, 1, 1, 0, 0], 11)
    first = np.zeros(1, np.int64)
    assert (sizes_by_phase(np.abs(errors), first, SEASON, 0.025) == 1).all()
    more = np.abs(np.tile(errors, 2))
    found = sizes_by_phase(more, first, SEASON, 0.025)
    assert (found[5:] < 0.2).all()
    assert (found[5:] > 0).all()  # 22 rows without an error do not bound 97.5 % of them
    assert (sizes_by_phase(np.tile(more, 2), first, SEASON, 0.025)[5:] == 0).all()


def test_many_forecasts_of_a_row_count_once() -> None:
    errors = np.arange(12.0).reshape(3, 1, 4)
    errors[0, 0, 0] = np.nan
    found = row_means(errors, (5, 4, 3))
    np.testing.assert_array_equal(found[0], [np.nan, (1 + 4) / 2, (2 + 5 + 8) / 3, (3 + 6 + 9) / 3, (7 + 10) / 2])


def test_phases_are_those_of_the_calendar_whatever_rows_there_are() -> None:
    panel = noisy([1.0] * 7, 0, rows=30, series=2)
    cut = replace(panel, series=(panel.series[0].before(3), panel.series[1]))
    whole, other = phases_ahead(cut, SEASON).tolist()
    assert (whole + 3) % SEASON == other
    tail = make_series("tail", panel.series[0].times[5:], panel.series[0].values[5:])
    assert phases_ahead(replace(panel, series=(tail,)), SEASON)[0] == other


def test_weekends_that_are_always_0_are_forecast_so() -> None:
    day = np.arange(700) % SEASON
    values = np.random.default_rng(0).poisson(20, (700, 1)) * (day < 5)[:, None]
    panel = days(values.astype(float))
    for name in ("seasonal_naive", "drift", "naive"):
        method = Local(name, TASK)
        past, calibration = calibrate(roll(method, panel, range(400, 6, -7), SEASON), panel, SEASON)
        forecast = calibration.apply(method.predict(panel), panel)
        assert (forecast.quantiles[0, 5:] == 0).all()
        assert (forecast.point[0, 5:] == 0).all()
        assert (forecast.quantiles[0, :5, 4] > forecast.quantiles[0, :5, 0]).all()
        assert past.scores()["coverage_95"] > 0.9


def test_a_phase_is_constant_only_where_chance_does_not_make_it_so() -> None:
    rng = np.random.default_rng(0)
    sparse = (rng.random(400) < 0.05) * 3.0
    assert np.isnan(constant_phases(sparse, SEASON, 0.025)).all()
    closed = np.where(np.arange(400) % SEASON == 3, 0.0, rng.normal(size=400))
    found = constant_phases(closed, SEASON, 0.025)
    assert np.flatnonzero(np.isfinite(found)).tolist() == [(3 - 400) % SEASON]
    assert np.isnan(constant_phases(closed[:200], SEASON, 0.025)).all()  # 28 weeks
    once = closed.copy()
    once[3 + 7 * 30] = 1.0
    assert np.isnan(constant_phases(once, SEASON, 0.025)).all()
    assert np.isnan(constant_phases(np.zeros(400), SEASON, 0.025)).all()


def test_sizes_survive_json() -> None:
    _, made = calibrated(noisy([1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 4.0], 0))
    read = Calibration.from_dict(made.to_dict())
    assert {name: table.tolist() for name, table in read.sizes.items()} == {
        n: t.tolist() for n, t in made.sizes.items()
    }
    assert len(made.sizes) == 1
