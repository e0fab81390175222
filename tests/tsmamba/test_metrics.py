"""Scores against values worked out by hand or by closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from tsmamba.evaluation import metrics

ACTUAL = np.array([1.0, 2.0, np.nan, 4.0])
FORECAST = np.array([2.0, 2.0, 9.0, 1.0])
FINITE = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3))


def test_point_scores_leave_out_what_was_not_observed() -> None:
    assert metrics.mae(ACTUAL, FORECAST) == pytest.approx(4 / 3)
    assert metrics.mse(ACTUAL, FORECAST) == pytest.approx(10 / 3)
    assert metrics.smape(ACTUAL, FORECAST) == pytest.approx((200 / 3 + 0 + 600 / 5) / 3)


def test_smape_of_zero_forecast_as_zero_is_zero() -> None:
    assert metrics.smape(np.zeros(3), np.zeros(3)) == 0


def test_nothing_observed_has_no_score() -> None:
    assert math.isnan(metrics.mae(np.full(3, np.nan), np.zeros(3)))


def test_a_method_that_does_not_answer_has_no_score() -> None:
    assert math.isnan(metrics.mae(np.zeros(2), np.array([np.nan, 0.0])))


def test_scaled_errors_are_one_for_the_history_s_own_seasonal_naive_error() -> None:
    history = np.array([1.0, 5.0, 2.0, 7.0, 4.0, 10.0])
    changes = np.array([1.0, 2.0, 2.0, 3.0])
    assert metrics.seasonal_error(history, 2) == changes.mean()
    assert metrics.seasonal_rms(history, 2) == pytest.approx(math.sqrt((changes**2).mean()))
    actual = changes
    assert metrics.mase(actual, np.zeros(4), metrics.seasonal_error(history, 2)) == 1
    assert metrics.rmsse(actual, np.zeros(4), metrics.seasonal_rms(history, 2)) == pytest.approx(1)


def test_a_history_shorter_than_a_season_is_measured_over_one_step() -> None:
    assert metrics.seasonal_error(np.array([1.0, 3.0, 4.0]), 12) == 1.5
    assert metrics.seasonal_error(np.array([1.0, 3.0, 4.0]), 3) == 1.5
    assert metrics.seasonal_error(np.array([1.0, 3.0, 4.0]), 0) == 1.5
    assert metrics.seasonal_error(np.array([0.1, 0.35]), 1) == pytest.approx(0.25)
    assert metrics.seasonal_error(np.array([1.0, 3.0, 4.0]), 2) == 3.0
    assert metrics.seasonal_error(np.array([1.0, np.nan, np.nan, 5.0, 7.0]), 1) == 2.0
    assert metrics.seasonal_error(np.array([1.0, 4.0, np.nan, np.nan]), 2) == 3.0  # no two values a season apart


@pytest.mark.parametrize("history", [[], [1.0], [np.nan, 2.0, np.nan]])
def test_a_history_without_a_change_has_no_scale(history: list[float]) -> None:
    assert math.isnan(metrics.seasonal_error(np.array(history), 2))
    assert math.isnan(metrics.seasonal_rms(np.array(history), 2))


def test_a_constant_history_has_no_scale_and_its_series_does_not_count() -> None:
    scale = np.array([metrics.seasonal_error(np.ones(9), 2), 2.0])
    assert math.isnan(scale[0])
    error = np.array([[3.0], [4.0]])
    assert metrics.mase(error, np.zeros((2, 1)), scale[:, None]) == 2


def test_scaled_errors_are_differences_whichever_way_they_go() -> None:
    actual, forecast = np.array([[3.0, -1.0]]), np.array([[2.0, 5.0]])
    assert metrics.mase(actual, forecast, np.array([[2.0]])) == pytest.approx((1 / 2 + 6 / 2) / 2)
    assert metrics.rmsse(actual, forecast, np.array([[2.0]])) == pytest.approx(math.sqrt((1 / 4 + 9) / 2))


def test_scores_average_over_the_axis_that_is_named() -> None:
    actual = np.array([[0.0, 1.0], [2.0, 5.0], [4.0, 0.0]])
    low, high = actual - np.array([1.0, 3.0]), actual + np.array([1.0, 5.0])
    assert metrics.width(actual, low, high, axis=0) == pytest.approx([2.0, 8.0])
    assert metrics.width(actual, low, high, axis=1) == pytest.approx([5.0] * 3)
    quantiles = np.stack([low, high], axis=-1)
    first = (0.1 * 1 + 0.1 * 1) / 2  # a value 1 above the lower and 1 below the upper quantile
    second = (0.1 * 3 + 0.1 * 5) / 2
    assert metrics.pinball(actual, quantiles, [0.1, 0.9], axis=0) == pytest.approx([first, second])
    assert metrics.crps(actual, quantiles, [0.1, 0.9], axis=0) == pytest.approx(
        [2 * 0.45 * 2 * one for one in (first, second)]
    )


def test_an_interval_holds_its_ends_and_needs_both() -> None:
    one = np.array([1.0])
    assert metrics.coverage(one, one, one + 1) == 1
    assert metrics.coverage(one, one - 1, one) == 1
    assert metrics.coverage(one, one + 1e-9, one + 1) == 0
    assert metrics.coverage(one, one - 1, one - 1e-9) == 0
    nan = np.array([np.nan])
    assert math.isnan(metrics.coverage(one, nan, one))
    assert math.isnan(metrics.coverage(one, one, nan))


def test_crps_by_many_quantiles_is_that_of_the_normal_distribution() -> None:
    levels = (np.arange(999) + 1) / 1000
    actual = np.array([-1.0, 0.0, 0.7, 2.5])
    quantiles = np.tile(stats.norm.ppf(levels), (4, 1))
    exact = actual * (2 * stats.norm.cdf(actual) - 1) + 2 * stats.norm.pdf(actual) - 1 / math.sqrt(math.pi)
    assert metrics.crps(actual, quantiles, levels.tolist()) == pytest.approx(exact.mean(), abs=2e-3)


def test_the_loss_of_the_median_is_half_the_absolute_error() -> None:
    assert metrics.pinball(ACTUAL, FORECAST[:, None], [0.5]) == pytest.approx(metrics.mae(ACTUAL, FORECAST) / 2)


def test_coverage_and_width() -> None:
    low, high = np.array([0.0, 3.0, 0.0, 4.0]), np.array([2.0, 5.0, 1.0, 8.0])
    assert metrics.coverage(ACTUAL, low, high) == pytest.approx(2 / 3)
    assert metrics.width(ACTUAL, low, high) == pytest.approx(8 / 3)


def test_levels_pair_up_to_central_intervals() -> None:
    assert metrics.intervals([0.025, 0.1, 0.5, 0.9, 0.975]) == {80.0: (1, 3), 95.0: (0, 4)}
    assert metrics.intervals([0.1, 0.5, 0.8]) == {}
    assert metrics.intervals([0.5]) == {}
    assert list(metrics.intervals([1 / 12, 11 / 12])) == [83.333333]
    assert metrics.intervals([0.1, 0.9 + 1e-8]) == {}


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, (3, 4), elements=FINITE), arrays(np.float64, (3, 4), elements=FINITE))
def test_scores_over_an_axis_average_to_the_score_of_all(actual: np.ndarray, forecast: np.ndarray) -> None:
    for score in (metrics.mae, metrics.mse, metrics.smape):
        assert np.mean(score(actual, forecast, axis=1)) == pytest.approx(score(actual, forecast))


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, 20, elements=FINITE), st.floats(0.05, 0.95))
def test_the_sample_s_own_quantile_has_the_smallest_loss(sample: np.ndarray, level: float) -> None:
    best = float(np.quantile(sample, level, method="inverted_cdf"))

    def loss(value: float) -> float:
        return float(metrics.pinball(sample, np.full((20, 1), value), [level]))

    assert all(loss(best) <= loss(best + shift) + 1e-9 for shift in (-3.0, -0.1, 0.1, 3.0))
