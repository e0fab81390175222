"""The steps of a regular series: durations, days of a zone's calendar, business days, months, or plain counting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

DAY = 86_400_000_000_000
"""Nanoseconds in a day of 24 hours."""

_SECONDS = 1_000_000_000
Instant = pd.Timestamp | np.datetime64 | np.integer | int
"""A time on a grid, or a row's number where the unit is "index"."""

_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True)
class Frequency:
    """The distance between one row of a series and the next.

    Times are `datetime64[ns]` without zone: UTC instants where `zone` is set, the source's wall clock otherwise. Days,
    business days and months are counted on the zone's calendar, so that midnight stays midnight when clocks change.

    Attributes:
        unit: "index" (integers), "duration" (nanoseconds), "day", "business" (Monday to Friday) or "month".
        step: how many units lie between two rows.
        zone: IANA name, or an offset like "+02:00", or None.
        day: for months, the day of the month; 31 stands for the last day.
        anchor: for weeks the weekday (0 = Monday), for quarters and years the month (1 = January) that a step falls on.
    """

    unit: Literal["index", "duration", "day", "business", "month"]
    step: int = 1
    zone: str | None = None
    day: int = 1
    anchor: int = 0

    @property
    def alias(self) -> str:
        """The pandas offset alias, or "int" where rows are only counted."""
        if self.unit == "index":
            return "int"
        if self.unit == "duration":
            return _duration_alias(self.step)
        if self.unit == "business":
            return _many(self.step, "B")
        if self.unit == "day":
            return _many(self.step // 7, f"W-{_WEEKDAYS[self.anchor]}") if self.step % 7 == 0 else _many(self.step, "D")
        return self._month_alias()

    def _month_alias(self) -> str:
        edge = "E" if self.day == 31 else "S"
        month = self.anchor or (12 if edge == "E" else 1)
        if self.step % 12 == 0:
            return _many(self.step // 12, f"Y{edge}-{_MONTHS[month - 1]}")
        if self.step % 3 == 0:
            quarter = (month - 1) % 3
            named = _MONTHS[quarter + 9] if edge == "E" else _MONTHS[quarter]
            return _many(self.step // 3, f"Q{edge}-{named}")
        return _many(self.step, f"M{edge}")

    @property
    def seasonal_periods(self) -> tuple[int, ...]:
        """Lengths, in steps, of the cycles that such data may have, the shortest first; () if nothing is known."""
        if self.unit == "index":
            return ()
        if self.unit == "month":
            return (12 // self.step,) if self.step < 12 and 12 % self.step == 0 else ()
        if self.unit == "business":
            return (5, 261) if self.step == 1 else ()
        if self.unit == "day":
            return tuple(
                n for n in (7 // self.step, round(365.25 / self.step)) if n > 1 and (n > 7 or 7 % self.step == 0)
            )
        cycles = [60 * _SECONDS, 3600 * _SECONDS] if self.step < 60 * _SECONDS else []
        cycles += [DAY] if self.step >= 60 * _SECONDS or not cycles else []
        cycles += [7 * DAY] if self.step >= 300 * _SECONDS else []
        return tuple(cycle // self.step for cycle in cycles if cycle % self.step == 0 and cycle > self.step)

    def after(self, origin: Instant, counts: np.ndarray) -> np.ndarray:
        """The times `counts` steps after `origin` (before it, where negative).

        Args:
            origin: a time on the grid, in UTC where the frequency has a zone.
            counts: whole numbers of steps, (n,).

        Returns:
            (n,) `datetime64[ns]`, or `int64` where the unit is "index".
        """
        steps = np.asarray(counts, dtype=np.int64) * self.step
        if self.unit == "index":
            return _integer(origin) + steps
        start = _instant(origin)
        if self.unit == "duration":
            return start + steps.astype("timedelta64[ns]")
        local = to_wall(np.array([start]), self.zone)[0]
        return to_utc(self._after_local(local, steps), self.zone)

    def _after_local(self, start: np.datetime64, steps: np.ndarray) -> np.ndarray:
        date = start.astype("datetime64[D]")
        time_of_day = start - date.astype("datetime64[ns]")
        if self.unit == "day":
            dates = date + steps
        elif self.unit == "business":
            dates = np.busday_offset(date, steps, roll="backward")
        else:
            months = date.astype("datetime64[M]") + steps
            last = (months + 1).astype("datetime64[D]") - 1
            dates = np.minimum(months.astype("datetime64[D]") + (self.day - 1), last)
        return dates.astype("datetime64[ns]") + time_of_day

    def count(self, times: np.ndarray, origin: Instant) -> np.ndarray:
        """How many steps each time lies after `origin`, rounded to the nearest step: the inverse of `after`.

        Args:
            times: (n,) `datetime64[ns]`, or integers where the unit is "index".
            origin: a time on the grid.

        Returns:
            (n,) int64.
        """
        if self.unit == "index":
            return np.rint((np.asarray(times, dtype=np.int64) - _integer(origin)) / self.step).astype(np.int64)
        start = _instant(origin)
        values = np.asarray(times, dtype="datetime64[ns]")
        if self.unit == "duration":
            return _nearest((values - start).astype(np.int64), self.step)
        local, first = to_wall(values, self.zone), to_wall(np.array([start]), self.zone)[0]
        return self._count_local(local, first)

    def _count_local(self, local: np.ndarray, first: np.datetime64) -> np.ndarray:
        if self.unit == "day":
            return _nearest((local - first).astype(np.int64), self.step * DAY)
        if self.unit == "business":
            dates = local.astype("datetime64[D]")
            return _nearest(np.busday_count(first.astype("datetime64[D]"), dates), self.step)
        shift = np.timedelta64(min(self.day, 28) - 1, "D")  # so that rounding is to the nearest day of that name
        middle = np.timedelta64(14, "D")
        months = (local - shift + middle).astype("datetime64[M]").astype(np.int64)
        origin = (first - shift + middle).astype("datetime64[M]").astype(np.int64)
        return _nearest(months - origin, self.step)

    def extend(self, last: Instant, steps: int) -> np.ndarray:
        """The `steps` times that follow `last`."""
        return self.after(last, np.arange(1, steps + 1))


def to_wall(utc: np.ndarray, zone: str | None) -> np.ndarray:
    """UTC instants as a zone's wall clock; unchanged without a zone."""
    if zone is None:
        return utc
    return pd.DatetimeIndex(utc).tz_localize("UTC").tz_convert(zone).tz_localize(None).to_numpy(dtype="datetime64[ns]")


def to_utc(wall: np.ndarray, zone: str | None) -> np.ndarray:
    """A zone's wall clock as UTC instants; a skipped hour becomes the next, a repeated one the first."""
    if zone is None:
        return wall
    first = np.ones(len(wall), dtype=bool)
    local = pd.DatetimeIndex(wall).tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
    return local.tz_convert("UTC").tz_localize(None).to_numpy(dtype="datetime64[ns]")


def _instant(time: Instant) -> np.datetime64:
    return pd.Timestamp(time).to_datetime64().astype("datetime64[ns]")  # pyright: ignore[reportArgumentType]


def _integer(row: Instant) -> int:
    if isinstance(row, int | np.integer):
        return int(row)
    raise TypeError(f"rows that are only counted have integers for times, not {row!r}")


def _duration_alias(nanoseconds: int) -> str:
    for size, name in ((3600 * _SECONDS, "h"), (60 * _SECONDS, "min"), (_SECONDS, "s"), (10**6, "ms"), (1000, "us")):
        if nanoseconds % size == 0:
            return _many(nanoseconds // size, name)
    return _many(nanoseconds, "ns")


def _many(count: int, alias: str) -> str:
    return alias if count == 1 else f"{count}{alias}"


def _nearest(distance: np.ndarray, step: int) -> np.ndarray:
    return np.floor_divide(2 * distance + step, 2 * step)
