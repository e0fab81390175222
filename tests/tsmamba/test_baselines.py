"""Baselines: by hand where that is possible, against the library where it does the work, and on what breaks them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tsmamba.methods import baselines
from tsmamba.panel.seasonality import autocorrelation, choose_season, seasonal_strength

NAN = float("nan")
ROWS = np.arange(120.0)
AIRLINE = (100 + 2 * ROWS) * (1 + 0.3 * np.sin(2 * np.pi * ROWS / 12))
"""A trend and a season that grows with it."""


def every_method(history: np.ndarray, horizon: int, season: int) -> dict[str, np.ndarray]:
    return {
        "naive": baselines.naive(history, horizon),
        "seasonal naive": baselines.seasonal_naive(history, horizon, season),
        "drift": baselines.drift(history, horizon),
        "theta": baselines.theta(history, horizon, season),
        "ets": baselines.ets(history, horizon, season),
        "ets of a fixed form": baselines.ets(history, horizon, season, "MAdM"),
        "arima of a fixed order": baselines.arima(history, horizon, season, "(1,1,0)(0,1,0)"),
        "croston": baselines.croston(history, horizon),
    }


def test_naive_methods_by_hand() -> None:
    history = np.array([1.0, 2.0, 3.0, 5.0, 6.0, 8.0])
    assert baselines.naive(history, 2).tolist() == [8, 8]
    assert baselines.seasonal_naive(history, 4, 3).tolist() == [5, 6, 8, 5]
    assert baselines.drift(history, 2) == pytest.approx([9.4, 10.8])


def test_naive_methods_skip_what_was_not_observed() -> None:
    history = np.array([NAN, 2.0, 3.0, 4.0, NAN, NAN])
    assert baselines.naive(history, 1).tolist() == [4]
    assert baselines.seasonal_naive(history, 3, 3).tolist() == [4, 2, 3]
    assert baselines.drift(history, 2) == pytest.approx([7, 8])
    assert baselines.seasonal_naive(np.array([NAN, 7.0]), 2, 2).tolist() == [7, 7]


def test_nothing_observed_gives_no_forecast() -> None:
    for point in every_method(np.full(5, NAN), 2, 1).values():
        assert np.isnan(point).all()


def test_smoothing_with_a_multiplied_season_follows_a_growing_season() -> None:
    form = baselines.ets_form(AIRLINE[:-12], 12)
    error = np.abs(baselines.ets(AIRLINE[:-12], 12, 12, form) - AIRLINE[-12:]).mean()
    assert form.endswith("M")
    assert error < 0.05 * np.abs(baselines.seasonal_naive(AIRLINE[:-12], 12, 12) - AIRLINE[-12:]).mean()


def test_a_long_season_is_taken_out_first() -> None:
    rows = np.arange(300.0)
    values = 5 * np.sin(2 * np.pi * rows / 60) + 0.1 * rows
    for method in (baselines.ets, baselines.theta):
        assert np.abs(method(values[:-60], 60, 60) - values[-60:]).mean() < 0.5


def test_gaps_are_bridged_by_the_season() -> None:
    holed = AIRLINE.copy()
    holed[[30, 31, 61, 80]] = NAN
    whole = baselines.ets(AIRLINE, 12, 12, "AAM")
    assert baselines.ets(holed, 12, 12, "AAM") == pytest.approx(whole, rel=0.05)


def test_a_gap_is_the_mean_of_its_neighbours_a_season_away_and_lies_between_rows_elsewhere() -> None:
    seasonal = np.array([1.0, 10.0, 2.0, NAN, 3.0, 30.0, 4.0, 40.0])
    assert baselines._prepared(seasonal, 2)[3] == 20
    assert baselines._prepared(seasonal, 1)[3] == 2.5
    longer = np.array([1.0, 10.0, 2.0, NAN, 3.0, NAN, 4.0, 40.0])  # of neighbours one season away one is missing
    assert baselines._prepared(longer, 2)[3] == pytest.approx(2.5)
    assert baselines._prepared(np.array([NAN, 1.0, 2.0]), 2).tolist() == [1, 2]


@pytest.mark.parametrize(("rows", "season", "asked"), [(300, 60, 1), (300, 12, 12), (20, 12, 1), (24, 12, 12)])
def test_a_method_is_asked_for_a_season_that_it_can_read(rows: int, season: int, asked: int) -> None:
    seasons = []

    def estimate(values: np.ndarray, found: int) -> np.ndarray:
        seasons.append(found)
        return np.zeros(3)

    baselines._estimated(estimate, np.sin(np.arange(rows) * 2 * np.pi / season) + np.arange(rows) % 7, 3, season)
    assert seasons == [asked]


@pytest.mark.parametrize(("level", "multiplied"), [(0.5, True), (0.0, False), (-3.0, False)])
def test_seasons_that_multiply_are_tried_where_all_values_are_positive(
    level: float, multiplied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(baselines, "_held_out_error", lambda form, *_: tried.append(form) or 0.0)
    history = level + np.tile(np.arange(14.0), 8) + np.random.default_rng(0).random(112)
    history[0] = level
    baselines.ets_form(history, 14)
    assert {"MNM", "MAdM"} <= set(tried) if multiplied else not {"MNM", "MAdM"} & set(tried)
    assert {"ANA", "AAdA"} <= set(tried)


def test_a_form_is_judged_by_the_held_out_rows_that_were_observed() -> None:
    season, history = 14, np.tile(np.arange(14.0), 8)
    history[-3] = NAN
    assert baselines._held_out_error("ANA", history, [98, 84, 70], season) < 0.5
    history[70:] = NAN
    assert baselines._held_out_error("ANA", history, [98, 84, 70], season) == np.inf


def test_the_choice_does_not_see_what_follows() -> None:
    longer = np.concatenate([AIRLINE, np.full(12, 1e6)])
    assert baselines.ets_form(longer[:-12], 12) == baselines.ets_form(AIRLINE, 12)


def test_a_long_season_is_not_left_out_for_having_many_rows() -> None:
    """The AICc alone takes a flat line here, as it charges for each of the day's 24 rows."""
    from statsforecast.models import AutoETS

    generator = np.random.default_rng(3)
    angle = 2 * np.pi * np.arange(24 * 20) / 24
    wanders = np.zeros(len(angle))
    for row in range(1, len(angle)):
        wanders[row] = 0.9 * wanders[row - 1] + 0.5 * generator.normal()
    values = 30 + 10 * np.sin(angle) + 7 * np.sin(2 * angle) + 5 * wanders
    past, actual = values[:-24], values[-24:]
    flat = AutoETS(season_length=24).fit(past / past.mean())
    assert flat.model_["components"][2] == "N"
    assert baselines.ets_form(past, 24)[-1] in "AM"
    error = np.abs(baselines.ets(past, 24, 24) - actual).mean()
    assert error < 0.5 * np.abs(flat.predict(24)["mean"] * past.mean() - actual).mean()


