"""A series of a panel is forecast by another method than the rest where its own past speaks clearly for that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsmamba import Forecaster
from tsmamba.evaluation.backtest import roll
from tsmamba.evaluation.conformal import calibrate
from tsmamba.evaluation.selection import select
from tsmamba.methods.methods import Task, assembled, fit_method
from tsmamba.panel.panel import Panel

ROWS = 120


def saw(rows: int = ROWS) -> np.ndarray:
    """A strong season around a level that stays, with hardly any noise."""
    generator = np.random.default_rng(5)
    return np.tile(generator.normal(size=12) * 10, rows // 12) + generator.normal(size=rows) * 0.3


def walk(seed: int) -> np.ndarray:
    return 100 + np.random.default_rng(seed).normal(size=ROWS).cumsum()


def table() -> pd.DataFrame:
    times = pd.date_range("2010", periods=ROWS, freq="MS")
    series = {"exact": saw(), **{f"walk{seed}": walk(seed) for seed in range(3)}}
    return pd.concat([pd.DataFrame({"unique_id": name, "ds": times, "y": y}) for name, y in series.items()])


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return Forecaster(6, season=12, max_time="1s").fit(table())


def test_a_series_gets_the_method_that_suits_it(fitted: Forecaster) -> None:
    own = fitted.selection_.own
    assert "exact" in own
    assert len(own) < 4
    found = fitted.predict()
    exact = found[found["unique_id"] == "exact"]["yhat"].to_numpy()
    assert exact == pytest.approx(saw()[:6], abs=0.1 * saw().std())
    assert any("exact by " in note for note in fitted.selection_.notes)
    assert "by others" in fitted.selection_.name
    assert [row["method"] for row in fitted.about_["leaderboard"] if row["taken"]] == [fitted.selection_.name]


def test_the_others_are_forecast_as_without_it(fitted: Forecaster) -> None:
    panel, task, selection = fitted._panel_, fitted.task_, fitted.selection_
    assert selection.members == ("zero", "ets", "theta")
    zero, ets, theta = (fit_method(name, panel, task).predict(panel).point for name in selection.members)
    alone = (4 * zero + ets + theta) / 6
    joint = selection.method.predict(panel)
    others = [place for place, name in enumerate(joint.ids) if name not in selection.own]
    assert others
    assert joint.point[others] == pytest.approx(alone[others])


def test_each_series_has_the_width_of_its_own_method(fitted: Forecaster) -> None:
    """A method that gives points alone gets its width from its own errors, whatever spread the others' method has."""
    panel = fitted._panel_
    own = {"exact": ("theta",)}
    fits = {name: fit_method(name, panel.before(60), fitted.task_) for name in ("zero", "theta")}
    back = list(range(60, 5, -6))
    past = roll(assembled(fits, ("zero",), own, 12), panel, back, 12)
    mixed, calibration = calibrate(past, panel, 12, apart=own)
    exact, rest = ["exact"], [name for name in panel.ids if name != "exact"]
    alone = calibrate(roll(fits["theta"], panel.select(exact), back, 12), panel.select(exact), 12)[1]
    usual = calibrate(roll(fits["zero"], panel.select(rest), back, 12), panel.select(rest), 12)[1]
    assert calibration.own["exact"] == pytest.approx(alone.pooled)
    assert calibration.pooled == pytest.approx(usual.pooled)
    assert np.ptp(calibration.own["exact"], axis=-1).min() > 0
    assert mixed.ids == tuple(panel.ids)


def test_the_order_of_series_changes_nothing(fitted: Forecaster) -> None:
    method, panel = fitted.selection_.method, fitted._panel_
    back = panel.select(panel.ids[::-1])
    one, other = method.predict(panel, 6), method.predict(back, 6)
    assert other.ids == one.ids[::-1]
    assert other.point[::-1] == pytest.approx(one.point, rel=1e-5)
    assert other.quantiles[::-1] == pytest.approx(one.quantiles, rel=1e-5)


def test_a_bundle_keeps_it(fitted: Forecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    assert loaded.selection_.own == fitted.selection_.own
    pd.testing.assert_frame_equal(loaded.predict(frame=table()), fitted.predict(), rtol=1e-5)


def test_methods_that_were_named_are_for_all_series() -> None:
    panel = Panel.wide(np.stack([saw(), walk(0)], axis=1))
    for names in (["theta", "drift"], ["naive"], ["zero"]):
        assert not select(panel, Task(6, 12), names).own


def test_sparse_demand_is_forecast_by_its_mean() -> None:
    generator = np.random.default_rng(8)
    demand = generator.poisson(4, 365) * (generator.random(365) < 0.15)
    days = pd.DataFrame({"ds": pd.date_range("2021", periods=365), "y": demand.astype(float)})
    forecaster = Forecaster(14, max_time="1s").fit(days)
    assert forecaster.predict()["yhat"].mean() == pytest.approx(demand.mean(), rel=0.5)
    assert "RMSSE" in " ".join(forecaster.selection_.notes)
