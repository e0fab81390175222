"""Finding the weekly timetable that series keep to: opening hours, Mondays to Saturdays, Tuesdays and Thursdays."""

from __future__ import annotations

import numpy as np

from mamba_data_prep.series.times.frequency import Frequency
from mamba_data_prep.series.times.timetable import DAY, WEEK, phase

_WEEKEND = (5, 6)
_FEWEST_WEEKENDS, _FEWEST_DAYS = 2, 3
"""Weeks in which a day at the weekend, or another day, has to be without a row to be a closed one."""
_FEWEST_HOURS = 5
"""Days without a row at a time of day that is closed on all days."""
_FEWEST_SINGLE = 4
"""Weeks without a row at a time that is closed on one day only, such as Saturday afternoon."""
_FEWEST_SEEN = 5
"""Weeks with a row at each time of a timetable whose times no common step tells."""
_USUAL, _MOSTLY = 0.75, 0.9
"""Share of the weeks in which each open time has to have its row, but for one week, and of all open times."""
_MOST_SLOTS = 7 * 24 * 60
_YEARS_AHEAD = 3


def find_opening(wall: np.ndarray, series: np.ndarray, zone: str | None, step: int | None) -> Frequency | None:
    """Gives the timetable that all rows keep to and nearly fill; None where there is none.

    Args:
        wall: (n,) int64 wall-clock nanoseconds, sorted in each series.
        series: (n,) number of the series, sorted.
        zone: of the wall clock.
        step: nanoseconds of the grid that the rows lie on, with gaps; None where no step fits them.
    """
    gaps = np.diff(wall)[np.diff(series) == 0]
    if step is not None and (not len(gaps) or int(gaps.max()) <= step or WEEK % step or WEEK // step > _MOST_SLOTS):
        return None
    slots, seen = np.unique(phase(wall), return_counts=True)
    if len(slots) > _MOST_SLOTS or (step is not None and len(np.unique(slots % step)) > 1):
        return None
    lattice = slots if step is None else np.arange(slots[0] % step, WEEK, step)
    counts = np.zeros(len(lattice), dtype=np.int64)
    counts[np.searchsorted(lattice, slots)] = seen
    possible, longest = _possible(lattice, wall, series)
    is_open = counts > 0
    if is_open.all() and step is not None:
        return None
    kept = counts[is_open] >= _USUAL * possible[is_open] - 1
    if not kept.all() or counts.sum() < _MOSTLY * possible[is_open].sum():
        return None
    if step is None and longest.min() < _FEWEST_SEEN:
        return None
    if not _surely_closed(lattice, is_open, longest):
        return None
    found = Frequency("open", 1, zone, slots=tuple(lattice[is_open].tolist()))
    return found if zone is None or _keeps_when_clocks_change(found, int(wall.max())) else None


def _possible(lattice: np.ndarray, wall: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each time of the week comes between the first and the last row: in all series, and in the longest."""
    starts = np.flatnonzero(np.append([True], np.diff(series) != 0))
    ends = np.append(starts[1:], len(wall)) - 1
    total, most = np.zeros(len(lattice), dtype=np.int64), np.zeros(len(lattice), dtype=np.int64)
    spans, alike = np.unique(np.stack([wall[starts], wall[ends]], axis=1), axis=0, return_counts=True)
    for (first, last), times in zip(spans + 3 * DAY, alike, strict=True):
        own = (last - lattice) // WEEK + (lattice - first) // WEEK + 1
        total, most = total + own * times, np.maximum(most, own)
    return total, most


def _surely_closed(lattice: np.ndarray, is_open: np.ndarray, weeks: np.ndarray) -> bool:
    """Whether each time without a row was passed over often enough."""
    day, time = lattice // DAY, lattice % DAY
    enough = np.where(is_open, True, weeks >= _FEWEST_SINGLE)
    open_days = np.unique(day[is_open])
    on_open_day = np.isin(day, open_days)
    for one in np.unique(day[~on_open_day]):
        needed = _FEWEST_WEEKENDS if one in _WEEKEND else _FEWEST_DAYS
        enough[day == one] = weeks[day == one].max() >= needed
    for one in np.setdiff1d(time, time[is_open]):
        same = (time == one) & on_open_day
        enough[same] |= weeks[same].sum() >= _FEWEST_HOURS
    return bool(enough.all())


def _keeps_when_clocks_change(found: Frequency, last: int) -> bool:
    """Whether no open time is skipped or comes twice in the years to come."""
    days = np.arange(_YEARS_AHEAD * 53 * len(found.slots))
    times = found.after(np.datetime64(last, "ns"), days)
    return bool((np.diff(times.astype(np.int64)) > 0).all()) and np.array_equal(found.count(times, times[:1]), days)
