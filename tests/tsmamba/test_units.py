"""A forecast does not depend on the unit in which a series is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mamba_data_prep.series import Frequency
from tsmamba.methods import baselines
from tsmamba.methods.methods import Task, fit_method
from tsmamba.panel.panel import Panel

METHODS = ("naive", "seasonal_naive", "drift", "ets", "theta", "arima", "croston", "ridge", "ridge_log", "zero")
SHIFTED = ("naive", "seasonal_naive", "drift", "ridge", "zero")
"""Methods that never look at ratios; the others do where values are above zero."""


def _forecast(name: str, values: np.ndarray) -> np.ndarray:
    times = pd.date_range("2010-01-01", periods=len(values), freq="MS").to_numpy().astype("datetime64[ns]")
    panel = Panel.wide(values[:, None], times=times, frequency=Frequency("month"))
    return fit_method(name, panel, Task(12, 12)).predict(panel).point[0]


@pytest.fixture(scope="module")
def sales() -> np.ndarray:
    """Seven years of months with a trend, and a season that grows with it."""
    row = np.arange(84)
    noise = np.random.default_rng(0).normal(0, 4, 84)
    return (100 + 0.8 * row) * (1 + 0.2 * np.sin(2 * np.pi * row / 12)) + noise


@pytest.mark.parametrize("name", METHODS)
def test_a_thousand_times_the_values_give_a_thousand_times_the_forecast(name: str, sales: np.ndarray) -> None:
    np.testing.assert_allclose(_forecast(name, 1000 * sales) / 1000, _forecast(name, sales), rtol=1e-6)


@pytest.mark.parametrize("constant", [-1000.0, 1e5])
def test_additive_methods_do_not_see_where_zero_lies(constant: float, sales: np.ndarray) -> None:
    """Exponential smoothing of an additive form, and Theta where values below zero forbid ratios."""
    below = sales - 300
    forecasts: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "ets": lambda values: baselines.ets(values, 12, 12, "AAA"),
    }
    if constant < 0:
        forecasts["theta"] = lambda values: baselines.theta(values, 12, 12)
    for name, forecast in forecasts.items():
        moved = forecast(below + constant) - constant
        np.testing.assert_allclose(moved, forecast(below), atol=1e-5 * np.ptp(sales), err_msg=name)


@pytest.mark.parametrize("name", SHIFTED)
def test_a_constant_that_is_added_is_added_to_the_forecast(name: str, sales: np.ndarray) -> None:
    np.testing.assert_allclose(_forecast(name, sales + 1000) - 1000, _forecast(name, sales), rtol=1e-6)
