"""The frequency of series: the commonest gap, fitted to the calendar."""

from __future__ import annotations

import numpy as np

from mamba_data_prep.series.times.frequency import DAY, Frequency, to_wall
from mamba_data_prep.series.times.opening import find_opening

_MINUTE = 60_000_000_000
_NICE = tuple(
    n * unit
    for unit, counts in (
        (1_000_000_000, (1, 2, 5, 10, 15, 20, 30)),
        (_MINUTE, (1, 2, 3, 5, 6, 10, 12, 15, 20, 30)),
        (60 * _MINUTE, (1, 2, 3, 4, 6, 8, 12)),
        (DAY, (1, 7)),
    )
    for n in counts
)
_ON_GRID = 0.9
"""Share of the gaps that must be whole numbers of steps."""


class Irregular(Exception):
    """No step fits most of the gaps."""


def find_frequency(times: np.ndarray, series: np.ndarray, zone: str | None, *, index: bool) -> Frequency:
    """Gives the common step of all series.

    Args:
        times: (n,) int64: UTC nanoseconds where there is a zone, else wall clock; sorted and distinct in each series.
        series: (n,) number of the series, sorted.
        zone: the zone on whose calendar days are counted.
        index: whether times are plain integers.

    Raises:
        Irregular: no step fits, or no series has two rows.
    """
    inside = np.diff(series) == 0
    gaps = np.diff(times)[inside]
    if not len(gaps):
        raise Irregular("no series has two rows")
    if index:
        return Frequency("index", _modal(gaps, series[1:][inside]))
    wall = to_wall(times.astype("datetime64[ns]"), zone).astype(np.int64)
    wall_gaps = np.diff(wall)[inside]
    found = _regular(gaps, wall, wall_gaps, series, zone)
    step = None
    if found is not None:
        step = {"day": found.step * DAY, "duration": found.step}.get(found.unit)
        if step is None or step > DAY:
            return found
    return find_opening(wall, series, zone, step) or found or _nearly_regular(wall, wall_gaps, zone)


def _regular(
    gaps: np.ndarray, wall: np.ndarray, wall_gaps: np.ndarray, series: np.ndarray, zone: str | None
) -> Frequency | None:
    """The step of which nearly all gaps are whole numbers; None where there is none."""
    inside = np.diff(series) == 0
    typical = float(np.median(wall_gaps))
    if 13 * DAY <= typical <= 18 * DAY and (halves := _half_months(wall, inside, zone)):
        return halves
    if typical >= 27.5 * DAY and (found := _months(wall, wall_gaps, zone, inside)):
        return found
    modal = _modal(wall_gaps, series[1:][inside])
    if modal % DAY == 0 and _on_grid(wall_gaps, modal) >= _ON_GRID:
        return _days(wall, wall_gaps, modal // DAY, zone)
    modal = _modal(gaps, series[1:][inside])
    if _on_grid(gaps, modal) >= _ON_GRID:
        return Frequency("duration", modal, zone)
    return None


def _modal(gaps: np.ndarray, series: np.ndarray) -> int:
    """The commonest gap; each series votes with its own commonest one, weighted by its gaps."""
    kinds, codes = np.unique(gaps, return_inverse=True)
    if series[0] == series[-1] or len(kinds) == 1:
        return int(kinds[np.bincount(codes).argmax()])
    pairs, counts = np.unique(series * len(kinds) + codes, return_counts=True)
    owners = pairs // len(kinds)
    last = np.lexsort((counts, owners))
    winners = last[np.append(np.diff(owners[last]) != 0, [True])]
    votes = np.bincount(pairs[winners] % len(kinds), weights=np.bincount(np.unique(series, return_inverse=True)[1]))
    return int(kinds[votes.argmax()])


def _on_grid(gaps: np.ndarray, step: int) -> float:
    return float(np.mean(gaps % step == 0))


def _months(wall: np.ndarray, gaps: np.ndarray, zone: str | None, inside: np.ndarray) -> Frequency | None:
    """Months, quarters and years: most times lie on one day of the month, or on its last or first (business) day."""
    dates = wall.astype("datetime64[ns]").astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    day = (dates - months.astype("datetime64[D]")).astype(np.int64) + 1
    is_last = ((dates + 1).astype("datetime64[M]") != months) if len(dates) else np.array([])
    common, weekdays = int(np.bincount(day).argmax()), False
    if is_last.mean() >= _ON_GRID and common > 27:
        common = 31
    elif np.mean(day == common) < _ON_GRID:
        first = months.astype("datetime64[D]")
        last = (months + 1).astype("datetime64[D]") - 1
        if np.mean(dates == np.busday_offset(last, 0, roll="backward")) >= _ON_GRID:
            common, weekdays = 31, True
        elif np.mean(dates == np.busday_offset(first, 0, roll="forward")) >= _ON_GRID:
            common, weekdays = 1, True
        else:
            return None
    number = months.astype(np.int64)
    step = _modal(np.diff(number)[inside], np.zeros(int(inside.sum()), dtype=np.int64))
    if step < 1 or np.mean(np.diff(number)[inside] % step == 0) < _ON_GRID:
        return None
    anchor = int(np.bincount(number % 12).argmax()) + 1 if step % 3 == 0 else 0
    weekdays = weekdays and step % 3 != 0  # quarters and years have no such alias
    return Frequency("month", step, zone, day=common, anchor=anchor, weekdays=weekdays)


def _half_months(wall: np.ndarray, inside: np.ndarray, zone: str | None) -> Frequency | None:
    """Two days of each month: nearly all times lie on the first and a middle day, or on a middle day and the last."""
    dates = wall.astype("datetime64[ns]").astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    day = (dates - months.astype("datetime64[D]")).astype(np.int64) + 1
    is_last = (dates + 1).astype("datetime64[M]") != months
    counts = np.bincount(day, minlength=32)
    middle = int(counts[2:28].argmax()) + 2
    for later, earlier, others in ((middle, 1, day == 1), (31, middle, is_last)):
        steps = np.diff(Frequency("half-month", day=later, anchor=earlier).count(dates, dates[:1]))[inside]
        both = min(others.mean(), (day == middle).mean()) > 0.5 - _ON_GRID / 4
        if both and np.mean(others | (day == middle)) >= _ON_GRID and np.mean(steps == 1) >= _ON_GRID / 2:
            return Frequency("half-month", 1, zone, later, earlier)
    return None


def _days(wall: np.ndarray, gaps: np.ndarray, step: int, zone: str | None) -> Frequency:
    weekday = (wall // DAY + 3) % 7
    if step == 1 and len(wall) >= 5 and not (weekday >= 5).any() and bool((gaps == 3 * DAY).any()):
        return Frequency("business", 1, zone)
    anchor = int(np.bincount(weekday).argmax()) if step % 7 == 0 else 0
    return Frequency("day", int(step), zone, anchor=anchor)


def _nearly_regular(wall: np.ndarray, gaps: np.ndarray, zone: str | None) -> Frequency:
    """A round step that the gaps keep to within a fifth of it, such as a logger's that is some seconds late."""
    middle = float(np.median(gaps))
    step = min(_NICE, key=lambda nice: abs(np.log(middle / nice)))
    away = np.abs(gaps - step * np.maximum(1, np.rint(gaps / step)))
    if abs(middle - step) > 0.1 * step or np.mean(away <= 0.2 * step) < _ON_GRID:
        raise Irregular("no step fits the gaps")
    if step % DAY == 0:
        return _days(wall, np.rint(gaps / DAY).astype(np.int64) * DAY, step // DAY, zone)
    return Frequency("duration", step, zone)
