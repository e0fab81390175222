"""Covariates known ahead: their linear effects are found, taken off, and put back where they are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mamba_data_prep.errors import UserError
from tsmamba import Forecaster
from tsmamba.evaluation.outcome import unknown_ahead
from tsmamba.evaluation.selection import select
from tsmamba.methods.covariate_effects import Effects
from tsmamba.methods.methods import LOCAL, METHODS, Task, fit_method
from tsmamba.panel.panel import Panel, make_series

ROWS, AHEAD, SEASON = 400, 24, 12
TASK = Task(horizon=12, season=SEASON)


def panel(slopes: tuple[float, ...], noise: float = 0.1, seed: int = 0) -> Panel:
    """Seasonal random walks, each moved by two covariates: the first by its slope, the second not at all."""
    rng = np.random.default_rng(seed)
    series = []
    for number, slope in enumerate(slopes):
        covariates = rng.normal(size=(ROWS + AHEAD, 2))
        rows = np.arange(ROWS)
        values = np.sin(2 * np.pi * rows / SEASON) + np.cumsum(rng.normal(size=ROWS)) * 0.02
        values = 50 + values + slope * covariates[:ROWS, 0] + noise * rng.normal(size=ROWS)
        series.append(replace(make_series(f"s{number}", rows, values), future=covariates))
    return Panel(tuple(series), future_names=("price", "rain"))


@pytest.mark.parametrize("slopes", [(3.0,), (3.0, 3.0, 3.0), (3.0, -1.0, 0.0)])
def test_the_effects_are_found(slopes: tuple[float, ...]) -> None:
    given = panel(slopes)
    effects = Effects.fit(given, SEASON)
    for one, slope in zip(given.series, slopes, strict=True):
        scale, unit = effects.scaler.scale(one).deviation, effects.scaler.future[0].deviation
        assert effects.own[one.unique_id][0] * scale / unit == pytest.approx(slope, abs=0.15)
        assert effects.own[one.unique_id][1] * scale == pytest.approx(0, abs=0.05)


def test_noise_has_hardly_an_effect() -> None:
    given = panel((0.0, 0.0), noise=1.0)
    effects = Effects.fit(given, SEASON)
    assert max(np.abs(beta).max() for beta in effects.own.values()) < 0.15


def test_a_series_that_was_not_fitted_on_gets_the_common_effects() -> None:
    effects = Effects.fit(panel((2.0, 2.0, 2.0)), SEASON)
    other = panel((2.0,), seed=5)
    other = replace(other, series=(replace(other.series[0], unique_id="new"),))
    left = effects.without(other).series[0].values
    assert np.std(np.diff(left)) < 0.5 * np.std(np.diff(other.series[0].values))


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one == "arima" else ()) for one in (*LOCAL, "ridge")]
)
def test_what_is_known_ahead_makes_forecasts_better(name: str) -> None:
    given = panel((3.0, 3.0))
    back = 12
    actual = np.stack([one.values[-back:] for one in given.series])
    errors = [
        np.abs(fit_method(method, given.before(back), TASK).predict(given, back).point - actual).mean()
        for method in (name, name + "_x")
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("name", ["theta_x", "ridge_x"])
def test_later_values_change_no_earlier_forecast(name: str) -> None:
    given, back = panel((3.0, -1.0)), 30
    edited = replace(
        given, series=tuple(replace(one, values=np.r_[one.values[:-back], [1e6] * back]) for one in given.series)
    )
    found = [fit_method(name, one.before(back), TASK).predict(one, back).point for one in (given, edited)]
    assert np.array_equal(found[0], found[1])


def test_gaps_and_unknown_covariates_leave_forecasts_finite() -> None:
    given = panel((3.0, 3.0))
    values, future = given.series[0].values.copy(), given.series[0].future.copy()
    values[50:90], future[200:230, 0], future[:, 1] = np.nan, np.nan, np.nan
    holed = replace(given, series=(replace(given.series[0], values=values, future=future[:ROWS]), given.series[1]))
    found = fit_method("theta_x", holed, TASK).predict(holed)
    assert np.isfinite(found.point).all()


def test_a_method_says_that_it_needs_covariates() -> None:
    plain = Panel.wide(np.random.default_rng(0).normal(size=(100, 1)))
    with pytest.raises(UserError, match="no covariates known ahead"):
        fit_method("ridge_x", plain, TASK)
    for wrong in ("ets_log", "ridge_log_x", "ridge_x_log", "_x", "auto"):
        assert wrong not in METHODS
        with pytest.raises(UserError, match="no such method"):
            fit_method(wrong, plain, TASK)


def test_auto_takes_covariates_that_help() -> None:
    helped = select(panel((3.0,)), TASK)
    assert any(name.endswith("_x") for name in helped.members)
    assert not any("play no part" in note for note in helped.notes)


def test_rows_ahead_without_covariates_are_told() -> None:
    given = panel((3.0,))
    assert given.known_ahead(12) == 12
    assert given.known_ahead(30) == AHEAD
    one = given.series[0]
    short = replace(given, series=(replace(one, future=one.future[: ROWS + 5]),))
    found = select(short, TASK, ["theta_x"])
    (note,) = unknown_ahead(found, short, 12)
    assert note.startswith("The covariates (price, rain) are given for 5 of the 12 rows ahead")
    assert unknown_ahead(found, given, 12) == []
    assert unknown_ahead(select(short, TASK, ["theta"]), short, 12) == []


def test_auto_says_so_where_covariates_play_no_part() -> None:
    given = panel((0.0,))
    found = select(given, TASK, ["naive", "theta"])
    assert any("covariates (price, rain) play no part" in note for note in found.notes)


@pytest.mark.parametrize("method", ["theta_x", "ets_x", "ridge_x", "auto"])
def test_a_bundle_keeps_the_effects(method: str, tmp_path) -> None:
    days = pd.date_range("2024-01-01", periods=160, freq="D")
    rng = np.random.default_rng(0)
    price = rng.normal(size=160)
    table = pd.DataFrame(
        {"unique_id": "a", "ds": days, "y": 20 + 4 * price + rng.normal(size=160) * 0.1, "price": price}
    )
    known, later = table[:150], table[150:].drop(columns="y")
    forecaster = Forecaster(10, method).fit(known, future=later)
    assert any(name.endswith("_x") for name in forecaster.selection_.members)
    found = forecaster.predict()
    assert np.abs(found["yhat"].to_numpy() - table["y"][150:].to_numpy()).mean() < 0.5
    again = Forecaster.load(forecaster.save(tmp_path / "bundle"))
    with pytest.raises(UserError, match="other future covariates"):
        again.predict(frame=known.drop(columns="price"))
    assert again.selection_.method.name == forecaster.selection_.method.name
    np.testing.assert_allclose(
        again.forecast(forecaster.frame_).quantiles, forecaster.forecast(forecaster.frame_).quantiles, rtol=1e-6
    )
