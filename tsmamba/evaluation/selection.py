"""`auto`: every method forecasts from the same past rows, and the one whose forecasts were nearest is taken.

Mamba is one candidate among others. Where it does not win, what wins is taken, and the notes say so.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from mamba_data_prep.errors import UserError
from tsmamba.config import Note
from tsmamba.evaluation import metrics
from tsmamba.evaluation.backtest import (
    FEWEST_ORIGINS,
    Backtest,
    Tick,
    chosen_backtest,
    clearly_better,
    is_testable,
    mean_backtest,
    roll,
    roll_refitted,
    rolling_origins,
)
from tsmamba.evaluation.choice import BASELINES, Selection, taken_name
from tsmamba.evaluation.conformal import Calibration, calibrate, guessed_shifts
from tsmamba.evaluation.outcome import outcome_notes, own_notes, short_notes, unread_notes
from tsmamba.methods.methods import (
    FittedMethod,
    Task,
    are_intermittent,
    assembled,
    evenly,
    fit_method,
    is_positive,
    learned,
    parts_of,
)
from tsmamba.methods.names import LOCAL, PRETRAINED, plain_name
from tsmamba.methods.pretrained import FEWEST_SEASONS
from tsmamba.panel.panel import Panel, Series
from tsmamba.zero.limits import FEWEST_ROWS, MOST_ROWS

_JUDGES = 24
"""Series on which methods are compared, where there are more."""
_MOST_COMBINED = 3
"""The largest number of methods whose mean is tried."""
_FEWEST_WINDOWS, _SHORTEST_TRAINED = 1000, 64
"""Windows from which a Mamba model is worth its training time, and rows of the middle series: `zero` knows more of
shorter ones than they could teach a network that begins from nothing."""
_SLOW_FITS, _FAST_ORIGINS, _SLOW_ORIGINS = 200, 200, 24
"""Bounds on the work of calibrating: fits of exponential smoothing or Theta, and origins of a method."""
_SLOW = ("ets", "theta", "arima")
_SURE = 2.0
"""Standard errors by which another method has to be better for a series to be forecast by it alone."""
_USUAL, _USUAL_SEASONAL, _USUAL_SPARSE = "zero", ("zero", "ets", "theta"), "croston"
"""What is taken unless past rows speak clearly for something else: for most series, for those of which some seasons are
known, and for intermittent ones."""
_ROWS_READ = 500_000
"""Rows that `zero` reads at most in order to be calibrated."""


def candidates(panel: Panel, task: Task) -> tuple[list[str], dict[str, str]]:
    """Names of the methods worth trying on a panel, and why others are not."""
    names = ["naive", "drift", "ets", "theta", "zero", "ridge"]
    left_out = {}
    if task.season > 1:
        names.insert(1, "seasonal_naive")
    else:
        left_out["seasonal_naive"] = "there is no season"
    if is_positive(panel):
        names.append("ridge_log")
    if are_intermittent(panel):
        names.append("croston")
    else:
        left_out["croston"] = "the series are not intermittent"
    if panel.future_names:
        names += ["theta_x", "zero_x", "ridge_x"]
    windows = sum(max(length - 2 * task.horizon, 0) for length in panel.lengths)
    middle = int(np.median(panel.lengths))
    if windows >= _FEWEST_WINDOWS and middle >= _SHORTEST_TRAINED:
        names.append("mamba_x" if panel.future_names else "mamba")
    elif windows >= _FEWEST_WINDOWS:
        left_out["mamba"] = f"series of {middle:,} rows are too short to train it (it needs {_SHORTEST_TRAINED:,})"
    else:
        left_out["mamba"] = f"{windows:,} windows are too few to train it (it needs {_FEWEST_WINDOWS:,})"
    return names, left_out


def select(
    panel: Panel,
    task: Task,
    methods: Sequence[str] = (),
    *,
    note: Note = lambda text: None,
    origins: Sequence[int] | None = None,
    folder: Path | None = None,
    beside: bool = True,
) -> Selection:
    """Compares methods on rolling origins, takes the best, fits it on all rows and calibrates it.

    Args:
        panel: the series; nothing outside of it is read.
        task: what is to be forecast.
        methods: names; those worth trying by default.
        note: told what is being done.
        origins: from how many rows before the end to forecast, falling; see `rolling_origins`.
        folder: keeps what is trained, so that the same call goes on where this one was stopped.
        beside: compare methods that were named with the baselines, which are not for choice then.

    Raises:
        UserError: a method of that name does not exist, or none can be fitted.
    """
    whole, panel = panel, _testable(panel, task)
    names, left_out = (list(methods), {}) if methods else candidates(panel, task)
    try:
        origins = tuple(origins or rolling_origins(panel.lengths, task.horizon, task.season))
    except UserError:
        return _untested(whole, task, names)
    every = [*names, *_shown(names, task)] if beside or not methods else names
    compared, fits, seconds, failed = compare(panel, task, every, origins, note, folder=folder)
    left_out.update(failed)
    choices = {name: compared[name] for name in names if name in compared}
    if not choices:
        raise UserError("no method could be fitted", found="; ".join(f"{k}: {v}" for k, v in failed.items()))
    members, own = _choice(choices, np.ones((len(origins), task.horizon), dtype=np.bool_))
    note(f"fitting {' + '.join(members)} on all rows")
    used = dict.fromkeys(name for names in (members, *own.values()) for name in names)
    final = {
        name: _final(fits[name], panel, task, origins[0], _training(name, "fitting", note, folder)) for name in used
    }
    taken, judged_fit = (assembled(parts, members, own, task.season) for parts in (final, fits))
    past = _many_origins(judged_fit, panel, task, origins, note)
    judged = panel.select(past.ids)
    past, calibration = calibrate(past, judged, task.season, apart=own)
    has_own = any(plain_name(name) in PRETRAINED for name in members)
    calibration = _with_guesses(calibration, whole, panel, task, has_own)
    board = [_with_quantiles(one, judged, task) for one in compared.values()]
    if len(members) > 1 or own:
        mixed = replace(chosen_backtest(compared, members, own), method=taken_name(members, own))
        board.append(calibrate(mixed, judged, task.season, apart=own)[0])
    board = sorted(board, key=lambda one: one.loss())
    honest = honest_choice(choices, origins)
    selection = Selection(
        members, taken, calibration, tuple(board), honest, past, left_out, seconds, own=own,
    )  # fmt: skip
    notes = [*outcome_notes(selection, choices, judged_fit), *own_notes(own), *unread_notes(panel, members, taken)]
    notes += short_notes(whole, panel, has_own)
    return replace(selection, notes=tuple(notes))


def _testable(panel: Panel, task: Task) -> Panel:
    """The series that are long enough to be forecast from their own past: all, where none is.

    The others have no voice in what is taken: they are forecast by it, as series that it was not fitted on.
    """
    long = [one.unique_id for one in panel.series if is_testable(_span(one), task.horizon, task.season)]
    return panel.select(long) if 0 < len(long) < len(panel) else panel


def _with_guesses(calibration: Calibration, whole: Panel, judged: Panel, task: Task, has_own: bool) -> Calibration:
    """The calibration with a guess for the series that were too short to be judged.

    It is the forecasts' own spread, where they have one, and otherwise that of a random walk.
    """
    short = [name for name in whole.ids if name not in set(judged.ids)]
    guesses = {
        name: np.zeros((task.horizon, len(task.levels))) if has_own
        else guessed_shifts(whole.select([name]), task.horizon, task.levels, task.season)
        for name in short
    }  # fmt: skip
    return replace(calibration, own={**calibration.own, **guesses})


def _span(one: Series) -> int:
    """Rows of a series from its first value on."""
    seen = np.flatnonzero(np.isfinite(one.values))
    return len(one) - int(seen[0]) if len(seen) else 0


def compare(
    panel: Panel,
    task: Task,
    names: Sequence[str],
    origins: Sequence[int],
    note: Note,
    *,
    refit: bool = False,
    folder: Path | None = None,
) -> tuple[dict[str, Backtest], dict[str, FittedMethod], dict[str, float], dict[str, str]]:
    """Backtests of methods on the same origins, fitted before the first of them (or at each).

    Returns:
        By name: backtests, fitted methods, seconds, and why a method could not be fitted.
    """
    judged = evenly(panel, _JUDGES)
    history = panel.before(origins[0])
    backtests, fits, seconds, failed = {}, {}, {}, {}
    for name in dict.fromkeys(names):
        note(f"backtesting {name}")
        began = time.perf_counter()
        try:
            fits[name] = fit_method(name, history, task, **_training(name, "backtesting", note, folder))
            if refit:
                backtests[name] = roll_refitted(
                    lambda past, name=name: fit_method(name, past, task), name, judged, origins, task.season,
                    _counted(note, f"backtesting {name}", origins),
                )  # fmt: skip
            else:
                tick = _counted(note, f"backtesting {name}", origins)
                backtests[name] = roll(fits[name], judged, origins, task.season, tick)
        except UserError as error:
            if error.problem == "there is no such method":
                raise
            failed[name] = error.problem
        seconds[name] = time.perf_counter() - began
    return backtests, fits, seconds, failed


def _training(name: str, what: str, note: Note, folder: Path | None) -> dict[str, Any]:
    """How a method that is trained tells of its steps, and where it keeps what it has learnt."""
    options: dict[str, Any] = {"note": lambda text: note(f"{what} {name}: {text}")}
    if folder is not None:
        options |= {"out": folder / what / name, "resume": (folder / what / name).exists()}
    return options


def _counted(note: Note, what: str, origins: Sequence[int]) -> Tick:
    """Tells after each origin how many are done."""
    done = itertools.count(1)
    return lambda: note(f"{what}: origin {next(done)} of {len(origins)}")


def _shown(names: Sequence[str], task: Task) -> list[str]:
    """Baselines that are compared with, though they are not for choice."""
    return [name for name in BASELINES if name not in names and (task.season > 1 or name != "seasonal_naive")]


def _choice(
    compared: Mapping[str, Backtest], known: Bool[np.ndarray, "K H"]
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """What is taken for all series on the past rows that are known, and what for those that others clearly suit better.

    A series' own rows are few, so they have to speak more clearly than those of the whole panel.
    """
    members = _best(compared, known)
    one = next(iter(compared.values()))
    if not {"naive", _USUAL} <= set(compared) or len(one.ids) < 2 or len(one.steps_back) < FEWEST_ORIGINS:
        return members, {}
    visible = {name: _masked(one, known) for name, one in compared.items()}
    alone = [name for name in visible if plain_name(name) in (*LOCAL, *PRETRAINED)]
    options = [(name,) for name in alone]
    options += [(_USUAL, name) for name in alone if name != _USUAL]
    options = [names for names in options if names != members]
    usual = mean_backtest([visible[name] for name in members]).losses_of_series()
    sure = np.stack([
        _surely_saved(usual - mean_backtest([visible[name] for name in names]).losses_of_series()) for names in options
    ])  # fmt: skip
    best = sure.argmax(axis=0)
    return members, {
        series: options[best[place]] for place, series in enumerate(one.ids) if sure[best[place], place] > 0
    }


def _surely_saved(saved: Float64[np.ndarray, "K S"]) -> Float64[np.ndarray, " S"]:
    """The mean over the origins less its standard errors; nothing where there are few origins."""
    known = np.isfinite(saved)
    count = known.sum(axis=0)
    values = np.where(known, saved, 0.0)
    mean = values.sum(axis=0) / np.maximum(count, 1)
    spread = np.where(known, values - mean, 0.0)
    error = np.sqrt((spread**2).sum(axis=0) / np.maximum(count - 1, 1) / np.maximum(count, 1))
    return np.where(count >= FEWEST_ORIGINS, mean - _SURE * error, -np.inf)


def _best(compared: Mapping[str, Backtest], known: Bool[np.ndarray, "K H"]) -> tuple[str, ...]:
    """What is taken on the evidence of the past rows that are known.

    Where all methods are compared it is the usual one, unless something is clearly better: a few past rows seldom tell
    which of good methods is the best. Of a few methods that were named it is the one with the smallest loss, or the
    mean of the best few where that is clearly better.
    """
    visible = {name: _masked(one, known) for name, one in compared.items()}
    ranked = sorted(visible, key=lambda name: visible[name].loss())
    ranked = [name for name in ranked if np.isfinite(visible[name].loss())] or ranked
    best: tuple[str, ...] = (ranked[0],)
    several = best
    for name in ranked[1:]:
        learnt = [one for one in (*several, name) if plain_name(one) not in (*LOCAL, *PRETRAINED)]
        if len(several) < _MOST_COMBINED and len(learnt) <= 1:
            several = (*several, name)
            more, fewer = (mean_backtest([visible[one] for one in names]) for names in (several, best))
            if clearly_better(more, fewer):
                best = several
    usual = _usual(visible)
    if {"naive", *usual} <= set(ranked):
        better = clearly_better(*(mean_backtest([visible[one] for one in names]) for names in (best, usual)))
        return best if better else usual
    return best


def _usual(visible: Mapping[str, Backtest]) -> tuple[str, ...]:
    """What is taken where past rows do not speak clearly.

    It is `zero`, which was the best on the M1 competition's series, in a mean with exponential smoothing and Theta
    where most series have a season and four of them in their past; see `shares`. For intermittent series it is
    Croston's method, which forecasts their mean.
    """
    one = next(iter(visible.values()))
    if one.intermittent:
        return (_USUAL_SPARSE,)
    if one.season == 1 or one.seasons is None or not set(_USUAL_SEASONAL) <= set(visible):
        return (_USUAL,)
    ends = one.seasons[-1] + one.steps_back[-1] / one.season
    return _USUAL_SEASONAL if np.median(ends) >= FEWEST_SEASONS else (_USUAL,)


def _masked(one: Backtest, known: Bool[np.ndarray, "K H"]) -> Backtest:
    return replace(one, actual=np.where(known[:, None, :], one.actual, np.nan))


def honest_choice(compared: Mapping[str, Backtest], origins: Sequence[int]) -> Backtest | None:
    """At each origin, the forecast of the method that was best on what had come to pass by then."""
    back = np.array(origins)
    horizon = next(iter(compared.values())).horizon
    places, parts = [], []
    for place, now in enumerate(back):
        known = np.arange(1, horizon + 1)[None, :] <= (back - now)[:, None]
        if known.all(axis=1).any():
            places.append(place)
            parts.append(chosen_backtest(compared, *_choice(compared, known)).origins([place]))
    if not parts:
        return None
    merged = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("actual", "point", "quantiles")
    }
    steps_back = tuple(int(back[place]) for place in places)
    return replace(
        parts[0], method="auto", steps_back=steps_back, seasons=None, **merged
    )  # nothing is weighed any more


def _many_origins(fitted: FittedMethod, panel: Panel, task: Task, origins: Sequence[int], note: Note) -> Backtest:
    """Forecasts from as many past rows as the method's speed allows, between the first and the last origin."""
    judged = evenly(panel, _JUDGES)
    names = {plain_name(part.name) for part in parts_of(fitted)}
    back = _calibrating(names, judged.lengths, origins, task.horizon)
    return roll(fitted, judged, back, task.season, _counted(note, f"calibrating {fitted.name}", back))


