"""The rules by which methods are chosen, on backtests whose errors are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mamba_data_prep.errors import UserError
from tsmamba.evaluation import selection
from tsmamba.evaluation.backtest import FEWEST_ORIGINS, Backtest
from tsmamba.evaluation.selection import candidates
from tsmamba.methods.methods import fit_method
from tsmamba.methods.task import Task
from tsmamba.panel.panel import Panel
from tsmamba.panel.tables import frame_of, panel_of

K, S, H = 8, 3, 2
ALL = np.ones((K, H), np.bool_)


def backtest(method: str, errors: object, **more: object) -> Backtest:
    """A method whose forecasts are off by `errors`, broadcast to (K, S, H)."""
    off = np.broadcast_to(np.asarray(errors, float), (K, S, H)).copy()
    settings = {"seasons": np.full((K, S), 10.0), "season": 12, **more}
    return Backtest(
        method, ("a", "b", "c"), (0.5,), tuple(range(K + H, H, -1)), np.zeros((K, S, H)), off,
        np.full((K, S, H, 1), np.nan), np.ones(S), np.ones(S), **settings,
    )  # fmt: skip


def compared(**errors: object) -> dict[str, Backtest]:
    return {name: backtest(name, error) for name, error in errors.items()}


def wavy(size: float, spread: float, seed: int = 0) -> np.ndarray:
    """Errors of about one size, different at each origin."""
    return size + spread * np.random.default_rng(seed).uniform(-1, 1, (K, 1, 1))


def test_surely_saved_is_the_mean_less_two_standard_errors() -> None:
    saved = np.array([[1.0, 0.3, 5.0], [2.0, -0.2, np.nan], [0.5, 0.1, np.nan], [1.5, 0.0, 5.0], [1.0, np.nan, 5.0]])
    found = selection._surely_saved(saved)
    for series in (0, 1):
        known = saved[:, series][np.isfinite(saved[:, series])]
        expected = known.mean() - 2 * known.std(ddof=1) / np.sqrt(len(known))
        assert found[series] == pytest.approx(expected)
    assert found[2] == -np.inf  # three origins are too few
    assert selection._surely_saved(np.full((FEWEST_ORIGINS, 1), 1.0))[0] == 1.0


def test_a_series_that_another_method_surely_suits_has_it() -> None:
    usual = wavy(1.0, 0.1) * np.ones((K, S, 1))
    theta, drift = np.full((K, S, 1), 3.0), np.full((K, S, 1), 3.0)
    theta[:, 1] = 0.2
    drift[:, 2] = np.resize([0.1, 1.8], (K, 1))  # better on the mean, and not surely
    methods = {name: backtest(name, usual, season=1) for name in ("zero",)}
    methods |= {name: backtest(name, values, season=1) for name, values in (("theta", theta), ("drift", drift))}
    methods |= {"naive": backtest("naive", 4.0, season=1), "ridge": backtest("ridge", 0.0 * usual + 2.9, season=1)}
    members, own = selection._choice(methods, ALL)
    assert members == ("zero",)
    assert own == {"b": ("theta",)}


def test_what_is_learnt_from_all_series_is_not_taken_for_one() -> None:
    ridge = np.full((K, S, 1), 3.0)
    ridge[:, 1] = 0.1
    methods = compared(zero=wavy(1.0, 0.1), naive=4.0, ridge=ridge)
    assert selection._choice(methods, ALL)[1] == {}


@pytest.mark.parametrize("missing", ["naive", "zero"])
def test_series_have_methods_of_their_own_only_where_all_were_compared(missing: str) -> None:
    theta = np.full((K, S, 1), 3.0)
    theta[:, 1] = 0.2
    methods = compared(zero=wavy(1.0, 0.1), naive=4.0, theta=theta)
    assert selection._choice(methods, ALL)[1] == {"b": ("theta",)}
    del methods[missing]
    assert selection._choice(methods, ALL)[1] == {}


def test_a_single_series_has_the_choice_of_the_panel() -> None:
    methods = {name: one.series(["b"]) for name, one in compared(zero=wavy(1, 0.1), naive=4.0, theta=0.9).items()}
    assert selection._choice(methods, ALL)[1] == {}


def test_a_few_origins_say_nothing_of_a_series() -> None:
    theta = np.full((K, S, 1), 3.0)
    theta[:, 1] = 0.2
    methods = compared(zero=1.0, naive=4.0, theta=theta)
    few = {name: one.origins(slice(0, FEWEST_ORIGINS - 1)) for name, one in methods.items()}
    assert selection._choice(few, ALL[: FEWEST_ORIGINS - 1])[1] == {}
    enough = {name: one.origins(slice(0, FEWEST_ORIGINS)) for name, one in methods.items()}
    assert selection._choice(enough, ALL[:FEWEST_ORIGINS])[1] == {"b": ("theta",)}


def test_only_rows_that_are_known_speak() -> None:
    late = np.full((K, S, H), 2.0)
    late[K // 2 :] = 0.0  # perfect, but after what is known
    methods = compared(drift=late, theta=1.0)
    known = np.zeros((K, H), np.bool_)
    known[: K // 2] = True
    assert selection._best(methods, known) == ("theta",)
    assert selection._best(methods, ALL) != ("theta",)


def test_of_named_methods_the_one_with_the_smallest_loss_is_taken() -> None:
    assert selection._best(compared(drift=1.0, theta=0.5, ets=0.7), ALL) == ("theta",)
    unknown = {"drift": backtest("drift", np.nan), "theta": backtest("theta", 3.0)}
    assert selection._best(unknown, ALL) == ("theta",)
    nothing_known = {name: backtest(name, np.nan) for name in ("naive", "zero", "theta")}
    assert selection._best(nothing_known, ALL) == ("zero",)


def opposite(name: str, sign: float, seed: int) -> Backtest:
    return backtest(name, sign * 1.0 + 0.05 * np.random.default_rng(seed).normal(size=(K, S, H)))


def test_a_mean_is_taken_where_it_is_clearly_better() -> None:
    two = {"ets": opposite("ets", 1, 0), "theta": opposite("theta", -1, 1)}
    assert set(selection._best(two, ALL)) == {"ets", "theta"}
    same = {"ets": opposite("ets", 1, 0), "theta": opposite("theta", 1, 1)}
    assert len(selection._best(same, ALL)) == 1 or selection._best(same, ALL) != ("ets", "theta", "drift", "naive")


def test_no_more_than_three_are_combined_and_one_of_them_learnt() -> None:
    random = np.random.default_rng(3)
    noise = {
        name: backtest(name, random.normal(size=(K, S, H))) for name in ("ets", "theta", "drift", "arima", "croston")
    }
    assert len(selection._best(noise, ALL)) <= 3
    learnt = {"ridge": opposite("ridge", 1, 0), "mamba": opposite("mamba", -1, 1)}
    assert len(selection._best(learnt, ALL)) == 1
    mixed = {"ridge": opposite("ridge", 1, 0), "ets": opposite("ets", -1, 1)}
    assert set(selection._best(mixed, ALL)) == {"ridge", "ets"}


def test_the_usual_stays_unless_something_is_clearly_better() -> None:
    close = compared(zero=1.0, naive=4.0, theta=np.resize([0.1, 1.8], (K, 1, 1)))
    assert selection._best(close, ALL) == ("zero",)
    clear = compared(zero=wavy(1.0, 0.1, 1), naive=4.0, theta=wavy(0.3, 0.1, 2))
    assert "theta" in selection._best(clear, ALL)


def test_the_usual_stays_where_it_is_compared_with_the_naive_forecast_alone() -> None:
    close = compared(zero=1.0, naive=np.resize([0.1, 1.8], (K, 1, 1)))
    assert selection._best(close, ALL) == ("zero",)


def test_a_series_may_have_a_mean_of_the_usual_and_another() -> None:
    """The errors of `zero` and `theta` have opposite signs for one series, and for the others `theta` is bad."""
    zero, theta = wavy(1.0, 0.1) * np.ones((K, S, H)), np.full((K, S, H), 3.0)
    theta[:, 1] = -zero[:, 1]
    methods = compared(zero=zero, naive=4.0, theta=theta)
    assert selection._choice(methods, ALL) == (("zero",), {"b": ("zero", "theta")})


def test_a_method_that_is_no_better_is_not_a_series_own() -> None:
    methods = compared(zero=wavy(1.0, 0.1), theta=wavy(1.0, 0.1), naive=4.0)
    assert selection._choice(methods, ALL) == (("zero",), {})


def test_nothing_is_fitted_on_rows_that_are_forecast(monkeypatch: pytest.MonkeyPatch, rising: Panel) -> None:
    fit, rows = selection.fit_method, []

    def seen(name: str, past: Panel, *given: object, **more: object) -> object:
        rows.append(set(past.lengths))
        return fit(name, past, *given, **more)

    monkeypatch.setattr(selection, "fit_method", seen)
    selection.compare(rising, Task(4), ["naive", "drift"], (16, 12, 8), lambda text: None)
    assert rows == [{90 - 16}] * 2


def test_the_usual_of_seasonal_series_is_a_mean() -> None:
    methods = compared(zero=1.0, ets=1.0, theta=1.0)
    assert selection._usual(methods) == ("zero", "ets", "theta")
    for missing in ("ets", "theta"):
        assert selection._usual({name: one for name, one in methods.items() if name != missing}) == ("zero",)

    def changed(**more: object) -> tuple[str, ...]:
        return selection._usual({name: backtest(name, 1.0, **more) for name in methods})

    assert changed(season=1) == ("zero",)
    assert changed(seasons=None) == ("zero",)
    assert changed(intermittent=True) == ("croston",)
    last = 3 / 12  # steps back of the last origin, in seasons
    assert changed(seasons=np.full((K, S), 4.0 - last)) == ("zero", "ets", "theta")
    assert changed(seasons=np.full((K, S), 3.9 - last)) == ("zero",)
    two_long = np.tile([1.0, 9.0, 9.0], (K, 1))
    assert changed(seasons=two_long) == ("zero", "ets", "theta")


def panel(rows: int, series: int = 1, least: float = -1.0) -> Panel:
    random = np.random.default_rng(0)
    return Panel.wide(random.uniform(least, 1, (rows, series)))


def test_mamba_is_tried_where_windows_are_enough_and_series_long() -> None:
    assert "mamba" in candidates(panel(1020), Task(10))[0]
    names, left_out = candidates(panel(1019), Task(10))
    assert "mamba" not in names
    assert left_out["mamba"].startswith("999 windows")
    assert "mamba" in candidates(panel(64, 20), Task(1))[0]
    names, left_out = candidates(panel(63, 20), Task(1))
    assert "mamba" not in names
    assert left_out["mamba"].startswith("series of 63 rows")
    assert candidates(panel(50), Task(2, 2))[0][:3] == ["naive", "seasonal_naive", "drift"]
    assert candidates(panel(50), Task(2, 1))[1]["seasonal_naive"] == "there is no season"
    assert "ridge_log" in candidates(panel(50, least=0.5), Task(2))[0]
    assert "ridge_log" not in candidates(panel(50), Task(2))[0]


def test_baselines_are_shown_beside() -> None:
    assert selection._shown(["zero"], Task(2, 12)) == list(selection.BASELINES)
    assert "seasonal_naive" in selection._shown(["zero"], Task(2, 2))
    assert "seasonal_naive" not in selection._shown(["zero"], Task(2))
    assert "ets" not in selection._shown(["ets"], Task(2))


@pytest.mark.parametrize(
    ("names", "lengths", "count"),
    [
        ({"ridge"}, [500], 200), ({"naive", "drift"}, [500] * 24, 200),  # fast methods
        ({"ets"}, [500], 24), ({"theta", "ridge"}, [500] * 10, 20), ({"arima"}, [500] * 24, 8),  # 200 fits at most
        ({"ets"}, [500] * 100, 5),  # as many as were compared, at least
        ({"zero"}, [500] * 20, 50), ({"zero"}, [5000] * 4, 61), ({"zero"}, [5000] * 24, 10),  # 500,000 rows
    ],
)  # fmt: skip
def test_the_work_of_calibrating_is_bounded(names: set[str], lengths: list[int], count: int) -> None:
    back = selection._calibrating(names, lengths, (411, 300, 200, 100, 12), 12)
    assert len(back) == count
    assert (back[0], back[-1]) == (411, 12)
    assert np.ptp(np.diff(back)) <= 1


def test_fits_of_slow_methods_are_two_hundred_at_most() -> None:
    assert len(selection._calibrating({"ets"}, [500] * 67, (411,), 12)) == 2  # a third round would be 201
    assert len(selection._calibrating({"ets"}, [500] * 100, (411,), 12)) == 2


def test_no_row_is_calibrated_on_twice() -> None:
    assert selection._calibrating({"naive"}, [50], (14, 12), 10) == [14, 13, 12, 11, 10]
    assert selection._calibrating({"naive"}, [50], (10,), 10) == [10]


@pytest.mark.parametrize(
    ("rows", "season", "names", "taken"),
    [
        ((10, 9), 1, ["naive", "zero", "ets"], "zero"), ((10, 8), 12, ["zero", "ets"], "zero"),
        ((10, 7), 1, ["naive", "zero", "ets"], "naive"), ((7, 7), 2, ["zero", "ets"], "seasonal_naive"),
        ((10, 9), 1, ["zero"], "zero"), ((10, 9), 1, ["drift"], "drift"), ((10, 9), 1, ["ridge"], "zero"),
    ],
)  # fmt: skip
def test_series_too_short_to_compare_have_what_needs_no_fit(
    rows: tuple[int, int], season: int, names: list[str], taken: str
) -> None:
    random = np.random.default_rng(1)
    whole = pd.DataFrame({
        "unique_id": np.repeat(["a", "b"], rows), "y": random.normal(size=sum(rows)),
        "ds": pd.concat([pd.Series(pd.date_range("2020", periods=n)) for n in rows]).to_numpy(),
    })  # fmt: skip
    found = selection._untested(panel_of(frame_of(whole)), Task(6, season), names)
    assert found.members == (taken,)
    assert f"at most {max(rows)} rows, horizon 6" in found.notes[0]
    own = "with its own intervals" if taken == "zero" else "with the intervals of a random walk"
    assert own in found.notes[0]


def test_a_series_shorter_than_the_horizon_is_forecast_untested() -> None:
    found = selection.select(panel(5), Task(6), ["drift"])
    assert found.members == ("drift",)
    assert found.leaderboard == ()


def test_a_choice_without_hindsight_needs_a_forecast_that_has_come_to_pass() -> None:
    methods = compared(naive=1.0, drift=2.0)
    assert selection.honest_choice(methods, range(K + H, H, -1)) is not None
    assert selection.honest_choice({name: one.origins([0]) for name, one in methods.items()}, (4,)) is None


@pytest.mark.parametrize(("back", "again"), [(10, False), (11, True)])
def test_a_network_that_saw_nearly_all_rows_is_not_trained_again(
    monkeypatch: pytest.MonkeyPatch, back: int, again: bool
) -> None:
    """Of series of 50 rows, a fifth is 10."""
    fitted = fit_method("naive", panel(50), Task(5))
    calls = []
    monkeypatch.setattr(selection, "learned", lambda one: object())
    monkeypatch.setattr(selection, "fit_method", lambda *given, **more: calls.append(given) or fitted)
    network = replace(fitted, name="mamba")
    assert selection._final(network, panel(50), Task(5), back, {}) is (fitted if again else network)
    assert bool(calls) == again
    calls.clear()
    selection._final(replace(fitted, name="ridge"), panel(50), Task(5), 5, {})
    assert calls  # a ridge costs nothing


def test_what_is_compared_is_shown_in_the_order_of_its_loss() -> None:
    random = np.random.default_rng(4)
    rising = Panel.wide(np.cumsum(random.normal(1, 0.3, (90, 3)), axis=0))
    alone = selection.select(rising, Task(4), ["naive", "drift"], beside=False)
    assert alone.members == ("drift",)
    assert [one.method for one in alone.leaderboard] == ["drift", "naive"]
    assert [one.loss() for one in alone.leaderboard] == sorted(one.loss() for one in alone.leaderboard)
    assert all(0 <= seconds < 100 for seconds in alone.seconds.values())
    assert set(alone.seconds) == {"naive", "drift"}
    beside = selection.select(rising, Task(4), ["drift"])
    assert {one.method for one in beside.leaderboard} == {"drift", *selection._shown(["drift"], Task(4))}
    assert beside.members == ("drift",)  # what is only shown is not for choice
    given = selection.select(rising, Task(4), ["naive", "drift"], beside=False, origins=(12, 8, 4))
    assert given.leaderboard[0].steps_back == (12, 8, 4)


def test_a_series_too_short_to_be_judged_has_no_voice() -> None:
    random = np.random.default_rng(5)
    long, short = random.normal(size=90).cumsum(), np.full(90, np.nan)
    short[-4:] = 1000 * random.normal(size=4)
    both = Panel.wide(np.stack([long, short], axis=1))
    assert selection._testable(both, Task(4)).ids == both.ids[:1]
    assert selection._testable(both.select(both.ids[1:]), Task(4)).ids == both.ids[1:]
    assert selection._span(both.series[1]) == 4
    assert selection._span(both.series[0]) == 90
    assert selection._span(replace(both.series[0], values=np.full(90, np.nan))) == 0
    chosen = selection.select(both, Task(4), ["naive", "drift"], beside=False)
    assert np.ptp(chosen.calibration.own[both.ids[1]], axis=1).min() > 0  # the spread of a random walk
    chosen = selection.select(both, Task(4), ["zero"], beside=False)
    assert np.ptp(chosen.calibration.own[both.ids[1]]) == 0  # the forecast has a spread of its own


def test_two_methods_and_two_series_are_enough_for_a_choice_of_their_own() -> None:
    naive = np.full((K, S, 1), 3.0)
    naive[:, 1] = 0.2
    methods = {name: one.series(["a", "b"]) for name, one in compared(zero=wavy(1, 0.1), naive=naive).items()}
    assert selection._choice(methods, ALL) == (("zero",), {"b": ("naive",)})


def test_seasons_are_counted_up_to_the_last_origin() -> None:
    methods = ("zero", "ets", "theta")
    seasons = np.full((K, S), 1.0)
    seasons[-1] = 3.75  # three rows before the end, of a season of twelve: four at the end
    assert selection._usual({name: backtest(name, 1.0, seasons=seasons) for name in methods}) == methods
    seasons[-1] = 3.74
    assert selection._usual({name: backtest(name, 1.0, seasons=seasons) for name in methods}) == ("zero",)


def test_a_choice_without_hindsight_sees_what_has_just_come_to_pass() -> None:
    """Forecasts are two rows long: at the third origin the first one is known whole, at the second its first row."""
    good_at_first = np.ones((K, S, H))
    good_at_first[0] = 0.0
    found = selection.honest_choice(compared(drift=good_at_first, theta=0.5), range(K + H, H, -1))
    assert found is not None
    assert found.method == "auto"
    assert found.steps_back == tuple(range(K + H, H, -1))[2:]
    assert np.abs(found.actual - found.point)[0].max() == 1.0  # what was best on the first is taken at the third
    assert np.abs(found.actual - found.point)[-1].max() == 0.5


def test_a_single_forecast_that_came_to_pass_is_enough_for_a_choice_without_hindsight() -> None:
    """Forecasts are two rows long, so of three origins the last one alone has a whole forecast behind it."""
    three = {name: one.origins(slice(0, 3)) for name, one in compared(drift=1.0, theta=0.5).items()}
    found = selection.honest_choice(three, range(K + H, K + H - 3, -1))
    assert found is not None
    assert found.steps_back == (K + H - 2,)
    assert np.abs(found.actual - found.point).max() == 0.5


def test_windows_are_counted_of_series_that_have_some() -> None:
    long, short = panel(1019), panel(3).series[0]
    both = replace(long, series=(*long.series, replace(short, unique_id="short")))
    assert candidates(both, Task(10))[1]["mamba"].startswith("999 windows")
    exactly = candidates(panel(60, 20), Task(5))[1]["mamba"]  # 20 series of 50 windows
    assert exactly.startswith("series of 60 rows are too short")


@pytest.mark.parametrize(("back", "again"), [(21, False), (22, True)])
def test_the_share_that_a_network_saw_is_exact(monkeypatch: pytest.MonkeyPatch, back: int, again: bool) -> None:
    fitted = fit_method("naive", panel(100), Task(5))
    calls: list[object] = []
    monkeypatch.setattr(selection, "learned", lambda one: object())
    monkeypatch.setattr(selection, "fit_method", lambda *given, **more: calls.append(given) or fitted)
    selection._final(replace(fitted, name="mamba"), panel(100), Task(5), back, {})
    assert bool(calls) == again


def test_where_nothing_can_be_fitted_the_reasons_are_said() -> None:
    with pytest.raises(UserError, match="no method could be fitted") as found:
        selection.select(panel(90), Task(4), ["ridge_log"], beside=False)
    assert "ridge_log: " in str(found.value)
    with pytest.raises(UserError) as found:
        selection.select(panel(90), Task(4), ["naive", "nave"], beside=False)
    assert found.value.problem == "there is no such method"


def test_what_is_trained_is_kept_where_it_can_be_gone_on_with(tmp_path: Path) -> None:
    told: list[str] = []
    options = selection._training("mamba", "fitting", told.append, tmp_path)
    assert (options["out"], options["resume"]) == (tmp_path / "fitting" / "mamba", False)
    options["note"]("step 3")
    assert told == ["fitting mamba: step 3"]
    (tmp_path / "fitting" / "mamba").mkdir(parents=True)
    assert selection._training("mamba", "fitting", told.append, tmp_path)["resume"]
    assert set(selection._training("mamba", "fitting", told.append, None)) == {"note"}
    tick = selection._counted(told.append, "backtesting ets", (9, 8, 7))
    tick()
    tick()
    assert told[1:] == ["backtesting ets: origin 1 of 3", "backtesting ets: origin 2 of 3"]


@pytest.fixture
def rising() -> Panel:
    random = np.random.default_rng(4)
    return Panel.wide(np.cumsum(random.normal(1, 0.3, (90, 3)), axis=0))


def test_series_with_their_own_method_are_judged_with_it(monkeypatch: pytest.MonkeyPatch, rising: Panel) -> None:
    own = {rising.ids[1]: ("naive",)}
    monkeypatch.setattr(selection, "_choice", lambda *given: (("drift",), own))
    held_back: list[int] = []
    final = selection._final
    monkeypatch.setattr(selection, "_final", lambda *given: held_back.append(given[3]) or final(*given))
    monkeypatch.setattr(selection, "roll_refitted", None)  # nothing is fitted at each origin
    found = selection.select(rising, Task(4), ["naive", "drift"], beside=False, origins=(16, 12, 8, 4))
    by_name = {one.method: one for one in found.leaderboard}
    assert len(by_name) == 3
    (mixed,) = by_name.keys() - {"naive", "drift"}
    for place, name in enumerate(("drift", "naive", "drift")):
        assert np.array_equal(by_name[mixed].point[:, place], by_name[name].point[:, place])
    assert set(held_back) == {16}
    assert found.own == own


def test_a_mean_stands_in_the_table_beside_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch, rising: Panel) -> None:
    monkeypatch.setattr(selection, "_choice", lambda *given: (("naive", "drift"), {}))
    found = selection.select(rising, Task(4), ["naive", "drift"], beside=False, origins=(12, 8, 4))
    points = {one.method: one.point for one in found.leaderboard}
    assert set(points) == {"naive", "drift", found.name}
    assert np.allclose(points[found.name], (points["naive"] + points["drift"]) / 2)


def test_methods_are_compared_on_a_few_series_of_many() -> None:
    compared, *_ = selection.compare(panel(60, 30), Task(4), ["naive"], (8, 4), lambda text: None)
    assert len(compared["naive"].ids) == 24


def test_the_outcome_is_told_in_plain_values(rising: Panel) -> None:
    found = selection.select(rising, Task(4), ["naive", "drift"], beside=False)
    told = selection.describe(found)
    rows = {row["method"]: row for row in told["leaderboard"]}
    assert list(rows) == ["drift", "naive"]
    assert [row["taken"] for row in rows.values()] == [True, False]
    for name, row in rows.items():
        assert row["seconds"] == pytest.approx(found.seconds[name], abs=0.0005)
        one = next(one for one in found.leaderboard if one.method == name)
        scores = one.scores()
        assert row["mase"] == pytest.approx(scores["mase"], rel=1e-5)
        shown = {key for key in scores if not key.startswith(("coverage_", "width_"))}
        assert shown <= row.keys()
    assert told["origins"] == len(found.leaderboard[0].steps_back)
    assert told["interval_coverage"]
    assert all(0.5 < share <= 1 for share in told["interval_coverage"].values())
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    alone = selection.describe(selection.select(rising, Task(4), ["drift"], beside=False))
    assert alone["origins"] == told["origins"] > 1
    assert selection.describe(selection._untested(rising, Task(4), ["drift"]))["origins"] == 0
    assert selection._number(float("nan")) is None
    assert selection._number(1.23456789) == 1.23457
