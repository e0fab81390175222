"""Weekly timetables: the times of a week at which a series is observed, such as opening hours or Monday to Saturday.

A timetable is a tuple of `slots`: nanoseconds since the week's Monday midnight on the wall clock, ascending. Rows are
counted slot by slot, so that the one after Friday's last is Monday's first. In words it is `STEP DAYS TIMES`, with
several parts joined by commas: "h Mon-Fri 08:00-18:00", "D Mon-Sat", "30min Mon-Fri 09:00-16:30, Sat 09:00-12:00".
"""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np

DAY = 86_400_000_000_000
"""Nanoseconds in a day of 24 hours."""
WEEK = 7 * DAY

Slots = tuple[int, ...]

_FROM_MONDAY = 3 * DAY  # 1970 began on a Thursday
_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SECOND = 1_000_000_000
_UNITS = {"D": DAY, "h": 3600 * _SECOND, "min": 60 * _SECOND, "s": _SECOND}
_PART = re.compile(r"([A-Z][a-z]{2}(?:[-+][A-Z][a-z]{2})*)(?: ([\d:+-]+))?")
_MOST = 7 * 24 * 60


def place(slots: Slots, wall: np.ndarray) -> np.ndarray:
    """The number of the latest slot at or before each time, over all weeks since 1970.

    Args:
        slots: of the week.
        wall: (n,) `datetime64[ns]` on the wall clock.
    """
    weeks, rest = np.divmod(wall.astype(np.int64) + _FROM_MONDAY, WEEK)
    return weeks * len(slots) + np.searchsorted(np.array(slots), rest, side="right") - 1


def time_of(slots: Slots, places: np.ndarray) -> np.ndarray:
    """The wall clock's times of slots by their numbers: the inverse of `place`."""
    weeks, slot = np.divmod(places, len(slots))
    return (weeks * WEEK + np.array(slots)[slot] - _FROM_MONDAY).astype("datetime64[ns]")


def nearest(slots: Slots, wall: np.ndarray) -> np.ndarray:
    """The number of the slot that is nearest to each time; the earlier of two."""
    before = place(slots, wall)
    return before + ((time_of(slots, before + 1) - wall) < (wall - time_of(slots, before)))


def phase(wall: np.ndarray) -> np.ndarray:
    """Nanoseconds since Monday midnight of wall-clock times in nanoseconds."""
    return (wall + _FROM_MONDAY) % WEEK


def periods(slots: Slots) -> tuple[int, ...]:
    """Rows of a day, where every open day has as many and more than one; of a week; of a year, where a day has one."""
    per_day = set(Counter(slot // DAY for slot in slots).values())
    daily = per_day.pop() if len(per_day) == 1 else 0
    found = (daily, len(slots)) if daily > 1 else (len(slots),)
    if daily == 1:
        found = (len(slots), round(len(slots) * 365.25 / 7))
    return tuple(period for period in dict.fromkeys(found) if period > 1)


def write(slots: Slots) -> str:
    """A timetable in words."""
    step = _step(slots)
    times: dict[Slots, list[int]] = {}
    for day in range(7):
        own = tuple(slot % DAY for slot in slots if slot // DAY == day)
        if own:
            times.setdefault(own, []).append(day)
    parts = [f"{_ranges(days)} {_spans(own, step)}".strip() for own, days in times.items()]
    unit = next((name for name, size in _UNITS.items() if step % size == 0), "s")
    size = max(step // _UNITS[unit], 1)
    return f"{'' if size == 1 else size}{unit} {', '.join(parts)}"


def read(text: str) -> Slots | None:
    """The timetable that `write` put into words; None where the words are none."""
    found = re.fullmatch(r"(\d*)(D|h|min|s) (.+)", text.strip())
    if found is None:
        return None
    step = int(found[1] or 1) * _UNITS[found[2]]
    slots: set[int] = set()
    for part in found[3].split(","):
        match = _PART.fullmatch(part.strip())
        days = _days(match[1]) if match else None
        times = _times(match[2] or "00:00", step) if match else None
        if not days or not times:
            return None
        slots |= {day * DAY + time for day in days for time in times}
    return tuple(sorted(slots)) if len(slots) <= _MOST else None


def _step(slots: Slots) -> int:
    """The commonest distance between a slot and the next of its day; a day where each has one."""
    gaps = [later - slot for slot, later in itertools.pairwise(slots) if slot // DAY == later // DAY]
    return Counter(gaps).most_common(1)[0][0] if gaps else DAY


def _ranges(days: list[int]) -> str:
    runs = _runs(tuple(days), 1)
    return "+".join(_NAMES[run[0]] + (f"-{_NAMES[run[-1]]}" if len(run) > 1 else "") for run in runs)


def _spans(times: Slots, step: int) -> str:
    """Runs of times that lie a step apart; nothing for midnight alone."""
    if times == (0,):
        return ""
    runs = _runs(times, step)
    return "+".join(_clock(run[0]) + (f"-{_clock(run[-1])}" if len(run) > 1 else "") for run in runs)


def _runs(numbers: Slots, step: int) -> list[list[int]]:
    """Numbers in stretches in which each is a step above the one before."""
    return [run.tolist() for run in np.split(np.array(numbers), np.flatnonzero(np.diff(numbers) != step) + 1)]


def _clock(time: int) -> str:
    seconds, rest = divmod(time, _SECOND)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
    if seconds % 60 or rest:
        text += f":{seconds % 60:02d}"
    return text


def _days(text: str) -> list[int] | None:
    days: list[int] = []
    for run in text.split("+"):
        names = run.split("-")
        if len(names) > 2 or any(name not in _NAMES for name in names):
            return None
        first, last = _NAMES.index(names[0]), _NAMES.index(names[-1])
        days += range(first, last + 1) if first <= last else [*range(first, 7), *range(last + 1)]
    return days


def _times(text: str, step: int) -> list[int] | None:
    times: list[int] = []
    for run in text.split("+"):
        ends = [_nanoseconds(end) for end in run.split("-")]
        if len(ends) > 2 or None in ends:
            return None
        first, last = (end for end in (ends[0], ends[-1]) if end is not None)
        times += range(first, last + 1, step)
    return times


def _nanoseconds(clock: str) -> int | None:
    found = re.fullmatch(r"(\d\d):(\d\d)(?::(\d\d))?", clock)
    if found is None or int(found[1]) > 23 or int(found[2]) > 59 or int(found[3] or 0) > 59:
        return None
    return (int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3] or 0)) * _SECOND
