"""`auto` takes what is more complex only where held-out rows speak clearly for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from tsmamba.config import FitConfig
from tsmamba.fitting.held_out import MOST_STRETCHES, choose_seasons, make_plan, sure_saving
from tsmamba.fitting.ridge import NEGLIGIBLE, fit_ridge, refit_ridge
from tsmamba.fitting.shrinkage import SHRINKAGES, best_shrinkage, safe_shrinkage
from tsmamba.panel.panel import Panel
from tsmamba.panel.scaling import PanelScaler
from tsmamba.panel.windows import Windows


def sums(savings: list[float]) -> torch.Tensor:
    """Sums over stretches of 10 errors each: at full shrinkage a stretch saves this share of errors of size 1."""
    shrinkage = torch.tensor(SHRINKAGES, dtype=torch.float64)
    errors = 10 * (1 - torch.tensor(savings, dtype=torch.float64)[:, None] * shrinkage)
    return torch.cat([errors, errors, torch.full((len(savings), 1), 10.0, dtype=torch.float64)], dim=1)


@pytest.mark.parametrize(
    ("savings", "shrinkage"),
    [
        ([0.05, 0.04, 0.06, 0.05], 1.0),  # everywhere a little
        ([0.4, 0.1, -0.2, -0.2], 0.0),  # on the whole, but not everywhere: that may be luck
        ([-0.1, -0.1, -0.1, -0.1], 0.0),
        ([0.3], 0.0),  # one stretch tells nothing
        ([0.1, 0.4, 0.1], 1.0),
        ([0.02, 0.4, 0.0], 0.0),  # of three stretches one: that is within the doubt that so few leave
    ],
)
def test_the_network_is_used_only_where_it_saves_clearly(savings: list[float], shrinkage: float) -> None:
    table = torch.cat([sums(savings), torch.zeros(3, 2 * len(SHRINKAGES) + 1, dtype=torch.float64)])
    assert safe_shrinkage(table) == shrinkage


def test_so_few_stretches_leave_no_more_doubt_than_many() -> None:
    """Where nothing is saved, about one draw in six is thought to save surely, however many stretches there are."""
    rng = np.random.default_rng(0)
    for stretches in (2, 3, 5, 16):
        taken = sure_saving(rng.normal(size=(stretches, 20_000))) > 0
        assert taken.mean() == pytest.approx(norm.sf(1), abs=0.01)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_no_shrinkage_is_chosen_whose_squares_are_worse_than_the_ridges(seed: int) -> None:
    mse, mae = torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 1.5, (2, len(SHRINKAGES))))
    best = best_shrinkage(mse, mae)
    assert mse[best] <= mse[0]
    assert mse[best] / mse[0] + mae[best] / mae[0] <= 2


@given(st.integers(20, 120), st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_stretches_follow_one_another_and_hold_a_horizon(held: int, horizon: int) -> None:
    panel = Panel.wide(np.random.default_rng(0).normal(size=(300, 2)))
    plan = make_plan(Windows(panel, PanelScaler.fit(panel, [held] * 2), 24, horizon), [held] * 2)
    stretches = plan.stretches(plan.valid)
    for group in range(2):
        mine = stretches[plan.valid.group == group]
        counts = np.bincount(mine)
        assert mine[0] == 0
        assert (np.diff(mine) >= 0).all()
        assert len(counts) <= MOST_STRETCHES
        assert counts.min() >= min(horizon, len(mine))


def test_a_season_is_taken_where_training_rows_show_it(hourly: Callable[..., Panel]) -> None:
    waves = hourly(600, 2)
    noise = np.cumsum(np.random.default_rng(1).normal(size=(600, 2)), axis=0)
    walk = Panel.wide(noise, None, waves.series[0].times, waves.frequency)
    assert 24 in choose_seasons(waves, FitConfig(), [150, 150])
    assert choose_seasons(walk, FitConfig(), [150, 150]) == ()
    assert choose_seasons(walk, FitConfig(seasons=(7,)), [150, 150]) == (7,)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_simple_forecasts_do_no_notable_harm_to_a_ridge(seed: int) -> None:
    walk = Panel.wide(np.cumsum(np.random.default_rng(seed).normal(size=(600, 2)), axis=0))
    windows = Windows(walk, PanelScaler.fit(walk, [150] * 2), 72, 24)
    plan = make_plan(windows, [150, 150])
    plain, fit = (fit_ridge(windows, plan.train, plan.valid, seasons=seasons) for seasons in (None, (24,)))
    assert fit.mse <= (1 + NEGLIGIBLE) * plain.mse * (1 + 1e-6)
    again = refit_ridge(fit, windows, plan.train, (24,))
    assert again.strengths == fit.strengths
    assert again.own.keys() == fit.own.keys()
    torch.testing.assert_close(again.weight, fit.weight, rtol=0.02, atol=1e-3)
    for number, weight in fit.own.items():
        torch.testing.assert_close(again.own[number], weight, rtol=0.02, atol=1e-3)
