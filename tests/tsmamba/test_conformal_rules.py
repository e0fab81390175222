"""The steps by which errors become shifts, each against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from tsmamba.evaluation import conformal
from tsmamba.evaluation.backtest import Backtest, roll
from tsmamba.evaluation.conformal import (
    Calibration,
    _adapted,
    _independent,
    _neighbours,
    _quantiles,
    _sizes,
    _sizes_of_phases,
    _spread_out,
    calibrate,
    constant_values,
    guessed_shifts,
    offsets,
    recent_scales,
)
from tsmamba.methods.methods import Local, Task
from tsmamba.panel.panel import Panel, make_series

LEVELS = np.array([0.1, 0.5, 0.9])
NAN = np.nan


def backtest(actual: np.ndarray, levels: tuple[float, ...], back: tuple[int, ...]) -> Backtest:
    """Forecasts of 0 throughout, at each level, of what came; `actual` is (K, S, H)."""
    names, ones = tuple(f"s{number}" for number in range(actual.shape[1])), np.ones(actual.shape[1])
    nothing = np.zeros_like(actual)
    return Backtest("x", names, levels, back, actual, nothing, np.zeros((*actual.shape, len(levels))), ones, ones)


def test_a_quantile_is_read_from_the_sample_with_the_finite_sample_correction() -> None:
    sample = np.arange(21.0)[:, None] ** 2 * np.array([1.0, 2.0, 3.0])
    found = _quantiles(sample, LEVELS, 10.0)  # ranks 0.01, 0.5 and 0.99 of 20: 1 - 0.9 * 1.1, and its mirror
    np.testing.assert_allclose(found, [0.2, 2 * 10**2, 3 * (0.2 * 19**2 + 0.8 * 20**2)])
    np.testing.assert_allclose(_quantiles(sample, LEVELS, 9.0), [0, 200, 1200])  # nine: just inside, on either side


def test_a_quantile_beyond_the_sample_is_student_s_or_of_the_tail_that_is_known() -> None:
    sample = np.array([1.0, 2.0, 4.0, 9.0])[:, None] * np.ones(3)
    mean, deviation = 4.0, np.std([1.0, 2.0, 4.0, 9.0], ddof=1)
    for independent, freedom in ((8.0, 7.0), (4.0, 3.0), (2.0, 2.0), (1.0, 2.0)):
        wide = deviation * np.sqrt(1 + 1 / independent)
        student = mean + stats.t.ppf(LEVELS, freedom) * wide
        normal = mean + stats.norm.ppf(LEVELS) * wide
        found, known = (_quantiles(sample, LEVELS, independent, tail) for tail in (None, special.ndtri))
        np.testing.assert_allclose(found[[0, 2]], student[[0, 2]])
        np.testing.assert_allclose(known[[0, 2]], normal[[0, 2]])
    np.testing.assert_allclose(_quantiles(sample, LEVELS, 8.0)[1], 3.0)  # the median is the sample's


@pytest.mark.parametrize("unit", [1.0, 0.1])
def test_scores_count_for_as_many_as_their_means_vary_like(unit: float) -> None:
    def worth(rows: list[list[float]]) -> float:
        return _independent(unit * np.array(rows)[:, None, :])

    # A variance of 8 and one of the means of 6.25, where two scores a forecast should have halved it.
    assert worth([[1, 2], [3, 5], [4, 9]]) == pytest.approx(6 / (6.25 * 2 / 8))
    assert worth([[1, 2], [3, 5], [NAN, NAN], [4, 9]]) == pytest.approx(6 / (6.25 * 2 / 8))
    assert worth([[1, 2], [3, 5], [4, NAN]]) == pytest.approx(5 / (6.25 / 3 * (5 / 3) / 2.5))
    assert worth([[1, 3], [3, 1], [2, 2]]) == pytest.approx(6)  # never for more than there are
    assert worth([[1, 1], [5, 5], [9, 9]]) == pytest.approx(3)  # nor for less than one a forecast
    assert worth([[4, 4], [4, 4], [4, 4]]) == pytest.approx(3)
    for rows, forecasts in (([[1, 3], [3, 1]], 2), ([[1, 2]], 1), ([[NAN, NAN]], 1)):
        assert worth(rows) == forecasts  # too few to tell


def test_steps_are_read_together_with_a_twelfth_of_them_to_either_side() -> None:
    np.testing.assert_allclose(_spread_out(np.array([1.0, 10.0, 100.0, 1000.0])), [11, 111, 1110, 1100])
    np.testing.assert_allclose(_spread_out(np.ones(36))[:5], [4, 5, 6, 7, 7])
    assert _spread_out(np.ones(1)).tolist() == [1]


def test_a_step_s_size_is_the_mean_of_its_middle_scores_and_of_its_neighbours() -> None:
    scores = np.full((1, 2, 5, 5), NAN)
    scores[0, :, 0, 2], scores[0, 0, 1, 2] = (-0.3, 0.5), 0.1
    known = np.isfinite(scores[..., 2])
    scores[known, 0], scores[known, 1], scores[known, 3], scores[known, 4] = 7.0, 8.0, 9.0, 10.0  # other levels'
    whole = (0.9 + 0.9 + 0.1) / 7  # a score counts once for each step that it is read for
    np.testing.assert_allclose(_sizes(scores), [0.3, 0.3, 0.1, whole, whole])
    assert _sizes(np.zeros((3, 1, 2, 5))).tolist() == [1, 1]
    assert _sizes(np.full((3, 1, 2, 5), NAN)).tolist() == [1, 1]


def test_steps_help_out_on_either_side_until_there_are_enough_scores() -> None:
    hundred = np.full(10, 100)
    assert _neighbours(hundred, 5, 6) == (3, 8)
    assert _neighbours(hundred, 0, 1) == (0, 4)
    assert _neighbours(hundred, 9, 10) == (6, 10)
    assert _neighbours(hundred, 2, 6) == (2, 6)
    assert _neighbours(hundred - 1, 2, 6) == (1, 7)
    assert _neighbours(hundred[:3], 1, 2) == (0, 3)
    assert _neighbours(hundred[:2], 1, 2) == (0, 2)


def test_a_step_with_enough_scores_is_read_by_itself() -> None:
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=(400, 1, 4, 1)) ** np.arange(1, 5)[:, None] * np.ones(3)
    alone = [offsets(scores[:, :, [step]], LEVELS)[0] for step in range(4)]
    np.testing.assert_allclose(offsets(scores, LEVELS), alone)


def test_the_middle_level_alone_tells_how_many_scores_are_independent() -> None:
    rng = np.random.default_rng(0)
    scores = 3 + rng.normal(size=(20, 1, 6, 1)) * np.ones(5)
    together = np.where(np.arange(5) == 2, scores, scores[:, :, [0]])  # at the other levels, one error a forecast
    found = [offsets(one, (0.1, 0.2, 0.5, 0.8, 0.9), True, False)[:, 2] for one in (scores, together)]
    np.testing.assert_array_equal(*found)


def test_a_few_scores_are_student_s_alone_and_normal_beside_a_spread_that_a_hundred_move_halfway() -> None:
    scores = 1 + np.random.default_rng(0).normal(size=(8, 1, 1, 3))
    sample = scores[:, 0, 0]
    alone, beside = (offsets(scores, LEVELS, own_spread, False)[0] for own_spread in (False, True))
    np.testing.assert_allclose(alone, _quantiles(sample, LEVELS, 8.0))
    np.testing.assert_allclose(beside, 8 / 108 * _quantiles(sample, LEVELS, 8.0, special.ndtri))


def test_an_aim_never_passes_the_middle() -> None:
    levels, news = (0.3, 0.7), np.ones((20, 1), np.bool_)
    quantiles = np.broadcast_to([-1.0, 1.0], (20, 1, 1, 2))
    for actual, aims in ((9.0, [0.5, 0.76]), (-9.0, [0.24, 0.5])):  # all of 0.3 of what was missed at most, at once
        past = backtest(np.full((20, 1, 1), actual), levels, tuple(range(20, 0, -1)))
        np.testing.assert_allclose(_adapted(np.array([0.45, 0.55]), past, quantiles, news), aims)


def test_an_interval_of_no_width_teaches_nothing_but_a_single_quantile_does() -> None:
    levels = (0.1, 0.5, 0.9)
    above, news = backtest(np.full((1, 1, 1), 9.0), levels, (1,)), np.ones((1, 1), np.bool_)
    for quantiles, moved in (([1.0, 1.0, 1.0], 0.0), ([0.0, 1.0, 1.0], 0.05), ([1.0, 1.0, 2.0], 0.05)):
        found = _adapted(LEVELS, above, np.array(quantiles)[None, None, None], news)
        np.testing.assert_allclose(found, [0.1 * (1 + moved), 0.5, 0.9 * (1 + moved)])
    pair = replace(above, levels=(0.1, 0.9), quantiles=np.zeros((1, 1, 1, 2)))
    assert _adapted(np.array([0.1, 0.9]), pair, np.ones((1, 1, 1, 2)), news).tolist() == [0.1, 0.9]
    missing = replace(pair, actual=np.full((1, 1, 1), NAN))
    assert _adapted(np.array([0.1, 0.9]), missing, np.array([[[[0.0, 1.0]]]]), news).tolist() == [0.1, 0.9]
    single = replace(above, levels=(0.1,), quantiles=np.zeros((1, 1, 1, 1)))
    assert _adapted(np.array([0.1]), single, np.ones((1, 1, 1, 1)), news) == pytest.approx(0.1 + 0.05 * 0.1)


def test_shifts_are_in_units_of_all_changes_up_to_the_end() -> None:
    panel, levels = Panel.wide(np.array([[-1.0], [0.0], [5.0]])), (0.1, 0.9)  # changes of 1 and 5: of 3 in the mean
    forecast = Local("naive", Task(1, 1, levels)).predict(panel)
    found = Calibration(levels, 1, np.array([[-1.0, 2.0]])).apply(forecast, panel)
    np.testing.assert_allclose(found.quantiles, [[[5 - 3, 5 + 2 * 3]]])


def test_where_too_few_errors_are_known_points_get_a_guess_and_a_spread_of_its_own_stays() -> None:
    panel, levels = Panel.wide(np.random.default_rng(0).normal(size=(50, 1)).cumsum(axis=0)), (0.1, 0.5, 0.9)
    past = roll(Local("naive", Task(1, 1, levels)), panel, (3, 2, 1), 1)
    guess = guessed_shifts(panel, 1, levels, 1)
    np.testing.assert_array_equal(calibrate(past, panel, 1)[1].pooled, guess)
    spread = replace(past, quantiles=past.point[..., None] + [-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(calibrate(spread, panel, 1)[1].pooled, np.zeros((1, 3)))


def test_each_value_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def watched(levels: np.ndarray, past: Backtest, quantiles: np.ndarray, news: np.ndarray) -> np.ndarray:
        seen.append(news)
        return _adapted(levels, past, quantiles, news)

    monkeypatch.setattr(conformal, "_adapted", watched)
    panel = Panel.wide(np.random.default_rng(0).normal(size=(200, 1)).cumsum(axis=0))
    calibrate(roll(Local("naive", Task(3, 1, (0.1, 0.9))), panel, range(60, 2, -1), 1), panel, 1)
    assert (np.sum(seen, axis=0) == 1).all()


def test_series_that_others_forecast_are_calibrated_by_themselves() -> None:
    values = np.random.default_rng(0).normal(size=(300, 3)).cumsum(axis=0) * [1.0, 5.0, 30.0]
    panel = Panel.wide(values, ["a", "b", "c"])
    past = roll(Local("naive", Task(3, 1, (0.1, 0.5, 0.9))), panel, range(60, 2, -1), 1)
    mixed, found = calibrate(past, panel, 1, apart=["b"])
    rest, usual = calibrate(past.series(["a", "c"]), panel.select(["a", "c"]), 1)
    single, alone = calibrate(past.series(["b"]), panel.select(["b"]), 1)
    np.testing.assert_array_equal(found.pooled, usual.pooled)
    assert set(found.own) == {"a", "b", "c"}
    for name, table in {**usual.own, "b": alone.pooled}.items():
        np.testing.assert_array_equal(found.own[name], table)
    np.testing.assert_array_equal(mixed.quantiles[:, [0, 2]], rest.quantiles)
    np.testing.assert_array_equal(mixed.quantiles[:, [1]], single.quantiles)
    assert (found.relative, found.origins) == (False, 58)


def sized(
    errors: np.ndarray, back: tuple[int, ...], levels: tuple[float, ...] = (0.1, 0.2, 0.5, 0.8, 0.9)
) -> np.ndarray:
    """Sizes of two phases, from errors (K, S, H) that are all known."""
    past = backtest(errors, levels, back)
    known, first = np.ones((errors.shape[0], errors.shape[2]), np.bool_), np.zeros(errors.shape[1], np.int64)
    # Scores at levels other than the middle one tell no phases apart, and are to change nothing.
    scores = np.where(np.arange(len(levels)) == len(levels) // 2, errors[..., None], 50.0)
    return _sizes_of_phases(scores, known, past, first, 2)


def test_phases_are_told_apart_beside_what_the_step_alone_makes_of_errors() -> None:
    back = (60, 45, 30, 15)
    phase = (np.arange(14) - np.array(back)[:, None]) % 2
    step = 2.0 ** np.arange(14)
    np.testing.assert_allclose(sized(((1 + phase) * step)[:, None], back), [[2 / 3, 4 / 3]], rtol=0.1)
    np.testing.assert_array_equal(sized(np.tile(step, (4, 1))[:, None], back), [[1, 1]])


def test_a_spread_of_its_own_is_not_told_apart_by_phase() -> None:
    noise = np.random.default_rng(0).normal(size=(400, 1)) * np.tile([1.0, 9.0], 200)[:, None]
    panel, levels = Panel.wide(noise), (0.1, 0.5, 0.9)
    plain = roll(Local("seasonal_naive", Task(2, 2, levels)), panel, range(300, 1, -1), 2)
    spread = replace(plain, quantiles=plain.point[..., None] + [-1.0, 0.0, 1.0])
    assert calibrate(plain, panel, 2)[1].sizes
    assert not calibrate(spread, panel, 2)[1].sizes


def test_a_series_has_its_own_sizes_of_phases_where_they_clearly_differ_else_those_of_all() -> None:
    back = tuple(range(60, 0, -2))
    rng = np.random.default_rng(0)
    noise = 1 + 0.1 * rng.random(size=(30, 3, 2))
    errors = noise * np.array([[1.0, 1.0], [1.0, 5.0], [1.0, 5.0]])
    errors[5:, 2] = NAN  # too few rows to tell
    even, uneven, few = sized(errors, back)
    assert uneven[1] / uneven[0] == pytest.approx(5, rel=0.1)
    assert 1.5 < few[1] / few[0] < 4
    np.testing.assert_array_equal(even, few)


@pytest.mark.parametrize("levels", [(0.025, 0.5, 0.9), (0.1, 0.5, 0.975)])
def test_what_never_varied_is_taken_for_constant_where_the_widest_quantile_needs_no_more(
    levels: tuple[float, ...],
) -> None:
    """It takes 39 values alike for a level of 0.025, on whichever side that is."""
    for seasons, enough in ((38, False), (39, True)):
        errors = np.tile([[[0.0, 1.0]]], (seasons, 1, 1)) + [0.0, 1e-3] * np.arange(seasons)[:, None, None]
        assert (sized(errors, tuple(range(2 * seasons, 0, -2)), levels)[0, 0] == 0) == enough
        values = np.random.default_rng(0).normal(size=(seasons, 2)) * [0.0, 1.0]
        found = constant_values(Panel.wide(values.reshape(-1, 1)), (0, 2), 2, levels)
        assert np.isfinite(found).tolist() == [[[enough, False]], [[False, False]]]


def test_constant_values_are_those_of_the_latest_rows_and_need_two_quantiles() -> None:
    noise = np.random.default_rng(0).normal(size=(450, 2))
    noise[:, 0] = np.where(np.arange(450) < 240, 1.0, 3.0)
    panel = Panel.wide(noise.reshape(-1, 1))
    for back, value in ((0, 3.0), (2 * 209, NAN), (2 * 210, 1.0), (2 * 450, NAN), (2 * 500, NAN)):
        np.testing.assert_array_equal(constant_values(panel, (back,), 2, (0.1, 0.9)), [[[value, NAN]]])
    assert np.isnan(constant_values(panel, (0,), 2, (0.5,))).all()
    assert np.isnan(constant_values(panel, (0,), 1, (0.1, 0.9))).all()


def test_a_guess_rests_on_the_series_with_the_most_changes() -> None:
    def series(name: str, rows: int) -> Panel:
        return Panel.wide(np.arange(float(rows))[:, None], [name])

    long, short = series("long", 12), series("short", 4)
    tail = make_series("short", long.series[0].times[8:], short.series[0].values)
    both = replace(long, series=(tail, *long.series))
    np.testing.assert_array_equal(guessed_shifts(both, 2, (0.1, 0.9), 1), guessed_shifts(long, 2, (0.1, 0.9), 1))


def test_changes_before_the_latest_400_rows_do_not_count() -> None:
    values = np.concatenate([np.cumsum(np.full(500, 100.0)), 50_000 + np.arange(400.0)])
    assert recent_scales(Panel.wide(values[:, None]), (0,), 1).tolist() == [[1.0]]


def test_two_values_alike_make_a_series_that_never_changed_and_one_does_not() -> None:
    assert recent_scales(Panel.wide(np.full((3, 1), 7.0)), (1, 2, 3), 1).tolist() == [[0.0], [1.0], [1.0]]
