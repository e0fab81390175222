"""What a comparison of methods ends in: the choice, how it was reached, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tsmamba.evaluation.backtest import Backtest, skill
from tsmamba.evaluation.conformal import Calibration
from tsmamba.methods.methods import FittedMethod

BASELINES = ("naive", "seasonal_naive", "drift", "ets", "theta", "ridge")
"""The methods that a Mamba model has to beat."""


@dataclass(frozen=True)
class Selection:
    """What was compared, what was taken, and how far it can be trusted.

    Attributes:
        members: names of the methods that are taken; the forecast is their mean.
        method: the same, fitted on all rows.
        calibration: of its quantiles.
        leaderboard: backtests of all methods on the same origins, with the quantiles that could have been given there.
        honest: the backtest of the choice itself: at each origin the method that was best on the origins before it.
        past: the backtest of what was taken, from many origins, with calibrated quantiles.
        left_out: why a method was not tried.
        seconds: that each method took to fit and forecast.
        notes: plain sentences on the outcome.
        own: the methods of those series that have others, where these were clearly better.
    """

    members: tuple[str, ...]
    method: FittedMethod
    calibration: Calibration
    leaderboard: tuple[Backtest, ...] = ()
    honest: Backtest | None = None
    past: Backtest | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The taken methods' names, joined by a plus, and how many series have others."""
        return taken_name(self.members, self.own)

    def skills(self) -> dict[str, float]:
        """Share of each baseline's error that what was taken saves on the same origins."""
        taken = next((one for one in self.leaderboard if one.method == self.name), None)
        return {} if taken is None else self._saved(taken)

    def skills_of_choosing(self) -> dict[str, float]:
        """The same for the choice itself, made anew at each origin from the origins before it: free of hindsight."""
        return {} if self.honest is None else self._saved(self.honest)

    def _saved(self, ours: Backtest) -> dict[str, float]:
        others = self.leaderboard if len(self.leaderboard) > 1 else ()
        return {
            one.method: skill(ours.loss(), _at(one, ours.steps_back).loss())
            for one in others
            if one.method in BASELINES
        }


def taken_name(members: Sequence[str], own: Mapping[str, Sequence[str]]) -> str:
    """What is taken, in few words: `zero + theta, 3 series by others`."""
    return " + ".join(members) + (f", {len(own):,} series by others" if own else "")


def _at(one: Backtest, steps_back: Sequence[int]) -> Backtest:
    return one.origins([one.steps_back.index(rows) for rows in steps_back])