def _calibrating(names: Collection[str], lengths: Sequence[int], origins: Sequence[int], horizon: int) -> list[int]:
    """From how many rows before the end a method forecasts in order to be calibrated, falling.

    Args:
        names: of the methods that are mixed.
        lengths: rows of the series that are judged.
        origins: those at which methods were compared; there are as many at least.
        horizon: rows ahead.
    """
    slow = bool(set(names) & set(_SLOW))
    most = min(_SLOW_ORIGINS, _SLOW_FITS // len(lengths)) if slow else _FAST_ORIGINS
    if "zero" in names:
        most = min(most, _ROWS_READ // sum(min(length, MOST_ROWS) for length in lengths))
    most = max(most, len(origins))
    span = origins[0] - horizon
    rows = np.unique(np.linspace(0, span, most).round().astype(np.int64))[::-1] + horizon
    return [int(row) for row in rows]


def _final(fitted: FittedMethod, panel: Panel, task: Task, held_back: int, options: Mapping[str, Any]) -> FittedMethod:
    """The method fitted on all rows; a Mamba model that saw four fifths of them stays as it is."""
    trained = learned(fitted) is not None and plain_name(fitted.name) != "ridge"
    if trained and 5 * held_back <= 1.05 * float(np.median(panel.lengths)):
        return fitted
    return fit_method(fitted.name, panel, task, **options)


def _with_quantiles(one: Backtest, panel: Panel, task: Task) -> Backtest:
    return calibrate(one, panel, task.season)[0]


def _untested(panel: Panel, task: Task, names: Sequence[str]) -> Selection:
    """Series too short to be forecast from their own past: the seasonal naive forecast, with guessed intervals."""
    wanted = [name for name in names if name in (*LOCAL, *PRETRAINED)] if len(names) == 1 else []
    usual = "seasonal_naive" if task.season > 1 else "naive"
    name = wanted[0] if wanted else usual
    shifts = guessed_shifts(panel, task.horizon, task.levels, task.season)
    intervals = "with the intervals of a random walk" if np.isfinite(shifts).all() else "without intervals"
    if (not wanted or names == ["zero"]) and min(panel.lengths) >= FEWEST_ROWS:
        name, shifts, intervals = "zero", np.zeros_like(shifts), "with its own intervals"
    note = (
        f"The series are too short to compare methods (at most {max(panel.lengths):,} rows, horizon "
        f"{task.horizon:,}): this is the {name.replace('_', ' ')} forecast, {intervals}."
    )
    calibration = Calibration(task.levels, task.season, shifts)
    notes = (note, *unread_notes(panel, (name,), None))
    return Selection((name,), fit_method(name, panel, task), calibration, notes=notes)


def describe(selection: Selection) -> dict[str, Any]:
    """The outcome as plain values for JSON."""
    return {
        "method": selection.name,
        "members": list(selection.members),
        "notes": list(selection.notes),
        "leaderboard": leaderboard_rows(selection),
        "skill": {name: _number(value) for name, value in selection.skills().items()},
        "skill_of_choosing": {name: _number(value) for name, value in selection.skills_of_choosing().items()},
        "origins": len(selection.leaderboard[0].steps_back) if selection.leaderboard else 0,
        "interval_coverage": coverage_of(selection.past) if selection.past is not None else {},
        "left_out": dict(selection.left_out),
    }


def leaderboard_rows(selection: Selection) -> list[dict[str, Any]]:
    """One row of scores a method, the best first.

    Without coverage: the few origins that compare methods say less of it than the many of `coverage_of`.
    """
    rows = []
    for one in selection.leaderboard:
        scores = {
            name: _number(value) for name, value in one.scores().items() if not name.startswith(("coverage_", "width_"))
        }
        row = {"method": one.method, "taken": one.method == selection.name, **scores}
        if one.method in selection.seconds:
            row["seconds"] = round(selection.seconds[one.method], 3)
        rows.append(row)
    return rows


def coverage_of(past: Backtest) -> dict[str, float | None]:
    """Share of past values inside the intervals that could have been given for them, by the intervals' width."""
    scores = past.scores()
    return {f"{percent:g}": _number(scores[f"coverage_{percent:g}"]) for percent in metrics.intervals(past.levels)}


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
