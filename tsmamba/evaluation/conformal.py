"""Intervals that hold what they promise: quantiles shifted by the errors that forecasts made on past rows.

The score of a quantile forecast is by how much the value exceeded it; the calibrated quantile is the forecast plus the
score's own quantile, step by step. A method that gives only points has its point for every quantile, and scores are in
units of the series' recent changes: the split-conformal method. Of one with quantiles they are in units of the
forecast's own spread, which knows how long a history was: conformalised quantile regression.

Source: Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World; Romano, Patterson, Candes 2019,
Conformalized quantile regression, NeurIPS, with each level corrected by itself (their section 5), in the units of
Sesia, Candes 2020, A comparison of some conformal quantile regression methods, Stat 9(1), and with the scores of
neighbouring steps read together where one step has too few.

Shapes: `K` origins, earliest first; `S` series; `H` horizon; `Q` quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import special

from tsmamba.evaluation import metrics
from tsmamba.evaluation.backtest import Backtest
from tsmamba.evaluation.season_widths import constant_phases, phases_ahead, row_means, sizes_by_phase
from tsmamba.methods.pretrained import has_spread
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.panel import Panel

_ENOUGH = 400
"""Scores that a step's quantiles are read from, where there are so many; neighbouring steps help out."""
_OWN = 40
"""Origins from which a series' quantiles are its own."""
_ASYMMETRIC = 100
"""Forecasts below which errors are read as if they had fallen to either side: a few tell the size, not the side."""
_RECENT_ROWS, _RECENT_SEASONS = 400, 30
_DOUBT = 100.0
"""Independent scores that weigh as much as a spread that the forecasts have of their own: fewer made
intervals of series of the M1 competition wider without covering much more, more left them too narrow."""
_FEWEST = 8
"""Scores below which there is no saying how far a forecast may be off."""
_FEWEST_FORECASTS = 3
"""Forecasts below which there is no saying how far the steps of one are off together."""
_REFRESHED, _STRETCHES = 24, 24
"""How often shifts are found anew along a backtest, and into how many stretches of steps at most they are divided."""
_PACE, _MOST_PACE, _FARTHEST = 0.05, 0.3, 1.9
"""Share of a miss that is made up for after each origin and at most at once; by what factor a tail may change,
which keeps the default levels in order."""

Inverse = Callable[[np.ndarray], np.ndarray]
"""From probabilities to a distribution's quantiles."""


