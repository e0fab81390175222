"""The forecaster as a Python user meets it: data frames in and out, scikit-learn's manners, bundles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from mamba_data_prep.errors import UserError
from tsmamba import Forecaster

COLUMNS = ["unique_id", "ds", "yhat", "q0.025", "q0.1", "q0.5", "q0.9", "q0.975"]


def panel(rows: int = 120, series: int = 2, zone: str | None = None) -> pd.DataFrame:
    """Days with a weekly season, long."""
    noise = np.random.default_rng(5).normal(0, 0.2, (series, rows))
    times = pd.date_range("2024-01-01", periods=rows, freq="D", tz=zone)
    parts = [
        pd.DataFrame({"unique_id": f"s{k}", "ds": times, "y": 20 + 5 * (np.arange(rows) % 7) + noise[k]})
        for k in range(series)
    ]
    return pd.concat(parts, ignore_index=True)


def test_from_a_table_to_a_table() -> None:
    table = panel()
    forecast = Forecaster(horizon=7, method="seasonal_naive").fit(table).predict()
    assert list(forecast.columns) == COLUMNS
    assert forecast["unique_id"].tolist() == ["s0"] * 7 + ["s1"] * 7
    assert forecast["ds"].iloc[0] == pd.Timestamp("2024-04-30")
    assert np.allclose(forecast["yhat"].iloc[:7], table["y"].iloc[113:120])
    assert (np.diff(forecast[COLUMNS[3:]].to_numpy(), axis=1) >= 0).all()


def test_a_zone_comes_back() -> None:
    forecast = Forecaster(horizon=2, method="naive").fit(panel(60, 1, "Europe/Berlin")).predict()
    assert str(forecast["ds"].dt.tz) == "Europe/Berlin"
    assert forecast["ds"].dt.hour.tolist() == [0, 0]


def test_the_default_horizon_is_a_season() -> None:
    fitted = Forecaster(method="seasonal_naive").fit(panel(series=1))
    assert fitted.task_.season == 7
    assert len(fitted.predict()) == 7
    assert len(fitted.predict(3)) == 3
    before = fitted.predict()
    assert len(fitted.predict(9)) == 9
    assert (fitted.task_.horizon, fitted.get_params()["horizon"]) == (7, None)
    pd.testing.assert_frame_equal(fitted.predict(), before)


def test_scikit_learn_may_clone_and_change_it() -> None:
    original = Forecaster(horizon=5, method="theta", seed=3)
    copy = clone(original).set_params(horizon=6)
    assert copy.get_params() == {**original.get_params(), "horizon": 6}
    assert not hasattr(copy, "selection_")
    with pytest.raises(ValueError, match="no parameter 'window'"):
        copy.set_params(window=3)


@pytest.mark.parametrize("method", ["ets", "ridge"])
def test_a_saved_forecaster_says_the_same_elsewhere(method: str, tmp_path) -> None:
    table = panel(series=1)
    fitted = Forecaster(horizon=7, method=method).fit(table)
    (tmp_path / "there").mkdir()
    fitted.save(tmp_path / "here").rename(tmp_path / "there" / "model")
    again = Forecaster.load(tmp_path / "there" / "model")
    ours, theirs = fitted.predict(), again.predict(frame=table)
    assert np.allclose(ours[COLUMNS[2:]], theirs[COLUMNS[2:]], rtol=1e-6)
    assert again.get_params() == fitted.get_params()
    with pytest.raises(UserError, match="shorter horizon"):
        again.predict(8, frame=table)


def test_the_same_seed_gives_the_same_numbers() -> None:
    table = panel(series=1)
    first, second = (Forecaster(horizon=7, method="ridge", seed=1).fit(table).predict() for _ in range(2))
    assert first.equals(second)


def test_levels_are_the_user_s() -> None:
    forecast = Forecaster(horizon=2, method="naive", levels=(0.05, 0.95)).fit(panel(60, 1)).predict()
    assert list(forecast.columns) == ["unique_id", "ds", "yhat", "q0.05", "q0.95"]
    with pytest.raises(UserError, match="ascending"):
        Forecaster(levels=(0.9, 0.1)).fit(panel(60, 1))


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(UserError, match="not fitted"):
        Forecaster().predict()
    with pytest.raises(UserError, match="no such method"):
        Forecaster(method="magic").fit(panel(60, 1))
    fitted = Forecaster(horizon=2, method="naive").fit(panel(60, 1))
    hourly = pd.DataFrame({"ds": pd.date_range("2024", periods=50, freq="h"), "y": np.arange(50.0)})
    with pytest.raises(UserError, match="another step"):
        fitted.predict(frame=hourly)


def test_gaps_and_unequal_lengths() -> None:
    table = panel().drop(index=[5, 6, 40, 130, 131, 132, 133, 134, 135])
    forecast = Forecaster(horizon=7, method="seasonal_naive").fit(table).predict()
    assert np.isfinite(forecast[COLUMNS[2:]].to_numpy()).all()


def test_arima_chooses_an_order_once_and_a_bundle_keeps_it(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from statsforecast.models import AutoARIMA

    orders = []
    choose = AutoARIMA.fit
    monkeypatch.setattr(AutoARIMA, "fit", lambda self, y, **rest: orders.append(len(y)) or choose(self, y, **rest))
    monkeypatch.setattr(AutoARIMA, "forecast", lambda *_, **__: pytest.fail("an order was chosen again"))
    fitted = Forecaster(horizon=7, method="arima").fit(panel(series=1))
    assert len(orders) == 2
    assert max(orders) == 120
    loaded = Forecaster.load(fitted.save(tmp_path / "model"))
    pd.testing.assert_frame_equal(loaded.predict(frame=panel(series=1)), fitted.predict())