def test_methods_are_those_of_statsforecast() -> None:
    from statsforecast.models import AutoARIMA, AutoETS, AutoTheta

    history = AIRLINE[:-12] / AIRLINE[:-12].mean()  # theirs mind the unit, and ours are asked in this one
    for ours, theirs in ((baselines.ets, AutoETS), (baselines.theta, AutoTheta), (baselines.arima, AutoARIMA)):
        expected = theirs(season_length=12).forecast(history, 12)["mean"]
        assert ours(history, 12, 12) == pytest.approx(expected, rel=1e-6), theirs.__name__


@pytest.mark.parametrize(
    ("history", "season", "constant"),
    [
        (np.tile([1.0, 2, 3, 4], 15) + np.random.default_rng(1).normal(5, 1, 60), 4, ""),
        (5 + np.random.default_rng(0).normal(0, 1, 60), 1, " with mean"),
        (5 + np.cumsum(np.random.default_rng(0).normal(0.3, 1, 60)), 1, " with drift"),
    ],
)
def test_an_order_of_arima_that_is_kept_forecasts_as_the_choice_did(
    history: np.ndarray, season: int, constant: str
) -> None:
    order = baselines.arima_order(history, season)
    assert order.endswith(constant or ")")
    chosen = baselines.arima(history, 6, season)
    assert baselines.arima(history, 6, season, order) == pytest.approx(chosen, rel=1e-9)
    assert baselines.arima(history, 6, season, "(0,1,0)(0,0,0)") != pytest.approx(chosen, rel=1e-4)


