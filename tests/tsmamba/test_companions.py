"""A series is forecast as if it were alone, whatever stands beside it, and forecasting changes no forecaster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsmamba.commands.forecast import run_forecast
from tsmamba.evaluation.backtest import rolling_origins, skill
from tsmamba.evaluation.outcome import saved_text
from tsmamba.forecaster import Forecaster

NUMBERS = ["yhat", "q0.025", "q0.1", "q0.5", "q0.9", "q0.975"]


def months(name: str, rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    at = np.arange(rows)
    values = 100 + at + 15 * np.sin(2 * np.pi * at / 12) + rng.normal(0, 2, rows)
    return pd.DataFrame({"unique_id": name, "ds": pd.date_range("2015-01-31", periods=rows, freq="ME"), "y": values})


@pytest.mark.parametrize("lengths", [(1, 3), (5,), (14, 14, 14)], ids=["tiny", "one", "three"])
def test_short_companions_leave_a_long_series_its_forecast(lengths: tuple[int, ...]) -> None:
    long = months("a", 72)
    others = [months(f"b{number}", rows, number + 1) for number, rows in enumerate(lengths)]
    alone = Forecaster(horizon=12).fit(long)
    beside = Forecaster(horizon=12).fit(pd.concat([long, *others]))
    assert beside.selection_.members == alone.selection_.members
    found = beside.predict()
    np.testing.assert_allclose(found.loc[found["unique_id"] == "a", NUMBERS], alone.predict()[NUMBERS])
    assert found["unique_id"].nunique() == 1 + len(lengths)
    assert any(note.startswith("Too short to be forecast from their own past (b0") for note in beside.about_["notes"])


def test_companions_survive_a_journey_through_a_bundle(tmp_path: Path) -> None:
    table = pd.concat([months("a", 72), months("b", 3)])
    fitted = Forecaster(horizon=12, method="ets").fit(table)
    fitted.save(tmp_path / "model")
    again = Forecaster.load(tmp_path / "model").predict(frame=table)
    np.testing.assert_allclose(again[NUMBERS], fitted.predict()[NUMBERS], rtol=1e-6)


def test_origins_are_those_of_the_series_that_holds_most_rows() -> None:
    assert rolling_origins([72, 16, 16, 16], 12, 12) == rolling_origins([72], 12, 12)
    assert rolling_origins([40] * 9, 5, 1) == rolling_origins([40], 5, 1)


def test_a_longer_forecast_leaves_a_fitted_forecaster_as_it_is() -> None:
    fitted = Forecaster(horizon=6, method="theta").fit(months("a", 72))
    task, selection, about, before = fitted.task_, fitted.selection_, dict(fitted.about_), fitted.predict()
    longer = fitted.predict(24)
    assert len(longer) == 24
    assert (fitted.task_, fitted.horizon, dict(fitted.about_)) == (task, 6, about)
    assert fitted.selection_ is selection
    pd.testing.assert_frame_equal(fitted.predict(), before)
    pd.testing.assert_frame_equal(Forecaster(horizon=24, method="theta").fit(months("a", 72)).predict(), longer)


def test_series_that_do_not_meet_are_forecast_or_refused_but_never_crash(tmp_path: Path) -> None:
    rows = ["unique_id,ds,y", *(f"a,2024-01-{day:02d},{day}" for day in range(1, 6)), "b,2024-01-23,3"]
    (tmp_path / "gap.csv").write_text("\n".join(rows) + "\n")
    found = run_forecast(csv=tmp_path / "gap.csv", reading={}, horizon=3, out=tmp_path / "f.csv", quiet=True)
    assert found["series"] == 2
    assert len(pd.read_csv(tmp_path / "f.csv")) == 6


def test_the_skill_without_hindsight_is_printed(tmp_path: Path) -> None:
    months("a", 72).to_csv(tmp_path / "a.csv", index=False)
    found = run_forecast(csv=tmp_path / "a.csv", reading={}, horizon=6, out=tmp_path / "f.csv", quiet=True)
    honest = saved_text(found["skill_of_choosing"])
    assert "naive" in honest
    assert f"Without hindsight, each origin by what was best before it: {honest}" in found["text"]


def test_shares_of_an_error_that_is_all_but_zero_are_not_printed_as_numbers() -> None:
    assert saved_text({"ridge": -3451570.0, "naive": 0.123, "drift": None}) == "below -1000% ridge, +12% naive"
    assert np.isnan(skill(0.1, 1e-13))
    assert skill(0.1, 0.2) == 0.5
