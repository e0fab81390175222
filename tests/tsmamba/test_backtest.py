"""Rolling origins never see what follows them, lie where they should, and choose honestly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.errors import UserError
from tsmamba.config import FitConfig, load_config
from tsmamba.evaluation.backtest import Backtest, actuals, roll, roll_refitted, rolling_origins, skill
from tsmamba.evaluation.selection import BASELINES, candidates, describe, honest_choice, select
from tsmamba.methods.methods import Combination, Learned, Local, Task, fit_method
from tsmamba.panel.panel import Panel

SEASON, HORIZON = 7, 5
GENERATOR = np.random.default_rng(3)
ROWS = np.arange(150)
VALUES = np.stack(
    [10 + 4 * np.sin(2 * np.pi * ROWS / SEASON) + GENERATOR.normal(0, 0.3, 150) for _ in range(2)], axis=1
)
PANEL = Panel.wide(VALUES, ["a", "b"])
TASK = Task(HORIZON, SEASON)


@settings(deadline=None, max_examples=60)
@given(st.integers(4, 3000), st.integers(1, 60), st.integers(1, 60))
def test_origins_fall_and_leave_a_history_and_a_whole_horizon(rows: int, horizon: int, season: int) -> None:
    try:
        origins = rolling_origins([rows], horizon, season)
    except UserError:
        assert horizon > rows - max(2, min(2 * season, rows // 3))
        return
    assert list(origins) == sorted(set(origins), reverse=True)
    assert origins[-1] == horizon
    assert rows - origins[0] >= 2
    assert len(origins) <= 12


def test_origins_as_asked() -> None:
    assert rolling_origins([100], 5, 1, count=3) == (15, 10, 5)
    assert rolling_origins([100], 5, 1, count=3, stride=2) == (9, 7, 5)


@pytest.mark.parametrize("name", ["naive", "seasonal_naive", "drift", "theta", "ets", "ridge"])
def test_changing_the_future_changes_no_past_forecast(name: str) -> None:
    origins = (25, 10)
    changed = VALUES.copy()
    changed[-10:] += 1000
    fitted = fit_method(name, PANEL.before(25), TASK)
    again = fit_method(name, Panel.wide(changed, ["a", "b"]).before(25), TASK)
    ours = roll(fitted, PANEL, origins, SEASON)
    theirs = roll(again, Panel.wide(changed, ["a", "b"]), origins, SEASON)
    assert np.array_equal(ours.point, theirs.point)
    assert not np.array_equal(ours.actual, theirs.actual)


def test_what_came_is_what_followed_the_origin() -> None:
    found = actuals(PANEL, (10, 3), HORIZON)
    assert np.array_equal(found[0], VALUES[-10:-5].T)
    assert np.array_equal(found[1, :, :3], VALUES[-3:].T)
    assert np.isnan(found[1, :, 3:]).all()


def test_refitting_sees_the_history_of_each_origin_and_no_more() -> None:
    seen = []

    def fit(history: Panel) -> Local:
        seen.append(history.lengths[0])
        return Local("naive", TASK)

    backtest = roll_refitted(fit, "naive", PANEL, (20, 10, 5), SEASON)
    assert seen == [130, 140, 145]
    assert backtest.point[1, 0, 0] == VALUES[139, 0]


def test_scores_by_series_and_step_average_to_the_whole() -> None:
    backtest = roll(Local("naive", TASK), PANEL, (20, 10, 5), SEASON)
    whole = backtest.scores()
    assert np.mean([row["mae"] for row in backtest.by_series()]) == pytest.approx(whole["mae"])
    assert np.mean([row["mse"] for row in backtest.by_horizon()]) == pytest.approx(whole["mse"])
    assert [row["step"] for row in backtest.by_horizon()] == [1, 2, 3, 4, 5]
    assert backtest.loss() == pytest.approx(whole["mase"])
    assert np.mean(backtest.losses()) == pytest.approx(whole["mase"])


def test_skill_is_the_share_of_an_error_that_is_saved() -> None:
    assert skill(1.0, 4.0) == 0.75
    assert np.isnan(skill(1.0, 0.0))


def test_a_combination_is_the_mean_of_its_members() -> None:
    members = (Local("naive", TASK), Local("seasonal_naive", TASK))
    mean = (members[0].predict(PANEL).point + members[1].predict(PANEL).point) / 2
    assert np.array_equal(Combination(members).predict(PANEL).point, mean)


def test_a_seasonal_panel_is_not_forecast_by_the_last_value() -> None:
    selection = select(PANEL, TASK, ["naive", "seasonal_naive", "drift"])
    assert selection.name == "seasonal_naive"
    assert selection.skills()["naive"] > 0.5
    assert selection.leaderboard[0].loss() <= selection.leaderboard[-1].loss()
    assert {one.method for one in selection.leaderboard} >= set(BASELINES)


def test_the_honest_choice_uses_earlier_origins_only() -> None:
    """Where the world changes half-way, the choice at the first changed origin is still the old one.

    A season of 7 rows, then a random walk with giant steps: first the season repeated is best, then, by far, the last
    value. The choice may change only after a whole changed forecast has come to pass.
    """
    rng = np.random.default_rng(0)
    seasonal = np.tile(rng.normal(0, 10, 7), 30) + rng.normal(0, 0.01, 210)
    walk = np.cumsum(rng.normal(0, 1000, 70))
    panel = Panel.wide(np.concatenate([seasonal, walk])[:, None])
    task, back = Task(7, 7), tuple(range(140, 6, -7))
    found = {name: roll(Local(name, task), panel, back, 7) for name in ("naive", "seasonal_naive")}
    honest = honest_choice(found, back)
    assert honest is not None
    assert honest.steps_back == back[1:]  # the first origin has none before it
    for place, rows in enumerate(honest.steps_back):
        known = [number for number, before in enumerate(back) if before >= rows + 7]
        losses = {name: one.origins(known).loss() for name, one in found.items()}
        best = min(losses, key=lambda name: losses[name])
        np.testing.assert_array_equal(honest.point[place], found[best].point[back.index(rows)])
    hindsight = min(found, key=lambda name: found[name].loss())
    assert (honest.point[:9] == found["seasonal_naive"].point[1:10]).all()
    assert hindsight == "naive"  # whoever chose by all origins would have taken this from the beginning


def test_too_short_series_get_a_naive_forecast_and_a_word() -> None:
    short = Panel.wide(VALUES[:4], ["a", "b"])
    selection = select(short, Task(6))
    forecast = selection.calibration.apply(selection.method.predict(short), short)
    assert selection.name == "naive"
    assert "too short" in selection.notes[0]
    assert np.isfinite(forecast.quantiles).all()
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()
    assert describe(selection)["leaderboard"] == []


def test_one_row_has_a_forecast_but_no_intervals() -> None:
    single = Panel.wide(VALUES[:1], ["a", "b"])
    selection = select(single, Task(2))
    forecast = selection.calibration.apply(selection.method.predict(single), single)
    assert np.array_equal(forecast.point, np.repeat(VALUES[0][:, None], 2, axis=1))
    assert np.isnan(forecast.quantiles).all()


def test_mamba_needs_enough_windows() -> None:
    names, left_out = candidates(PANEL, TASK)
    assert "mamba" not in names
    assert "too few" in left_out["mamba"]
    assert "mamba" in candidates(Panel.wide(np.zeros((2000, 1))), TASK)[0]
    assert "mamba" in candidates(Panel.wide(np.zeros((64, 40))), TASK)[0]
    names, left_out = candidates(Panel.wide(np.zeros((40, 80))), TASK)
    assert "mamba" not in names
    assert "40 rows are too short" in left_out["mamba"]


def test_logarithms_need_positive_values() -> None:
    below = replace(PANEL, series=(replace(PANEL.series[0], values=PANEL.series[0].values - 100),))
    assert "ridge_log" in candidates(PANEL, TASK)[0]
    assert "ridge_log" not in candidates(below, TASK)[0]
    with pytest.raises(UserError, match="positive"):
        fit_method("ridge_log", below, TASK)


def hardly_trained(name: str, **changes: object) -> FitConfig:
    """The preset with three steps of training, whatever the machine's speed."""
    return load_config(name, **{**changes, "train__least_steps": 3, "train__most_steps": 3, "train__lr": 1e-7})


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UserError, match="no such method"):
        select(PANEL, TASK, ["magic"])