def test_an_order_with_a_season_is_chosen_anew_where_two_seasons_are_not_seen() -> None:
    assert baselines.arima(AIRLINE[:20], 3, 12, "(0,0,0)(0,1,0)") == pytest.approx(baselines.arima(AIRLINE[:20], 3, 12))
    assert baselines.arima_order(AIRLINE[:5], 12) == baselines.ANY_ORDER


@pytest.mark.parametrize("unit", [1e-3, 1e3, 7.0])
def test_a_unit_changes_nothing(unit: float) -> None:
    noisy = AIRLINE + np.random.default_rng(2).normal(0, 5, len(AIRLINE))
    for name, point in every_method(noisy * unit, 12, 12).items():
        assert point / unit == pytest.approx(every_method(noisy, 12, 12)[name], rel=1e-6), name


def test_sparse_demand_has_a_positive_mean() -> None:
    generator = np.random.default_rng(3)
    demand = generator.poisson(3, 200) * (generator.random(200) < 0.15)
    assert baselines.is_intermittent(demand.astype(float))
    assert not baselines.is_intermittent(AIRLINE)
    assert not baselines.is_intermittent(-demand.astype(float))
    assert baselines.croston(demand.astype(float), 4) == pytest.approx(np.full(4, demand.mean()), rel=0.4)


@settings(deadline=None, max_examples=12)
@given(
    arrays(np.float64, st.integers(0, 30), elements=st.sampled_from([NAN, 0.0, 1.0, -3.0, 2.5, 1e6])),
    st.integers(1, 6),
    st.integers(1, 9),
)
def test_every_method_answers_whatever_the_history(history: np.ndarray, horizon: int, season: int) -> None:
    for name, point in every_method(history, horizon, season).items():
        assert point.shape == (horizon,), name
        assert np.isfinite(point).all() == np.isfinite(history).any(), name


@settings(deadline=None, max_examples=30)
@given(st.floats(-1e6, 1e6), st.integers(1, 40))
def test_a_constant_series_goes_on(value: float, rows: int) -> None:
    for name, point in every_method(np.full(rows, value), 3, 4).items():
        assert point == pytest.approx(np.full(3, value)), name


def test_a_season_is_found_only_where_there_is_one() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=400)
    weekly = noise + 3 * (np.arange(400) % 7 == 0)
    assert choose_season([weekly], (7, 365)) == 7
    assert choose_season([weekly], ()) == 7
    assert choose_season([noise], ()) == 1
    assert choose_season([noise], (7, 365)) == 7  # the calendar's proposal stands where the data show nothing
    assert choose_season([noise[:9]], (7,)) == 1


def test_a_slow_cycle_is_no_short_season() -> None:
    slow = np.sin(2 * np.pi * np.arange(365 * 4) / 365) + 0.2 * np.random.default_rng(1).normal(size=365 * 4)
    assert seasonal_strength(slow, 7) < 0.15
    assert choose_season([slow], (7, 365)) == 365


def test_autocorrelation_of_observed_pairs() -> None:
    values = np.tile([1.0, -1.0], 50)
    values[10] = NAN
    assert autocorrelation(values, 2) == pytest.approx([1, -1, 1], abs=0.05)