@dataclass(frozen=True)
class Calibration:
    """How far each quantile is to be shifted.

    Attributes:
        levels: of the quantiles.
        season: rows of a season, over which recent changes are measured.
        pooled: shifts in units of a series' recent changes, read from all series.
        own: the same read from one series, by its name, where it had enough origins.
        origins: how many forecasts from past rows were read.
        sizes: of each phase of the season over that of all, by the series' name, where phases clearly differ.
        relative: shifts of forecasts with a spread of their own are in units of it.
    """

    levels: tuple[float, ...]
    season: int
    pooled: Float64[np.ndarray, "H Q"]
    own: Mapping[str, Float64[np.ndarray, "H Q"]] = field(default_factory=dict)
    origins: int = 0
    sizes: Mapping[str, Float64[np.ndarray, " season"]] = field(default_factory=dict)
    relative: bool = False

    def apply(self, forecast: Forecast, panel: Panel) -> Forecast:
        """The forecast with calibrated quantiles, which never cross, nor fall below 0 where no value ever did.

        Args:
            forecast: what follows the ends of the panel's series.
            panel: the series.
        """
        floor = np.array([_floor(one.values) for one in panel.series])
        scale, first = recent_scales(panel, (0,), self.season)[0], phases_ahead(panel, self.season)
        constant = constant_values(panel, (0,), self.season, self.levels)[0]
        return self.shifted(forecast, scale, floor, first, constant)

    def shifted(
        self,
        forecast: Forecast,
        scale: Float64[np.ndarray, " S"],
        floor: Float64[np.ndarray, " S"],
        first: Int64[np.ndarray, " S"],
        constant: Float64[np.ndarray, "S season"],
    ) -> Forecast:
        """The same where it is known of each series by how much it changed lately, and what it cannot fall below.

        Args:
            forecast: to be calibrated.
            scale, floor: see `recent_scales`; 0 for series that were never negative, else minus infinity.
            first: phase of the first row ahead, see `phases_ahead`.
            constant: see `constant_values`.
        """
        steps = np.arange(forecast.point.shape[1])
        shifts = np.stack([self.own.get(name, self.pooled) for name in forecast.ids])
        sizes = np.stack([self.sizes.get(name, np.ones(self.season)) for name in forecast.ids])
        sizes = np.take_along_axis(sizes, (first[:, None] + steps) % self.season, axis=1)
        unit = scale[:, None] * sizes
        if self.relative:
            own = _own_units(forecast.point, forecast.quantiles)
            unit = np.where(own.any(axis=1, keepdims=True), own, unit)
        quantiles = np.sort(forecast.quantiles + shifts * unit[..., None], axis=-1)
        point, quantiles = np.maximum(forecast.point, floor[:, None]), np.maximum(quantiles, floor[:, None, None])
        fixed = constant[:, steps % self.season]
        point, quantiles = (np.where(np.isfinite(fixed), fixed, point), _fixed(quantiles, fixed))
        return replace(forecast, point=point, quantiles=quantiles)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return {
            "levels": list(self.levels),
            "season": self.season,
            "pooled": _plain(self.pooled),
            "own": {name: _plain(table) for name, table in self.own.items()},
            "origins": self.origins,
            "sizes": {name: sizes.tolist() for name, sizes in self.sizes.items()},
            "relative": self.relative,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration that `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        own = {str(name): np.array(table, np.float64) for name, table in values["own"].items()}
        pooled = np.array(values["pooled"], np.float64)
        sizes = {str(name): np.array(table, np.float64) for name, table in values.get("sizes", {}).items()}
        return cls(
            tuple(values["levels"]), int(values["season"]), pooled, own, int(values["origins"]), sizes,
            bool(values.get("relative", False)),
        )  # fmt: skip


def calibrate(
    past: Backtest, panel: Panel, season: int, *, apart: Collection[str] = ()
) -> tuple[Backtest, Calibration]:
    """Reads the errors of forecasts from past rows.

    Args:
        past: forecasts by the method, or one fitted like it, that is to be calibrated.
        panel: the series that were forecast.
        season: rows of a season.
        apart: series that other methods forecast than the rest, whose errors tell nothing of the others'.

    Returns:
        The backtest with the quantiles that could have been given at its origins, from the errors known by then (NaN at
        the first ones, before which too little is known), and the calibration of forecasts from the panel's end.
    """
    if apart:
        return _calibrated_apart(past, panel, season, apart)
    back = np.array(past.steps_back)
    own_spread = has_spread(past.quantiles - past.point[..., None])
    if own_spread:
        unit = _own_units(past.point, past.quantiles)
    else:
        unit = np.repeat(recent_scales(panel, past.steps_back, season)[:, :, None], past.horizon, axis=2)
    # What never changed before an origin does not tell by how much others err.
    told = replace(past, actual=np.where(unit > 0, past.actual, np.nan))
    scores = (told.actual[..., None] - past.quantiles) / np.where(unit > 0, unit, 1)[..., None]
    quantiles = np.full(past.quantiles.shape, np.nan)
    adapted = np.array(past.levels)
    # Of forecasts with a spread, what an upper quantile missed says something of the lower one at the same distance.
    mirrors = not own_spread or np.allclose(np.add(past.levels, past.levels[::-1]), 1)
    judged = np.zeros((len(back), past.horizon), dtype=np.bool_)
    first, constant = phases_ahead(panel, season), constant_values(panel, past.steps_back, season, past.levels)
    steps = np.arange(past.horizon)
    phase = (first[None, :, None] - back[:, None, None] + steps) % season

    def told_apart(known: Bool[np.ndarray, "K H"]) -> Float64[np.ndarray, "S season"]:
        if own_spread or season < 2:
            return np.ones((len(past.ids), season))
        return _sizes_of_phases(scores, known, past, first, season)

    def sized(sizes: Float64[np.ndarray, "S season"]) -> Float64[np.ndarray, "K S H"]:
        return np.take_along_axis(np.broadcast_to(sizes, (len(back), *sizes.shape)), phase, axis=2)

    for places in np.array_split(np.arange(len(back)), min(_REFRESHED, len(back))):
        known = _known(back, int(back[places[0]]), past.horizon)
        adapted = _adapted(adapted, told, quantiles, known & ~judged)
        judged = known
        size = sized(told_apart(known))
        pooled, own = _tables(_over(scores, size), known, past.ids, adapted, own_spread, mirrors, _overlap(back, known))
        shifts = np.stack([own.get(name, pooled) for name in past.ids])
        width = (unit[places] * size[places])[..., None]
        quantiles[places] = _fixed(
            np.sort(past.quantiles[places] + shifts * width, axis=-1), constant[places][:, :, steps % season]
        )
    everything = _known(back, 0, past.horizon)
    adapted = _adapted(adapted, told, quantiles, everything & ~judged)
    sizes = told_apart(everything)
    pooled, own = _tables(
        _over(scores, sized(sizes)), everything, past.ids, adapted, own_spread, mirrors, _overlap(back, everything)
    )
    guessed = np.zeros_like(pooled) if own_spread else guessed_shifts(panel, past.horizon, past.levels, season)
    pooled = np.where(np.isfinite(pooled), pooled, guessed)
    differing = {name: table for name, table in zip(past.ids, sizes, strict=True) if (table != 1).any()}
    found = Calibration(past.levels, season, pooled, own, len(back), differing, own_spread)
    return replace(past, quantiles=quantiles), found


def _calibrated_apart(
    past: Backtest, panel: Panel, season: int, apart: Collection[str]
) -> tuple[Backtest, Calibration]:
    """The rest from the rest's errors, and each series of `apart` from its own."""
    rest = [name for name in past.ids if name not in apart]
    parts = [
        calibrate(past.series(names), panel.select(names), season) for names in (rest, *([n] for n in apart)) if names
    ]
    quantiles, own, sizes = past.quantiles.copy(), {}, {}
    for one, calibration in parts:
        quantiles[:, [past.ids.index(name) for name in one.ids]] = one.quantiles
        own |= calibration.own
        sizes |= calibration.sizes
        own |= {name: calibration.pooled for name in one.ids if name in apart}
    relative = any(calibration.relative for _, calibration in parts)
    return replace(past, quantiles=quantiles), replace(parts[0][1], own=own, sizes=sizes, relative=relative)


def _own_units(point: Float64[np.ndarray, "*N"], quantiles: Float64[np.ndarray, "*N Q"]) -> Float64[np.ndarray, "*N"]:
    """The spread that forecasts have of their own: the mean distance of their quantiles from their point."""
    return np.abs(quantiles - point[..., None]).mean(axis=-1)


def _sizes_of_phases(
    scores: Float64[np.ndarray, "K S H Q"],
    known: Bool[np.ndarray, "K H"],
    past: Backtest,
    first: np.ndarray,
    season: int,
) -> Float64[np.ndarray, "S season"]:
    """Sizes of errors by phase: of each series, where its own phases clearly differ, else those of all series."""
    visible = np.where(known[:, None, :, None], scores, np.nan)
    means = row_means(visible[..., scores.shape[-1] // 2] / _sizes(visible)[None, None, :], past.steps_back)
    outside = min(past.levels[0], 1 - past.levels[-1])
    pooled = sizes_by_phase(means, first, season, outside)
    own = [sizes_by_phase(means[[place]], first[[place]], season, outside) for place in range(len(past.ids))]
    return np.stack([sizes if (sizes != 1).any() else pooled for sizes in own])


def constant_values(
    panel: Panel, steps_back: Sequence[int], season: int, levels: Sequence[float]
) -> Float64[np.ndarray, "K S season"]:
    """Values of phases that never had another in the latest rows before each origin; see `constant_phases`."""
    found = np.full((len(steps_back), len(panel), season), np.nan)
    if season < 2 or len(levels) < 2:
        return found
    outside, rows = min(levels[0], 1 - levels[-1]), recent_rows(season)
    for place, back in enumerate(steps_back):
        for number, one in enumerate(panel.series):
            history = one.values[: max(len(one) - back, 0)]
            found[place, number] = constant_phases(history[-rows:], season, outside)
    return found


def _over(scores: Float64[np.ndarray, "K S H Q"], size: Float64[np.ndarray, "K S H"]) -> Float64[np.ndarray, "K S H Q"]:
    """Scores in units of their phase's size; unknown where that is 0."""
    some = size > 0
    return np.where(some[..., None], scores / np.where(some, size, 1.0)[..., None], np.nan)


def _fixed(quantiles: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Quantiles with all levels at a value, where there is one."""
    return np.where(np.isfinite(value)[..., None], value[..., None], quantiles)


def guessed_shifts(panel: Panel, horizon: int, levels: Sequence[float], season: int) -> Float64[np.ndarray, "H Q"]:
    """Shifts where there is no past to read them from: those of a (seasonal) random walk, by Student's t.

    NaN where not even two changes of any series were observed.

    Source: Hyndman, Athanasopoulos 2021, Forecasting: Principles and Practice, section 5.5.
    """
    changes = max((int(np.isfinite(np.diff(one.values)).sum()) for one in panel.series), default=0)
    if changes < 2:
        return np.full((horizon, len(levels)), np.nan)
    steps = np.ceil(np.arange(1, horizon + 1) / season)
    deviation = np.sqrt(np.pi / 2)  # of normal changes whose mean size is 1
    return np.sqrt(steps)[:, None] * deviation * special.stdtrit(changes - 1, np.asarray(levels))[None, :]


def _known(back: np.ndarray, now: int, horizon: int) -> Bool[np.ndarray, "K H"]:
    """Which steps of each origin's forecast had come to pass `now` rows before the end."""
    return np.arange(1, horizon + 1)[None, :] <= back[:, None] - now


def _overlap(back: np.ndarray, known: Bool[np.ndarray, "K H"]) -> float:
    """How many forecasts there are of a row in the mean, of the rows that are known; at least 1."""
    rows = (np.arange(known.shape[1])[None, :] - back[:, None])[known]
    return len(rows) / len(np.unique(rows)) if len(rows) else 1.0


def _adapted(
    levels: np.ndarray, past: Backtest, quantiles: Float64[np.ndarray, "K S H Q"], news: Bool[np.ndarray, "K H"]
) -> np.ndarray:
    """Levels to aim at, after seeing how many of the latest values fell below the quantiles that were given.

    Source: Gibbs, Candes 2021, Adaptive conformal inference under distribution shift, NeurIPS, equation 2.
    """
    judged = np.isfinite(past.actual) & np.isfinite(quantiles).all(axis=-1) & news[:, None, :]
    if len(past.levels) > 1:  # an interval of no width, as of days on which nothing ever happens, tells nothing
        judged &= quantiles[..., -1] > quantiles[..., 0]
    if not judged.any():
        return levels
    below = (past.actual[judged][:, None] <= quantiles[judged]).mean(axis=0)
    pace = min(_PACE * judged.any(axis=(1, 2)).sum(), _MOST_PACE)
    aim = np.array(past.levels)
    tail = np.minimum(aim, 1 - aim)
    moved = levels + pace * (aim - below)
    return np.where(
        aim <= 0.5,
        np.clip(moved, tail / _FARTHEST, np.minimum(tail * _FARTHEST, 0.5)),
        np.clip(moved, 1 - np.minimum(tail * _FARTHEST, 0.5), 1 - tail / _FARTHEST),
    )


def _tables(
    scores: Float64[np.ndarray, "K S H Q"],
    known: Bool[np.ndarray, "K H"],
    ids: Sequence[str],
    levels: np.ndarray,
    own_spread: bool,
    mirrors: bool,
    overlap: float,
) -> tuple[Float64[np.ndarray, "H Q"], dict[str, Float64[np.ndarray, "H Q"]]]:
    """Shifts from the known scores: of all series together, and of those that have enough origins of their own."""
    visible = np.where(known[:, None, :, None], scores, np.nan)
    own = {}
    if len(ids) > 1:
        for place, name in enumerate(ids):
            if np.isfinite(visible[:, place, -1, 0]).sum() >= _OWN:
                own[name] = offsets(visible[:, place : place + 1], levels, own_spread, mirrors, overlap)
    return offsets(visible, levels, own_spread, mirrors, overlap), own


def offsets(
    scores: Float64[np.ndarray, "K S H Q"],
    levels: Sequence[float] | np.ndarray,
    own_spread: bool = False,
    mirrors: bool = True,
    overlap: float = 1.0,
) -> Float64[np.ndarray, "H Q"]:
    """Each level's shift at each step: the quantile of the scores, those of near steps read along, brought to one size.

    Scores that are NaN do not count; with fewer than 8 there is no shift (NaN). Where the forecasts have a spread of
    their own, a few scores move it a little and many move it to where they say; those of `overlap` forecasts of the
    same row, off together, count as one. Few are read as if they had fallen to either side, unless the levels are no
    mirror of themselves (`mirrors`).
    """
    horizon = scores.shape[2]
    size = _sizes(scores)
    alike = scores / size[None, None, :, None]
    seen = np.asarray(np.isfinite(alike).all(axis=-1))
    per_step = np.asarray(seen.sum(axis=(0, 1)))
    found = np.full((horizon, len(levels)), np.nan)
    for steps in np.array_split(np.arange(horizon), min(_STRETCHES, horizon)):
        low, high = _neighbours(per_step, int(steps[0]), int(steps[-1]) + 1)
        near = alike[:, :, low:high][seen[:, :, low:high]]
        n = _independent(np.where(seen, np.abs(alike[..., alike.shape[-1] // 2]), np.nan)[:, :, low:high])
        if mirrors and per_step[low:high].max(initial=0) < _ASYMMETRIC:
            near = np.concatenate([near, -near[:, ::-1]])
        if len(near) >= _FEWEST:
            trust = n / (n + _DOUBT * overlap) if own_spread else 1.0
            found[steps] = trust * _quantiles(near, np.asarray(levels), n, special.ndtri if own_spread else None)
    return found * size[:, None]


def recent_scales(panel: Panel, steps_back: Sequence[int], season: int) -> Float64[np.ndarray, "K S"]:
    """Mean absolute change over a season in the latest rows before each origin: by what errors are made alike.

    It is 0 for a series of one value throughout, and 1 for one of which too little is known.
    """
    rows = recent_rows(season)
    table = np.ones((len(steps_back), len(panel)))
    for place, back in enumerate(steps_back):
        for number, one in enumerate(panel.series):
            history = one.values[: max(len(one) - back, 0)]
            scales = (metrics.seasonal_error(part, step) for part in (history[-rows:], history) for step in (season, 1))
            table[place, number] = next((scale for scale in scales if np.isfinite(scale)), _unmeasured(history))
    return table


def _unmeasured(history: Float64[np.ndarray, " T"]) -> float:
    seen = history[np.isfinite(history)]
    return 0.0 if len(seen) > 1 and seen.min() == seen.max() else 1.0


def recent_rows(season: int) -> int:
    """How many of the latest rows tell the size of recent changes."""
    return max(_RECENT_ROWS, _RECENT_SEASONS * season)


def _floor(history: Float64[np.ndarray, " T"]) -> float:
    """The bound below which a series' values are taken not to fall: 0 if none ever did, else minus infinity."""
    seen = history[np.isfinite(history)]
    return 0.0 if len(seen) and float(seen.min()) >= 0 else -np.inf


def _sizes(scores: Float64[np.ndarray, "K S H Q"]) -> Float64[np.ndarray, " H"]:
    """Typical size of the middle level's scores at each step, smoothed over neighbouring steps."""
    middle = np.abs(scores[..., scores.shape[-1] // 2])
    seen = np.isfinite(middle)
    counts = seen.sum(axis=(0, 1)).astype(np.float64)
    totals = np.where(seen, middle, 0.0).sum(axis=(0, 1))
    totals, counts = _spread_out(totals), _spread_out(counts)
    whole = totals.sum() / max(counts.sum(), 1)
    mean = np.where(counts > 0, totals / np.maximum(counts, 1), whole)
    return np.where(mean > 0, mean, 1.0)


def _spread_out(values: Float64[np.ndarray, " H"]) -> Float64[np.ndarray, " H"]:
    """Sums over a twelfth of the steps to either side, at least one."""
    reach = max(len(values) // 12, 1)
    total = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    return total[np.minimum(places + reach + 1, len(values))] - total[np.maximum(places - reach, 0)]


def _neighbours(per_step: np.ndarray, low: int, high: int) -> tuple[int, int]:
    """The steps around some that together have enough scores; all of them where that is not enough."""
    while per_step[low:high].sum() < _ENOUGH and (low > 0 or high < len(per_step)):
        low, high = max(low - 1, 0), min(high + 1, len(per_step))
    return low, high


def _independent(sizes: Float64[np.ndarray, "K S W"]) -> float:
    """How many independent scores are worth as much as those of a few neighbouring steps of some forecasts.

    Steps of one forecast are off together. What counts is their number over the factor by which that makes their mean
    vary more; at least one a forecast.

    Source: Kish 1965, Survey Sampling, section 5.4 (the design effect).
    """
    rows = sizes.reshape(-1, sizes.shape[-1])
    seen = np.isfinite(rows)
    rows, seen = rows[seen.any(axis=1)], seen[seen.any(axis=1)]
    forecasts, scores = len(rows), int(seen.sum())
    if forecasts < _FEWEST_FORECASTS:
        return float(max(forecasts, 1))
    each = seen.sum(axis=1)
    means = np.where(seen, rows, 0.0).sum(axis=1) / each
    overall = float(rows[seen].var(ddof=1))
    effect = float(means.var(ddof=1)) * scores / forecasts / overall if overall > 0 else np.inf
    return float(np.clip(scores / max(effect, 1.0), forecasts, scores))


def _quantiles(
    sample: Float64[np.ndarray, "n Q"], level: np.ndarray, independent: float, tail: Inverse | None = None
) -> Float64[np.ndarray, " Q"]:
    """Each column's own quantile with the finite-sample correction; by a known tail where the sample ends before it.

    Args:
        sample: scores, neighbouring steps of one forecast among them.
        level: one a column.
        independent: how many independent scores the sample is worth.
        tail: inverse distribution function; Student's t, with so many scores, by default.
    """
    ranked = np.sort(sample, axis=0)
    more = (independent + 1) / independent  # both tails alike, and continuous: different levels stay different
    share = np.select([level > 0.5, level < 0.5], [level * more, 1 - (1 - level) * more], 0.5)
    place = np.clip(share, 0, 1) * (len(ranked) - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(ranked) - 1)
    column = np.arange(len(level))
    found = ranked[below, column] + (place - below) * (ranked[above, column] - ranked[below, column])
    beyond = np.minimum(level, 1 - level) * (independent + 1) < 1 - 1e-9  # both tails alike, for all their rounding
    if beyond.any():
        deviation = sample.std(axis=0, ddof=1) * np.sqrt(1 + 1 / independent)
        far = special.stdtrit(max(independent - 1, 2), level) if tail is None else tail(level)
        outside = sample.mean(axis=0) + far * deviation
        found = np.where(beyond, outside, found)
    return found


def _plain(table: Float64[np.ndarray, "H Q"]) -> list[list[float | None]]:
    return [[float(f"{value:.9g}") if np.isfinite(value) else None for value in row] for row in table]
