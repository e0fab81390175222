"""Ridge regression is what its formula says, and simple forecasts are the matrices that they should be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tsmamba.fitting.held_out import make_plan
from tsmamba.fitting.ridge import Products, Solver, anchored, fit_ridge, priors, refit_ridge
from tsmamba.panel.panel import Panel
from tsmamba.panel.scaling import PanelScaler
from tsmamba.panel.windows import Windows


def windows_of(panel: Panel, lookback: int, horizon: int) -> Windows:
    return Windows(panel, PanelScaler.fit(panel, [0] * len(panel)), lookback, horizon)


def test_products_and_solution_are_those_of_the_plain_formula(hourly: Callable[..., Panel]) -> None:
    windows = windows_of(hourly(200, 2), 12, 5)
    plan = make_plan(windows, [50, 50])
    x, y, _ = (part.double() for part in anchored(windows.batch(plan.train)))
    products = Products.of(windows, plan.train)
    torch.testing.assert_close(products.inner, x.T @ x / len(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(products.outer, x.T @ y / len(x), rtol=1e-5, atol=1e-6)
    weight = torch.randn(12, 5, dtype=torch.float64)
    assert products.mse(weight) == pytest.approx(float((y - x @ weight).square().mean()), rel=1e-5)
    prior = torch.randn(12, 5, dtype=torch.float64)
    penalty = 0.1 * float(products.inner.diagonal().mean())
    _, strength, found = Solver(products).best(prior, products, [0.1])
    eye = torch.eye(12, dtype=torch.float64)
    expected = prior + torch.linalg.solve(products.inner + penalty * eye, products.outer - products.inner @ prior)
    assert strength == 0.1
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_products_of_parts_make_those_of_the_whole(hourly: Callable[..., Panel]) -> None:
    windows = windows_of(hourly(200, 3), 12, 5)
    plan = make_plan(windows, [50, 20, 90])
    parts = [Products.of(windows, plan.train.take(np.flatnonzero(plan.train.group == number))) for number in range(3)]
    whole, mean = Products.of(windows, plan.train), Products.mean(parts)
    torch.testing.assert_close(mean.inner, whole.inner, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean.outer, whole.outer, rtol=1e-4, atol=1e-5)
    assert mean.square == pytest.approx(whole.square)


@pytest.mark.parametrize(("lookback", "horizon", "season"), [(24, 30, 7), (48, 24, 24), (10, 3, 10)])
def test_priors_repeat_levels_and_seasons(lookback: int, horizon: int, season: int) -> None:
    x = torch.randn(lookback, dtype=torch.float64)
    last, mean, seasonal = (x @ weight for weight in priors(lookback, horizon, [season]).values())
    assert not last.any()
    torch.testing.assert_close(mean, x[-season:].mean().expand(horizon))
    count = min(7, lookback // season)
    cycle = x[-count * season :].reshape(count, season).mean(dim=0)
    torch.testing.assert_close(seasonal, cycle.repeat(-(-horizon // season))[:horizon])


def test_a_series_that_a_line_explains_is_forecast_without_error() -> None:
    rows = np.arange(300)
    panel = Panel.wide(np.sin(rows / 5)[:, None])
    windows = windows_of(panel, 20, 10)
    plan = make_plan(windows, [60])
    assert fit_ridge(windows, plan.train, plan.valid).mse < 1e-4


def test_series_get_matrices_of_their_own_only_where_that_is_better(hourly: Callable[..., Panel]) -> None:
    rng = np.random.default_rng(0)
    slow, fast = (np.sin(2 * np.pi * np.arange(600) / period) for period in (24, 7))
    other = Panel.wide(np.stack([slow, -fast], axis=1) + 0.3 * rng.normal(size=(600, 2)))
    for panel, differs in ((other, True), (Panel.wide(rng.normal(size=(600, 2))), False)):
        windows = windows_of(panel, 24, 6)
        plan = make_plan(windows, [150, 150])
        fit = fit_ridge(windows, plan.train, plan.valid, seasons=(24,))
        assert bool(fit.own) == differs
        again = refit_ridge(fit, windows, plan.everything(), (24,))
        assert again.own.keys() == fit.own.keys()
        assert not torch.equal(again.weight, fit.weight)


def test_one_stretch_of_held_out_rows_is_not_enough_for_matrices_of_their_own() -> None:
    rng = np.random.default_rng(0)
    slow, fast = (np.sin(2 * np.pi * np.arange(600) / period) for period in (24, 7))
    panel = Panel.wide(np.stack([slow, -fast], axis=1) + 0.3 * rng.normal(size=(600, 2)))
    windows = windows_of(panel, 24, 60)
    for held_back, own in ((240, True), (150, False)):  # 181 and 91 origins: three horizons, and one
        plan = make_plan(windows, [held_back, held_back])
        assert bool(fit_ridge(windows, plan.train, plan.valid, seasons=(24,)).own) == own


def test_the_shorter_lookback_is_chosen_where_the_rest_is_noise() -> None:
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.normal(size=(400, 1)), axis=0)
    windows = windows_of(Panel.wide(walk), 60, 4)
    plan = make_plan(windows, [100])
    fit = fit_ridge(windows, plan.train, plan.valid, lookbacks=(60, 2))
    assert fit.lookback == 2
    assert fit.weight.shape == (2, 4)