def test_some_of_the_origins() -> None:
    backtest: Backtest = roll(Local("naive", TASK), PANEL, (20, 10, 5), SEASON)
    assert backtest.origins([2]).steps_back == (5,)
    assert np.array_equal(backtest.origins(slice(1, 3)).point, backtest.point[1:])


def test_mamba_alone_is_not_said_to_help_where_a_baseline_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing foresees the steps of a random walk: no model, however long it is trained, beats the last value."""
    monkeypatch.setattr("tsmamba.methods.methods.load_config", hardly_trained)
    walk = Panel.wide(np.cumsum(np.random.default_rng(0).normal(size=(500, 1)), axis=0))
    found = select(walk, Task(horizon=6, season=1), ["smamba"])
    assert found.members == ("smamba",)
    assert found.notes[0].startswith("Mamba did not help: smamba has MASE ")
    assert "of the best other method (" in found.notes[0]


def test_two_rows_get_no_intervals_and_it_is_said_so() -> None:
    found = select(Panel.wide(np.array([[1.0], [2.0]])), TASK)
    assert found.notes[0].endswith("this is the seasonal naive forecast, without intervals.")


def test_mamba_is_not_said_to_help_where_its_ridge_alone_forecasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that was hardly trained adds nothing to its ridge regression, which forecasts by itself."""
    monkeypatch.setattr("tsmamba.methods.methods.load_config", hardly_trained)
    noise = np.random.default_rng(0).normal(size=(300, 1)) + 0.05 * np.arange(300)[:, None]
    found = select(Panel.wide(noise), Task(horizon=6, season=1), ["mamba"])
    assert isinstance(found.method, Learned)
    assert found.method.model.report["mamba_helped"] is False
    assert found.notes[0].startswith("Mamba did not help: nothing of its network was kept")
