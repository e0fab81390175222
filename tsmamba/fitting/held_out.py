"""Which rows train, which choose, how far a forecast may look back, and which seasons a series may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import special

from mamba_data_prep.errors import UserError
from tsmamba.config import FitConfig
from tsmamba.panel.panel import Panel
from tsmamba.panel.seasonality import RECENT, is_seasonal
from tsmamba.panel.windows import Origins, Windows

MOST_LOOKBACK = 512
CALENDAR_DAYS = (1.0, 7.0, 30.4, 365.25)
"""Cycles of the calendar features, in days."""

LEAST_CYCLES = 3
MOST_CHOOSING = 2**15
MOST_STRETCHES = 16
MOST_ASKED = 24


@dataclass(frozen=True)
class Plan:
    """Which windows train, and which choose.

    Attributes:
        windows: of the panel.
        train: origins whose horizons end before the held-back rows.
        valid: origins whose horizons lie in the held-back rows.
    """

    windows: Windows
    train: Origins
    valid: Origins

    def choosing(self) -> Origins:
        """The origins of `valid`; of very many, 32,768 spread evenly."""
        n = min(len(self.valid), MOST_CHOOSING)
        return self.valid.take(np.linspace(0, len(self.valid) - 1, n).round().astype(np.int64))

    def stretches(self, origins: Origins) -> Int64[np.ndarray, " n"]:
        """In which part of the held-back rows each origin lies; see `stretches`."""
        return stretches(self.windows, self.valid, origins)

    def everything(self) -> Origins:
        """Every origin from the first of training on whose horizon is known."""
        rows = self.windows.rows
        first = np.full(len(rows), self.windows.lookback)
        np.minimum.at(first, self.train.group, self.train.row)
        return self.windows.usable(self.windows.origins(first.tolist(), (rows - self.windows.horizon).tolist()))


def stretches(windows: Windows, valid: Origins, origins: Origins) -> Int64[np.ndarray, " n"]:
    """In which of at most 16 parts of the held-out rows each origin lies; each part is at least one horizon long."""
    rows = valid.row - windows.rows[valid.group]
    first, span = int(rows.min(initial=0)), int(np.ptp(rows)) + 1 if len(rows) else 1
    count = int(np.clip(span // windows.horizon, 1, MOST_STRETCHES))
    return (origins.row - windows.rows[origins.group] - first) * count // span


def sure_saving(saved: Float64[np.ndarray, "S ..."], caution: float = 1.0) -> np.ndarray:
    """What is surely saved on the mean over `S` stretches: the mean less `caution` standard errors.

    Of few stretches more standard errors are taken, as many as leave the same doubt: 1.84 for two, 1.32 for three,
    1.03 for sixteen. Of a single one nothing is sure (minus infinity).

    Source: Breiman, Friedman, Olshen, Stone 1984, Classification and Regression Trees, section 3.4.3 (the rule);
    Student 1908, The probable error of a mean (few stretches).
    """
    if len(saved) < 2:
        return np.full(saved.shape[1:], -np.inf)
    errors = special.stdtrit(len(saved) - 1, special.ndtr(caution))
    return np.asarray(saved.mean(axis=0) - errors * saved.std(axis=0, ddof=1) / len(saved) ** 0.5)


def held_back_rows(panel: Panel, horizon: int, config: FitConfig) -> list[int]:
    """Rows at each series' end that choose: a fifth of the series, at least one horizon and never more than half.

    Raises:
        UserError: no series is long enough to train on.
    """
    if isinstance(config.valid_rows, int):
        rows = [min(config.valid_rows, max(length - 2, 0)) for length in panel.lengths]
    else:
        rows = [min(max(horizon, length // 5), length // 2) for length in panel.lengths]
    longest = max(length - held for length, held in zip(panel.lengths, rows, strict=True))
    if longest < horizon + 2:
        raise UserError(
            "the series are too short for this horizon", found=f"{max(panel.lengths)} rows, horizon {horizon}",
            accepted=f"at least {2 * (horizon + 2)} rows", fix="shorten the horizon, or use a naive method",
        )  # fmt: skip
    return rows


def choose_seasons(panel: Panel, config: FitConfig, held_back: Sequence[int]) -> tuple[int, ...]:
    """The seasons asked for; by default those that training rows confirm, of two that the frequency suggests."""
    if not isinstance(config.seasons, str):
        return config.seasons
    proposed = tuple(season for season in panel.frequency.seasonal_periods if season > 1)[:2]
    numbers = np.unique(np.linspace(0, len(panel) - 1, min(len(panel), MOST_ASKED)).round().astype(np.int64))
    histories = [panel.series[n].values[: len(panel.series[n]) - held_back[n]][-RECENT:] for n in numbers]
    return tuple(season for season in proposed if is_seasonal(histories, season))


def calendar_columns(panel: Panel, which: str, held_back: Sequence[int]) -> tuple[int, ...]:
    """Columns of the calendar features that a model is given.

    A season that the training rows show only once or twice cannot be told from a trend: a network that is given the day
    of the year of a single year remembers that year.

    Args:
        panel: the series.
        which: "none", "all", or "repeated" for those whose cycle training saw at least three times.
        held_back: rows at each series' end that don't train.
    """
    n = panel.calendar(0).shape[1] if len(panel.series[0]) else 0
    if which == "none" or n == 0:
        return ()
    if which == "all":
        return tuple(range(n))
    spans = [
        float((one.times[-1 - held] - one.times[0]) / np.timedelta64(1, "D"))
        for one, held in zip(panel.series, held_back, strict=True)
        if held < len(one)
    ]
    step = min(spans) / max(min(panel.lengths) - 1, 1) if spans else 0.0
    return tuple(
        column
        for column, days in enumerate(CALENDAR_DAYS)
        if spans and step < days / 2 and max(spans) >= LEAST_CYCLES * days
    )


def lookback_candidates(panel: Panel, horizon: int, config: FitConfig, held_back: Sequence[int]) -> list[int]:
    """The lookback that was asked for; otherwise the longest of 512 rows and two thirds and one third of it.

    It is shorter where the longest series would else have more rows to look back on than windows to learn from.
    """
    if isinstance(config.lookback, int):
        return [config.lookback]
    longest = max(length - held for length, held in zip(panel.lengths, held_back, strict=True))
    most = int(np.clip((longest - horizon) * 2 // 3, 1, MOST_LOOKBACK))
    return sorted({max(most * part // 3, 1) for part in (1, 2, 3)}, reverse=True)


def make_plan(windows: Windows, held_back: Sequence[int]) -> Plan:
    """Origins of training and of choosing; no training horizon reaches into the held-back rows.

    Training begins where the context is full, or at half of the training part where a series is shorter than that.
    """
    held = np.array([held_back[members[0]] for members in windows.members], dtype=np.int64)
    cut = windows.rows - held
    last = cut - windows.horizon
    first = np.minimum(windows.lookback, np.maximum(last // 2, 1))
    train = windows.usable(windows.origins(first.tolist(), last.tolist()))
    valid_last = np.maximum(windows.rows - windows.horizon, cut)
    valid = windows.usable(windows.origins(cut.tolist(), valid_last.tolist()))
    return Plan(windows, train, valid)
