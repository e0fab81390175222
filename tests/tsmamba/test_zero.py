"""The pre-trained forecaster: no unit, no crossing quantiles, nothing read that was not seen; one command trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.errors import UserError
from mamba_kernels import dispatch
from mamba_training.bundle import load_bundle, save_bundle
from tsmamba import Forecaster
from tsmamba.commands.pretrain import run_pretrain
from tsmamba.evaluation.backtest import Backtest, clearly_better, mean_backtest, roll
from tsmamba.evaluation.outcome import outcome_notes
from tsmamba.evaluation.selection import _best, select
from tsmamba.methods.methods import Task, assembled, fit_method
from tsmamba.methods.pretrained import Pretrained, joined_quantiles, shares
from tsmamba.panel.panel import Panel
from tsmamba.zero.features import Context, features
from tsmamba.zero.forecast import at_levels, load, quantiles_of, shipped
from tsmamba.zero.limits import AT_ONCE, FEWEST_ROWS
from tsmamba.zero.network import BACKBONES, LEVELS, ZeroConfig, ZeroNetwork
from tsmamba.zero.prior import RHYTHMS, SHORTEST, draw
from tsmamba.zero.training import DrawnBatches

SEASONS = st.sampled_from([1, 4, 7, 12, 24])
USUAL = (0.025, 0.1, 0.5, 0.9, 0.975)


def _history(seed: int, rows: int, season: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    at = np.arange(rows)
    return 50 + 0.2 * at + 5 * np.sin(2 * np.pi * at / max(season, 2)) * (season > 1) + rng.normal(0, 1, rows)


def _quantiles(history: np.ndarray, horizon: int, season: int, levels: tuple[float, ...] = USUAL) -> np.ndarray:
    return quantiles_of(shipped(), [history], horizon, season, 0, levels)[0]


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 999), rows=st.integers(8, 90), season=SEASONS, scale=st.floats(1e-6, 1e9),
    shift=st.floats(-1e3, 1e3),
)  # fmt: skip
def test_the_unit_of_a_series_changes_nothing_but_the_unit(
    seed: int, rows: int, season: int, scale: float, shift: float
) -> None:
    history = _history(seed, rows, season)
    plain, moved = _quantiles(history, 18, season), _quantiles(scale * (history + shift), 18, season)
    np.testing.assert_allclose(moved / scale - shift, plain, rtol=1e-4, atol=1e-3 * history.std())


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.floats(-1e12, 1e12) | st.just(float("nan")), min_size=1, max_size=60), season=SEASONS,
    horizon=st.integers(1, 90),
)  # fmt: skip
def test_quantiles_are_finite_and_never_cross(values: list[float], season: int, horizon: int) -> None:
    history = np.array(values)
    history[-1] = 1.0 if not np.isfinite(history).any() else history[-1]
    found = _quantiles(history, horizon, season, LEVELS)
    assert found.shape == (horizon, len(LEVELS))
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=1) >= -1e-9 * np.abs(found).max()).all()


def test_a_series_that_never_changed_goes_on_as_it_was() -> None:
    assert (_quantiles(np.full(30, 7.25), 12, 12) == 7.25).all()
    assert (_quantiles(np.array([3.5]), 5, 1) == 3.5).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30, -1e30])
def test_nothing_is_read_where_nothing_was_seen(poison: float) -> None:
    values = torch.from_numpy(_history(0, 48, 12))[None]
    seen = torch.ones(1, 48, dtype=torch.bool)
    seen[0, [0, 1, 2, 20, 33]] = False
    season, cycle = torch.tensor([12]), torch.tensor([0])
    clean = shipped()(Context(torch.where(seen, values, 0.0), seen, season, cycle), 12)
    dirty = shipped()(Context(torch.where(seen, values, poison), seen, season, cycle), 12)
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


@pytest.mark.parametrize("rows", [9, 16, 17, 47, 105, 300])
def test_padding_changes_nothing(rows: int) -> None:
    history = _history(rows, rows, 12)
    padded = np.concatenate([np.full(23, np.nan), history])
    np.testing.assert_allclose(_quantiles(padded, 24, 12), _quantiles(history, 24, 12), rtol=1e-4)


def test_series_read_together_are_read_as_each_by_itself() -> None:
    histories = [_history(seed, rows, 12) for seed, rows in enumerate((12, 40, 40, 150, 700))]
    together = quantiles_of(shipped(), histories, 18, 12, 0, USUAL)
    for history, found in zip(histories, together, strict=True):
        np.testing.assert_allclose(_quantiles(history, 18, 12), found, rtol=1e-4)


def test_few_rows_need_no_compiled_kernel_and_many_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [_history(seed, 144, 12) for seed in range(3)]
    many = quantiles_of(shipped(), histories * 40, 18, 12, 0, USUAL)
    monkeypatch.setitem(dispatch._problems, "numba", "it is not installed")  # to need it would warn, which is an error
    np.testing.assert_allclose(quantiles_of(shipped(), histories, 18, 12, 0, USUAL), many[:3], rtol=1e-5)


def test_a_long_horizon_continues_from_its_own_medians_with_growing_doubt() -> None:
    history = _history(3, 120, 12)
    short, long = _quantiles(history, AT_ONCE, 12), _quantiles(history, 3 * AT_ONCE, 12)
    np.testing.assert_allclose(long[:AT_ONCE], short)
    width = long[:, -1] - long[:, 0]
    assert width[2 * AT_ONCE :].mean() > width[AT_ONCE : 2 * AT_ONCE].mean() > 0.5 * width[:AT_ONCE].mean()
    assert (np.diff(long, axis=1) >= 0).all()


def test_levels_that_were_learnt_are_given_as_they_are_and_others_lie_between() -> None:
    found = np.sort(np.random.default_rng(0).normal(size=(2, 3, len(LEVELS))), axis=-1)
    np.testing.assert_allclose(at_levels(found, LEVELS), found)
    between = at_levels(found, (0.01, 0.15, 0.5, 0.85, 0.99))
    assert (np.diff(between, axis=-1) >= 0).all()
    assert (between[..., 0] < found[..., 0]).all()
    assert ((found[..., 2] <= between[..., 1]) & (between[..., 1] <= found[..., 3])).all()


def test_the_base_is_the_last_season_again() -> None:
    history = torch.from_numpy(_history(0, 36, 12))[None]
    context = Context(history, torch.ones(1, 36, dtype=torch.bool), torch.tensor([12]), torch.tensor([0]))
    found = features(context, 24)
    torch.testing.assert_close(found.base, torch.cat([history[:, -12:]] * 2, dim=1))
    change = (history[:, 12:] - history[:, :-12]).abs().mean()
    torch.testing.assert_close(found.unit[0, 0], change)


def test_the_prior_is_the_same_whenever_it_is_drawn() -> None:
    for number in range(30):
        one, again = draw(5, number, 4000), draw(5, number, 4000)
        np.testing.assert_array_equal(one.values, again.values)
        np.testing.assert_array_equal(one.seen, again.seen)
        assert np.isfinite(one.values).all()
        assert (one.seen.sum(axis=1) >= 2).all()
        assert one.values.shape[1] > one.seen.shape[1]
    assert sum(rhythm.share for rhythm in RHYTHMS) == pytest.approx(1)
    assert SHORTEST == FEWEST_ROWS
    assert not np.array_equal(draw(5, 0, 4000).values, draw(6, 0, 4000).values)


def test_processes_share_the_batches_without_a_repeat() -> None:
    alone = [one.values for one in DrawnBatches(0, 0, 1, 4)]
    shared = [[one.values for one in DrawnBatches(0, rank, 2, 2)] for rank in range(2)]
    for number, values in enumerate(alone):
        np.testing.assert_array_equal(values, shared[number % 2][number // 2])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_learns_in_all_its_parts(backbone: str) -> None:
    torch.manual_seed(0)
    network = ZeroNetwork(ZeroConfig(width=16, depth=1, backbone=backbone))
    drawn = draw(0, 0, 2000)
    values, n_read = torch.from_numpy(drawn.values), drawn.seen.shape[1]
    context = Context(values[:, :n_read], *(torch.from_numpy(x) for x in (drawn.seen, drawn.season, drawn.cycle)))
    network(context, 8).square().mean().backward()
    idle = {name for name, one in network.named_parameters() if one.grad is None}
    unread = {f"past.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    assert idle == (unread if backbone == "identity" else set())


@pytest.mark.slow
def test_one_command_trains_it_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = run_pretrain(out=tmp_path / "whole", max_time=None, max_steps=4, seed=1)
    assert whole["steps"] == 4
    assert whole["series"] > 100
    card = (tmp_path / "whole" / "model" / "README.md").read_text()
    assert "Synthetic series alone" in card
    network = load(tmp_path / "whole")
    found = quantiles_of(network, [_history(0, 50, 12)], 12, 12, 0, USUAL)
    assert np.isfinite(found).all()
    again = run_pretrain(out=tmp_path / "again", max_time=None, max_steps=4, seed=1)
    assert load_bundle(again["model"]).sha256 == load_bundle(whole["model"]).sha256
    with pytest.raises(UserError, match="not empty"):
        run_pretrain(out=tmp_path / "again", max_time=None, max_steps=4, seed=1)
    resumed = run_pretrain(out=tmp_path / "again", max_time=None, max_steps=None, resume=True)  # as it was started
    assert load_bundle(resumed["model"]).sha256 == load_bundle(whole["model"]).sha256


def test_what_is_no_pre_trained_forecaster_is_refused(tmp_path: Path) -> None:
    save_bundle(tmp_path / "other", {"x": torch.zeros(1)}, {"kind": "recipe"}, "# Another\n")
    with pytest.raises(UserError, match="no pre-trained forecaster"):
        load(tmp_path / "other")
    shape = ZeroConfig(width=16, depth=1).to_dict()
    config = {"kind": "tsmamba-zero", "levels": [0.5], "network": shape}
    save_bundle(tmp_path / "levels", {"x": torch.zeros(1)}, config, "# Others\n")
    with pytest.raises(UserError, match="other quantile levels"):
        load(tmp_path / "levels")
    with pytest.raises(ValueError, match="backbone"):
        ZeroConfig(backbone="lstm")


def test_what_ships_is_small_and_tells_how_it_was_made() -> None:
    folder = Path(__file__).parents[2] / "tsmamba" / "models" / "zero"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12 * 2**20
    training = load_bundle(folder).config["training"]
    assert training["series"] > 1_000_000
    assert training["hours"] > 0.5
    assert "tsmamba pretrain" in training["command"]


def test_it_is_better_than_the_last_season_on_series_of_other_making() -> None:
    errors = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        at = np.arange(96)
        series = (100 + at) * (1 + 0.3 * np.sin(2 * np.pi * at / 12 + 1)) + rng.normal(0, 5, 96)
        ahead = _quantiles(series[:84], 12, 12)[:, 2]
        errors.append((np.abs(series[84:] - ahead).mean(), np.abs(series[84:] - series[72:84]).mean()))
    ours, last_season = np.mean(errors, axis=0)
    assert ours < 0.75 * last_season


def _panel(lengths: tuple[int, ...], season: int = 12) -> Panel:
    from tsmamba.panel.panel import make_series

    series = [make_series(str(n), np.arange(rows), _history(n, rows, season)) for n, rows in enumerate(lengths)]
    return replace(Panel(()), series=tuple(series))


def test_a_panel_too_short_for_a_comparison_gets_its_forecast_and_its_intervals() -> None:
    task = Task(8, 1)
    panel = _panel((FEWEST_ROWS, FEWEST_ROWS + 1), 1)
    selection = select(panel, task)
    assert selection.members == ("zero",)
    forecast = selection.calibration.apply(selection.method.predict(panel), panel)
    own = Pretrained.fit("zero", task).predict(panel)
    np.testing.assert_allclose(forecast.quantiles, own.quantiles)
    assert "with its own intervals" in selection.notes[0]
    assert select(_panel((4, 5), 1), task).members == ("naive",)


def test_from_many_rows_at_once_as_from_each_alone() -> None:
    panel, method = _panel((60, 45)), fit_method("zero", _panel((60, 45)), Task(12, 12))
    assert isinstance(method, Pretrained)
    for back, found in zip((20, 12, 0), method.predict_many(panel, (20, 12, 0)), strict=True):
        alone = method.predict(panel, back)
        np.testing.assert_allclose(found.point, alone.point, rtol=1e-4)
        np.testing.assert_allclose(found.quantiles, alone.quantiles, rtol=1e-4)


def test_a_series_silent_for_longer_than_it_reads_gets_its_last_value() -> None:
    silent = np.concatenate([_history(0, 40, 12), np.full(2100, np.nan)])
    panel = Panel.wide(np.stack([silent, _history(1, 2140, 12)], axis=1))
    found = Pretrained.fit("zero", Task(3, 12)).predict(panel)
    np.testing.assert_array_equal(found.point[0], np.full(3, silent[39]))
    assert found.point[1].std() > 0


def test_a_mean_has_the_spread_of_those_that_have_one() -> None:
    rng = np.random.default_rng(0)
    points = [rng.normal(size=(2, 5)) for _ in range(3)]
    bare = [np.repeat(one[..., None], 3, axis=-1) for one in points]
    wide = points[1][..., None] + np.array([-1.0, 0.0, 2.0])
    mean = np.mean(points, axis=0)
    found = joined_quantiles(mean, points, [bare[0], wide, bare[2]])
    np.testing.assert_allclose(found - mean[..., None], np.broadcast_to([-1.0, 0.0, 2.0], (2, 5, 3)))
    np.testing.assert_allclose(joined_quantiles(mean, points, bare), np.repeat(mean[..., None], 3, axis=-1))


def _monthly(rows: int = 84) -> pd.DataFrame:
    times = pd.date_range("2015-01-01", periods=rows, freq="MS")
    return pd.DataFrame({"unique_id": "a", "ds": times, "y": _history(1, rows, 12)})


def test_a_forecaster_keeps_the_network_that_it_was_fitted_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = _monthly()
    forecaster = Forecaster(12, "zero").fit(table)
    assert forecaster.selection_.members == ("zero",)
    wanted = forecaster.predict()
    forecaster.save(tmp_path / "model")

    def another() -> ZeroNetwork:
        raise AssertionError("a loaded forecaster needs nothing that ships")

    monkeypatch.setattr("tsmamba.zero.forecast.shipped", another)
    found = Forecaster.load(tmp_path / "model").predict(frame=table)
    pd.testing.assert_frame_equal(found, wanted)


def test_covariates_known_ahead_are_taken_off_first() -> None:
    table = _monthly()
    promotion = (np.arange(96) % 5 == 0).astype(float)
    table["promotion"] = promotion[:84]
    table["y"] += 30 * promotion[:84]
    ahead = pd.DataFrame({
        "unique_id": "a", "ds": pd.date_range("2022-01-01", periods=12, freq="MS"), "promotion": promotion[84:],
    })  # fmt: skip
    found = Forecaster(12, "zero_x").fit(table, future=ahead).predict()
    ahead_of = found["yhat"].to_numpy()
    lifted = ahead_of[promotion[84:] == 1].mean() - ahead_of[promotion[84:] == 0].mean()
    assert lifted == pytest.approx(30, abs=6)


def test_auto_takes_it_unless_something_is_clearly_better() -> None:
    selection = Forecaster(12).fit(_monthly()).selection_
    board = {one.method: one for one in selection.leaderboard}
    assert {"zero", "theta", "ets", "ridge", "seasonal_naive"} <= set(board)
    assert any("zero" in note for note in selection.notes)
    usual = ("zero", "ets", "theta")
    if selection.members != usual:
        assert clearly_better(board[selection.name], mean_backtest([board[name] for name in usual]))


def test_in_a_mean_it_counts_two_thirds_and_alone_where_seasons_are_few() -> None:
    found = shares(["ets", "zero", "theta"], np.array([10.0, 4.0, 3.9]))
    np.testing.assert_allclose(found, [[1 / 6, 1 / 6, 0], [2 / 3, 2 / 3, 1], [1 / 6, 1 / 6, 0]])
    np.testing.assert_allclose(shares(["zero_x", "theta_x"], np.array([5.0]))[:, 0], [2 / 3, 1 / 3])
    np.testing.assert_allclose(shares(["ets", "theta"], np.array([1.0]))[:, 0], [1 / 2, 1 / 2])
    np.testing.assert_allclose(shares(["zero"], np.array([1.0])), [[1.0]])


def test_a_mean_and_its_backtest_count_by_what_each_series_had() -> None:
    """A long series and one that began late: of this one `zero` alone forecasts until four of its seasons are known."""
    long, late = _history(1, 96, 12), np.concatenate([np.full(42, np.nan), _history(2, 54, 12)])
    panel, task = Panel.wide(np.stack([long, late], axis=1), ["long", "late"]), Task(6, 12)
    fits = {name: fit_method(name, panel, task) for name in ("zero", "theta")}
    both = assembled(fits, ("zero", "theta"), {}, 12)
    rolled = roll(both, panel, (12, 6), 12)
    ofeach = {name: roll(one, panel, (12, 6), 12) for name, one in fits.items()}
    np.testing.assert_allclose(mean_backtest(list(ofeach.values())).point, rolled.point)
    zero, theta = ofeach["zero"].point, ofeach["theta"].point
    np.testing.assert_allclose(rolled.point[:, 0], (2 * zero[:, 0] + theta[:, 0]) / 3)
    np.testing.assert_allclose(rolled.point[0, 1], zero[0, 1])
    np.testing.assert_allclose(rolled.point[1, 1], (2 * zero[1, 1] + theta[1, 1]) / 3)


@pytest.mark.parametrize(("rows", "season", "usual"), [(48, 12, True), (47, 12, False), (60, 1, False)])
def test_smoothing_stands_beside_it_where_seasons_are_known(rows: int, season: int, usual: bool) -> None:
    panel = Panel.wide(_history(1, rows, season)[:, None])
    methods = {name: fit_method(name, panel, Task(6, season)) for name in ("naive", "zero", "ets", "theta")}
    compared = {name: roll(one, panel, (12, 6), season) for name, one in methods.items()}
    taken = _best(compared, np.ones((2, 6), dtype=np.bool_))
    assert taken == (("zero", "ets", "theta") if usual else ("zero",))


def test_no_method_is_said_to_be_better_than_naive_only_where_none_was() -> None:
    selection = Forecaster(4).fit(_monthly()).selection_
    zero = next(one for one in selection.leaderboard if one.method == "zero")
    taken = replace(selection, members=("zero",), method=Pretrained.fit("zero", Task(4, 12)))

    def off_by(name: str, error: float) -> Backtest:
        return replace(zero, method=name, point=np.nan_to_num(zero.actual) + error)

    for ridge, said in ((0.5, "It was no better"), (2.0, "No method was better")):
        choices = {name: off_by(name, e) for name, e in (("zero", 3.0), ("naive", 1.0), ("ridge", ridge))}
        board = replace(taken, leaderboard=tuple(choices.values()))
        assert any(note.startswith(said) for note in outcome_notes(board, choices, taken.method))


def test_a_few_past_rows_do_not_outvote_it() -> None:
    """Where two methods have the same errors on average, the one that happens to be a little ahead is not taken."""
    selection = Forecaster(4).fit(_monthly()).selection_
    zero = next(one for one in selection.leaderboard if one.method == "zero")
    rng = np.random.default_rng(0)
    lucky = replace(zero, method="theta", point=zero.point + rng.normal(0, 0.01, zero.point.shape))
    naive = replace(zero, method="naive", point=zero.point + 100)
    better = replace(zero, method="ets", point=np.where(np.isfinite(zero.actual), zero.actual, zero.point) + 0.01)
    known = np.ones((len(zero.steps_back), zero.horizon), dtype=np.bool_)
    for rival, taken in ((lucky, ("zero",)), (better, ("ets",))):
        found = _best({"naive": naive, rival.method: rival, "zero": zero}, known)
        assert found == taken
    assert _best({"theta": lucky, "ets": better}, known)[0] == "ets"


def test_the_week_of_hours_is_told_to_it(hourly: Callable[..., Panel]) -> None:
    method = Pretrained.fit("zero", Task(24, 24))
    assert method._cycle(hourly(400, 1)) == 168
    assert Pretrained.fit("zero", Task(12, 12))._cycle(_panel((40,))) == 0
