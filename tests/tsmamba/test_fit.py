"""Fits learn from what they may see and from nothing else, and are the same after a journey through a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mamba_configs import load_preset, preset_text
from mamba_data_prep.errors import UserError
from tsmamba.config import FitConfig, load_config
from tsmamba.fitting.fit import fit_panel
from tsmamba.fitting.fitted import FittedModel
from tsmamba.fitting.held_out import calendar_columns, held_back_rows, make_plan
from tsmamba.fitting.ridge import Products, Solver
from tsmamba.panel.panel import Panel
from tsmamba.panel.scaling import PanelScaler
from tsmamba.panel.windows import Windows
from tsmamba.streaming.stream import Stream

MakePanel = Callable[..., Panel]
MakeConfig = Callable[..., FitConfig]
MODELS = ("ridge", "auto", "smamba", "tsmamba", "causal")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_survives_its_bundle_and_the_bundle_its_move(
    name: str, hourly: MakePanel, tiny: MakeConfig, tmp_path: Path
) -> None:
    panel = hourly(300, 2)
    fitted = fit_panel(panel, 12, tiny(name), out=tmp_path / "run")
    forecast = fitted.predict(panel)
    assert forecast.point.shape == (2, 12)
    assert forecast.quantiles.shape == (2, 12, 5)
    assert bool((np.diff(forecast.quantiles, axis=-1) >= 0).all())
    shutil.move(tmp_path / "run" / "model", tmp_path / "moved")
    shutil.rmtree(tmp_path / "run")
    again = FittedModel.load(tmp_path / "moved")
    np.testing.assert_array_equal(again.predict(panel).quantiles, forecast.quantiles)
    assert (again.lookback, again.horizon, again.levels) == (48, 12, fitted.levels)
    assert again.report == fitted.report


@pytest.mark.parametrize("name", MODELS)
def test_editing_the_future_changes_no_past_forecast(name: str, hourly: MakePanel, tiny: MakeConfig) -> None:
    panel = hourly(300, 2)
    fitted = fit_panel(panel.before(100), 12, tiny(name))
    edited = replace(
        panel,
        series=tuple(
            replace(one, values=np.concatenate([one.values[:-60], one.values[-60:] * -7 + 1e4])) for one in panel.series
        ),
    )
    before, after = fitted.predict(panel, 60), fitted.predict(edited, 60)
    np.testing.assert_array_equal(after.point, before.point)
    np.testing.assert_array_equal(after.quantiles, before.quantiles)
    assert not np.array_equal(fitted.predict(edited, 59).point, fitted.predict(panel, 59).point)


def test_scales_and_weights_see_the_training_rows_only(hourly: MakePanel, tiny: MakeConfig) -> None:
    panel = hourly(300, 2)
    config = tiny("ridge", valid_rows=60, refit=False)
    edited = replace(
        panel,
        series=tuple(
            replace(one, values=np.concatenate([one.values[:-60], one.values[-60:] + 5])) for one in panel.series
        ),
    )
    one, other = fit_panel(panel, 12, config), fit_panel(edited, 12, config)
    assert one.scaler == other.scaler
    assert one.report["valid_mse"] != other.report["valid_mse"]
    # With the strength of the penalty given, nothing is left to choose: the weights are those of the training rows.
    fits = []
    for given in (panel, edited):
        plan = make_plan(Windows(given, one.scaler, 48, 12), [60] * 2)
        solver = Solver(Products.of(plan.windows, plan.train))
        none = torch.zeros(48, 12, dtype=torch.float64)
        fits.append(solver.best(none, Products.of(plan.windows, plan.valid), [1.0])[2])
    torch.testing.assert_close(fits[0], fits[1], rtol=0, atol=0)


def test_windows_are_counted_and_no_training_horizon_is_held_back(hourly: MakePanel) -> None:
    panel = hourly(300, 3)
    windows = Windows(panel, PanelScaler.fit(panel, [60] * 3), 48, 12)
    plan = make_plan(windows, [60] * 3)
    assert len(plan.train) == 3 * (300 - 60 - 12 - 48 + 1)
    assert len(plan.valid) == 3 * (60 - 12 + 1)
    assert plan.train.row.max() + 12 == 300 - 60
    assert plan.valid.row.min() == 300 - 60
    assert len(plan.everything()) == 3 * (300 - 12 - 48 + 1)


def test_series_of_different_lengths_with_gaps_are_fitted_together(hourly: MakePanel, tiny: MakeConfig) -> None:
    panel = hourly(300, 2)
    short = panel.series[1].before(210)
    short = replace(short, values=short.values.copy(), future=short.future[:90])
    short.values[20:30] = np.nan
    mixed = replace(panel, series=(panel.series[0], short))
    forecast = fit_panel(mixed, 12, tiny()).predict(mixed)
    assert bool(np.isfinite(forecast.quantiles).all())
    assert abs(forecast.point[1].mean() - np.nanmean(short.values)) < 3 * np.nanstd(short.values)


def test_a_seasonal_series_is_forecast_much_better_than_by_its_last_value(hourly: MakePanel, tiny: MakeConfig) -> None:
    panel = hourly(400, 2)
    fitted = fit_panel(panel.before(24), 24, tiny("auto"))
    truth = np.stack([one.values[-24:] for one in panel.series])
    naive = np.stack([np.repeat(one.values[-25], 24) for one in panel.series])
    error = np.abs(fitted.predict(panel, 24).point - truth).mean()
    assert error < 0.3 * np.abs(naive - truth).mean()


def test_a_killed_run_goes_on_where_it_was(hourly: MakePanel, tiny: MakeConfig, tmp_path: Path) -> None:
    panel = hourly(300, 2)
    whole = fit_panel(panel, 12, tiny(), out=tmp_path / "whole").predict(panel)
    fit_panel(panel, 12, tiny(), out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    again = fit_panel(panel, 12, tiny(), out=tmp_path / "run", resume=True).predict(panel)
    np.testing.assert_allclose(again.point, whole.point, rtol=1e-5)
    with pytest.raises(UserError, match="not empty"):
        fit_panel(panel, 12, tiny(), out=tmp_path / "run")


def test_a_stream_forecasts_what_a_rerun_over_the_whole_history_would(hourly: MakePanel, tiny: MakeConfig) -> None:
    panel = hourly(300, 2)
    fitted = fit_panel(panel, 6, tiny("causal"))
    one = panel.series[1]
    windows = fitted.windows(panel)
    whole = Windows(panel, fitted.scaler, 300, 6, calendar=fitted.calendar)
    batch = whole.batch(whole.origins([300, 300], [300, 300]))
    scale = fitted.scaler.series[one.unique_id]
    model = fitted.model
    model.shape = replace(model.shape, lookback=300)
    rerun = model.every_row(batch)[1, 0].detach().double().numpy() * scale.deviation + scale.mean  # type: ignore[operator]
    stream = Stream(fitted, one.unique_id, panel.frequency)
    streamed = np.stack([stream.push(time, value)[0] for time, value in zip(one.times, one.values, strict=True)])
    assert windows.lookback == 48
    np.testing.assert_allclose(streamed, rerun, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"unique_id": "nobody"}, "does not know this series"), ({"name": "ridge"}, "only causal models")],
    ids=["unknown series", "no causal model"],
)
def test_streams_refuse_what_they_cannot_do(
    change: dict[str, str], message: str, hourly: MakePanel, tiny: MakeConfig
) -> None:
    fitted = fit_panel(hourly(200, 1), 6, tiny(change.get("name", "causal")))
    with pytest.raises(UserError, match=message):
        Stream(fitted, change.get("unique_id", "0"))


def test_too_short_series_and_foreign_covariates_are_refused(hourly: MakePanel, tiny: MakeConfig) -> None:
    with pytest.raises(UserError, match="too short"):
        held_back_rows(hourly(20, 1), 12, tiny())
    panel = hourly(200, 1)
    fitted = fit_panel(panel, 6, tiny("ridge"))
    with pytest.raises(UserError, match="other past covariates"):
        fitted.predict(replace(panel, past_names=("wind",)))
    empty = replace(panel, series=(replace(panel.series[0], values=np.full(200, np.nan)),))
    with pytest.raises(UserError, match="no value was observed"):
        fitted.predict(empty)


@pytest.mark.parametrize(("rows", "columns"), [(60, ()), (24 * 5, (0,)), (24 * 40, (0, 1)), (24 * 100, (0, 1, 2))])
def test_only_calendar_cycles_that_training_saw_repeat_are_given(
    rows: int, columns: tuple[int, ...], hourly: MakePanel
) -> None:
    panel = hourly(rows, 1)
    assert calendar_columns(panel, "repeated", [0]) == columns
    assert calendar_columns(panel, "all", [0]) == (0, 1, 2, 3)
    assert calendar_columns(panel, "none", [0]) == ()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_preset_that_names_and_explains_every_setting(name: str) -> None:
    config = load_config(name)
    assert config.model == name
    written = load_preset("tsmamba", name)
    assert written.keys() == config.model_dump().keys()
    for section in ("network", "train"):
        assert written[section].keys() == config.model_dump()[section].keys()
    lines = [line for line in preset_text("tsmamba", name).splitlines() if line and not line.endswith(":")]
    assert all("#" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"levels": [0.9, 0.1]}, "ascending"), ({"train__lr": -1}, "train.lr"), ({"colour": "red"}, "colour")],
    ids=["levels", "rate", "unknown"],
)
def test_configurations_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config("auto", **changes)


def test_a_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: ridge\nlookback: 30\n")
    assert load_config(tmp_path / "mine.yaml").lookback == 30
    with pytest.raises(UserError, match="no such preset"):
        load_config("nothing")
