"""What a comparison of methods allows one to say, in plain sentences: whether Mamba helped, and what plays no part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mamba_data_prep.series import Frequency
from tsmamba.evaluation.backtest import ROUNDING, Backtest, chosen_backtest, clearly_better
from tsmamba.evaluation.choice import Selection
from tsmamba.methods.methods import Apart, Combination, FittedMethod, learned, parts_of
from tsmamba.methods.names import plain_name, reads_ahead
from tsmamba.panel.panel import Panel

MAMBAS = ("zero", "mamba", "smamba", "tsmamba", "causal")
_READERS = ("mamba", "smamba", "causal")
"""Methods that look at covariates."""

_VAST, _SMALL = 10.0, 0.01
_NAIVE = ("naive", "seasonal_naive")
_OFF = "nothing of its network was kept", "only its ridge regression"
_LINEAR = "a linear map in its place did as well", "and forecasts with its ridge regression"


def outcome_notes(selection: Selection, choices: Mapping[str, Backtest], judged: FittedMethod) -> list[str]:
    """What the comparison allows one to say of Mamba, and of the naive forecasts.

    Args:
        selection: what was taken.
        choices: the backtests among which it was taken.
        judged: what was taken, as it was fitted for its backtest; `selection.method` was fitted on more rows.
    """
    if len(selection.leaderboard) == 1:
        return _alone(selection)
    ours = chosen_backtest(choices, selection.members, selection.own)
    mambas = [name for name in choices if plain_name(name) in MAMBAS]
    notes = []
    if any(name in mambas for name in selection.members):
        notes.append(_on_mamba(selection, choices, ours, judged))
    elif mambas:
        loss = min(choices[name].loss() for name in mambas)
        notes.append(
            f"Mamba did not win on past rows ({ours.measure} {_shown(loss)} against {_shown(ours.loss())}): "
            f"fell back to {selection.name}."
        )
    elif "mamba" in selection.left_out:
        notes.append(f"Mamba was not tried: {selection.left_out['mamba']}. Taken: {selection.name}.")
    naive = [one.loss() for one in selection.leaderboard if one.method in _NAIVE]
    if naive and ours.loss() >= min(naive) and not set(selection.members) & set(_NAIVE):
        others = [one.loss() for name, one in choices.items() if name not in _NAIVE]
        which = "No method was better" if min(others, default=ours.loss()) >= min(naive) else "It was no better"
        notes.append(f"{which} than the naive forecasts on past rows: expect little of this forecast.")
    return notes


def _alone(selection: Selection) -> list[str]:
    """The sentences on a method that was asked for by name, beside which nothing was fitted."""
    notes = [f"Nothing was compared: {selection.name} was asked for. --compare tells how baselines did on past rows."]
    kept = network_kept(selection.method)
    if kept in ("off", "identity"):
        why, forecasts = _LINEAR if kept == "identity" else _OFF
        notes.append(f"Mamba did not help: {why} in this forecast, {forecasts}.")
    return notes


def own_notes(own: Mapping[str, Sequence[str]]) -> list[str]:
    """A word on the series that are forecast by other methods than the rest."""
    if not own:
        return []
    listed = _listed([f"{series} by {' + '.join(names)}" for series, names in own.items()])
    return [f"Other methods were clearly better on the past rows of some series, which are forecast by them: {listed}."]


def _on_mamba(selection: Selection, choices: Mapping[str, Backtest], ours: Backtest, judged: FittedMethod) -> str:
    """The sentence on a forecast in which a Mamba model has a part."""
    board = {one.method: one for one in selection.leaderboard}
    # Where Mamba alone was asked for, it stands beside the baselines that are shown.
    others = choices if len(choices) > 1 else board
    rest = {name: one for name, one in others.items() if plain_name(name) not in MAMBAS and name != selection.name}
    beside = min(rest, key=lambda name: rest[name].loss())
    outcome = (
        f"{selection.name} has {ours.measure} {_shown(ours.loss())} on past rows against "
        f"{_shown(rest[beside].loss())} of the best other method ({beside})"
    )
    kept = {"on past rows": network_kept(judged), "in this forecast": network_kept(selection.method)}
    silent = [where for where, network in kept.items() if network in ("off", "identity")]
    if silent:
        why, forecasts = _LINEAR if "identity" in kept.values() else _OFF
        return f"Mamba did not help: {why} {' and '.join(silent)}, {forecasts}. {outcome}."
    if ours.loss() >= rest[beside].loss():
        return f"Mamba did not help: {outcome}."
    if not clearly_better(ours, rest[beside]):
        return f"Whether Mamba helped is not sure: {outcome}, which is less than a standard error over the origins."
    saves = _saves(judged)
    if saves is None:
        return f"{outcome}, by more than a standard error; what of this is due to its Mamba was not measured."
    return f"Mamba helped: {outcome}, by more than a standard error over the origins; {saves}."


def _shown(loss: float) -> str:
    """A loss for people: three decimals, three digits of what these would show as nothing, and no error as such."""
    if loss <= ROUNDING:
        return "0 (no error at all)"
    return f"{loss:.3f}" if loss >= _SMALL else f"{loss:.3g}"


def _saves(fitted: FittedMethod) -> str | None:
    """What held-out rows say that the Mamba saves; None where it was not compared with its ridge and a linear map."""
    for one in parts_of(fitted):
        learnt = learned(one)
        report: Mapping[str, Any] = learnt.model.report if learnt is not None else {}
        if report.get("mamba_helped") and report.get("mamba_saves"):
            shares = [
                f"{saved['share']:.1%} (standard error {saved['standard_error']:.1%}) of the error with the {row}"
                for row, saved in report["mamba_saves"].items()
            ]
            return f"on held-out rows it saved {' and '.join(shares)}"
    return None


def network_kept(fitted: FittedMethod) -> str | None:
    """What forecasts beside the ridge of `auto`: mamba, identity (a linear map) or off; None of other methods.

    Of a combination it is that of its one learnt member.
    """
    if isinstance(fitted, Apart | Combination):
        return next((kept for kept in map(network_kept, parts_of(fitted)) if kept is not None), None)
    learnt = learned(fitted)
    if learnt is None:
        return None
    report = learnt.model.report
    # Bundles of earlier versions say only whether anything of the network was kept.
    earlier = {True: "mamba", False: "off"}.get(report.get("mamba_helped"))  # pyright: ignore[reportArgumentType]
    return report.get("network", earlier)


def unread_notes(panel: Panel, members: Sequence[str], taken: FittedMethod | None) -> list[str]:
    """A word on covariates that were given, where nothing of what was taken looks at them."""
    given = [*panel.past_names, *panel.future_names, *panel.static_names]
    alone = taken is not None and network_kept(taken) == "off"
    if not alone and any(plain_name(name) in _READERS for name in members):
        return []
    if _uses_ahead(members, alone):
        given = [name for name in given if name not in panel.future_names]
    if not given:
        return []
    return [f"The covariates ({_listed(given)}) play no part in this forecast."]


def short_notes(panel: Panel, judged: Panel, own_spread: bool) -> list[str]:
    """A word on series that were too short to be among those by which the method was chosen.

    Args:
        panel: all series.
        judged: those that the method was chosen by.
        own_spread: what was taken has intervals of its own.
    """
    names = [name for name in panel.ids if name not in set(judged.ids)]
    if not names:
        return []
    intervals = "its own intervals" if own_spread else "the intervals of a random walk"
    return [
        f"Too short to be forecast from their own past ({_listed(names)}): they had no part in the choice, and are "
        f"forecast by the method that was taken for the others, with {intervals}."
    ]


def _uses_ahead(members: Sequence[str], alone: bool) -> bool:
    """Whether covariates known ahead play a part; `alone` says that of a network nothing but its ridge forecasts."""
    return any(reads_ahead(name) or (not alone and plain_name(name) in _READERS) for name in members)


def unknown_ahead(selection: Selection, panel: Panel, horizon: int) -> list[str]:
    """A word on rows to be forecast of which covariates that play a part are not given."""
    known = panel.known_ahead(horizon)
    used = _uses_ahead(selection.members, network_kept(selection.method) == "off")
    if known == horizon or not panel.future_names or not used:
        return []
    return [
        f"The covariates ({_listed(panel.future_names)}) are given for {known:,} of the {horizon:,} rows ahead: "
        "in the others their mean stands for them. Give all rows with --future."
    ]


def closed_times(frequency: Frequency) -> list[str]:
    """A word on the times that are left out, where series are observed at certain times of the week alone."""
    if frequency.unit != "open":
        return []
    every = frequency.alias.split()[0]
    return [
        f"Only times at which the series are observed are forecast ({frequency.alias}); --freq {every} forecasts the "
        "times between as well."
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def saved_text(saved: Mapping[str, float | None]) -> str:
    """Shares of baselines' errors that are saved, for people: `+12% naive, -3% ridge`.

    Next to a baseline that is all but exact any error is a vast multiple: below -1000 % the number says no more.
    """
    known = {name.replace("_", " "): value for name, value in saved.items() if value is not None}
    return ", ".join(
        f"{value:+.0%} {name}" if value >= -_VAST else f"below -1000% {name}" for name, value in known.items()
    )
