"""The steps of a regular series: durations, days of a calendar, open hours, months and halves of them, or counting."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.times import timetable
from mamba_data_prep.series.times.timetable import DAY

_SECONDS = 1_000_000_000
_DURATIONS = {
    **{"h": 3600 * _SECONDS, "H": 3600 * _SECONDS, "min": 60 * _SECONDS, "T": 60 * _SECONDS, "s": _SECONDS},
    **{"S": _SECONDS, "ms": 1_000_000, "us": 1000, "ns": 1},
}
_MONTH_ALIASES = {
    **{"MS": (1, 1), "ME": (1, 31), "M": (1, 31), "QS": (3, 1), "QE": (3, 31), "Q": (3, 31)},
    **{"YS": (12, 1), "YE": (12, 31), "Y": (12, 31), "AS": (12, 1), "A": (12, 31)},
}

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
        unit: "index" (integers), "duration" (nanoseconds), "day", "business" (Monday to Friday), "open" (the times of
            a weekly timetable), "half-month" or "month".
        step: how many units lie between two rows.
        zone: IANA name, or an offset like "+02:00", or None.
        day: for months, the day of the month; 31 stands for the last day. For halves of months, the later one's.
        anchor: for weeks the weekday (0 = Monday), for quarters and years the month (1 = January) that a step falls on,
            for halves of months the earlier one's day.
        weekdays: for months, whether a day at the weekend gives way to the next working day inside the month.
        slots: the timetable of open times, see `timetable`.
    """

    unit: Literal["index", "duration", "day", "business", "open", "half-month", "month"]
    step: int = 1
    zone: str | None = None
    day: int = 1
    anchor: int = 0
    weekdays: bool = False
    slots: tuple[int, ...] = ()

    @classmethod
    def from_alias(cls, alias: str, zone: str | None = None) -> Frequency:
        """Gives the frequency that a pandas offset alias names ("h", "15min", "W-SUN", "MS", "QE-DEC", "int").

        Open hours are named by their step, days and times: "h Mon-Fri 08:00-18:00", "D Mon-Sat".

        Raises:
            UserError: there is no such alias, or none that this package counts in.
        """
        if " " in alias.strip() and (slots := timetable.read(alias)):
            return cls("open", 1, zone, slots=slots)
        if halves := re.fullmatch(r"SM([SE])(?:-(\d{1,2}))?", alias.strip()):
            middle = int(halves[2] or 15)
            if 1 < middle < 28:
                return cls("half-month", 1, zone, middle if halves[1] == "S" else 31, 1 if halves[1] == "S" else middle)
        found = re.fullmatch(r"(\d*)([A-Za-z]+)(?:-([A-Z]{3}))?", alias.strip())
        count, name, anchor = (int(found[1] or 1), found[2], found[3]) if found else (1, "", None)
        if name == "int":
            return cls("index", count)
        if name in _DURATIONS:
            return cls("duration", count * _DURATIONS[name], zone)
        if name in ("D", "W", "B"):
            weekday = _WEEKDAYS.index(anchor) if anchor in _WEEKDAYS else 6
            return cls("business" if name == "B" else "day", count * (7 if name == "W" else 1), zone, anchor=weekday)
        if name in ("BMS", "BME"):
            return cls("month", count, zone, 1 if name == "BMS" else 31, weekdays=True)
        if name in _MONTH_ALIASES:
            months, day = _MONTH_ALIASES[name]
            default = {3: 1, 12: 1}.get(months, 0) if day == 1 else {3: 12, 12: 12}.get(months, 0)
            return cls("month", count * months, zone, day, _MONTHS.index(anchor) + 1 if anchor in _MONTHS else default)
        accepted = 's, min, h, D, B, W-SUN, SMS, MS, BME, QS, YS, multiples such as 15min, "h Mon-Fri 08:00-18:00"'
        raise UserError("there is no such frequency", found=alias, accepted=accepted)

    @property
    def alias(self) -> str:
        """The pandas offset alias, or "int" where rows are only counted."""
        if self.unit == "index":
            return "int"
        if self.unit == "duration":
            return _duration_alias(self.step)
        if self.unit == "business":
            return _many(self.step, "B")
        if self.unit == "open":
            return timetable.write(self.slots)
        if self.unit == "half-month":
            return f"SME-{self.anchor}" if self.day == 31 else f"SMS-{self.day}"
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
        return _many(self.step, f"{'B' if self.weekdays else ''}M{edge}")

    @property
    def seasonal_periods(self) -> tuple[int, ...]:
        """Lengths, in steps, of the cycles that such data may have, the shortest first; () if nothing is known."""
        if self.unit == "index":
            return ()
        if self.unit == "month":
            return (12 // self.step,) if self.step < 12 and 12 % self.step == 0 else ()
        if self.unit == "business":
            return (5, 261) if self.step == 1 else ()
        if self.unit == "open":
            return timetable.periods(self.slots)
        if self.unit == "half-month":
            return (24,)
        if self.unit == "day":
            return tuple(
                n for n in (7 // self.step, round(365.25 / self.step)) if n > 1 and (n > 7 or 7 % self.step == 0)
            )
        cycles = [60 * _SECONDS, 3600 * _SECONDS] if self.step < 60 * _SECONDS else []
        cycles += [DAY] if self.step >= 60 * _SECONDS or not cycles else []
        cycles += [7 * DAY] if self.step >= 300 * _SECONDS else []
        return tuple(cycle // self.step for cycle in cycles if cycle % self.step == 0 and cycle > self.step)

    def after(self, origin: Instant | np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Gives the times `counts` steps after `origin` (before it, where negative).

        Args:
            origin: a time on the grid, or one a count, in UTC where the frequency has a zone.
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
        return to_utc(self._after_local(to_wall(start, self.zone), steps), self.zone)

    def _after_local(self, start: np.ndarray, steps: np.ndarray) -> np.ndarray:
        if self.unit == "open":
            return timetable.time_of(self.slots, timetable.place(self.slots, start) + steps)
        date = start.astype("datetime64[D]")
        time_of_day = start - date.astype("datetime64[ns]")
        if self.unit == "day":
            dates = date + steps
        elif self.unit == "business":
            dates = np.busday_offset(date, steps, roll="backward")
        elif self.unit == "half-month":
            dates = self._half(self._halves(date) + steps)
        else:
            months = date.astype("datetime64[M]") + steps
            last = (months + 1).astype("datetime64[D]") - 1
            dates = np.minimum(months.astype("datetime64[D]") + (self.day - 1), last)
            if self.weekdays:
                dates = np.busday_offset(dates, 0, roll="forward" if self.day == 1 else "backward")
        return dates.astype("datetime64[ns]") + time_of_day

    def _halves(self, dates: np.ndarray) -> np.ndarray:
        """The number of the half of a month that begins, by its day, at or last before each date."""
        months = dates.astype("datetime64[M]").astype(np.int64)
        return 2 * months - 1 + (dates >= self._half(2 * months)) + (dates >= self._half(2 * months + 1))

    def _half(self, number: np.ndarray) -> np.ndarray:
        """The date of a half of a month: the earlier day for even numbers, the later for odd ones."""
        months = (number // 2).astype("datetime64[M]")
        last = (months + 1).astype("datetime64[D]") - 1
        day = np.where(number % 2 == 0, self.anchor, self.day)
        return np.minimum(months.astype("datetime64[D]") + (day - 1), last)

    def count(self, times: np.ndarray, origin: Instant | np.ndarray) -> np.ndarray:
        """Tells how many steps each time lies after `origin`, rounded to the nearest step: the inverse of `after`.

        Args:
            times: (n,) `datetime64[ns]`, or integers where the unit is "index".
            origin: a time on the grid, or one a time.

        Returns:
            (n,) int64.
        """
        if self.unit == "index":
            return np.rint((np.asarray(times, dtype=np.int64) - _integer(origin)) / self.step).astype(np.int64)
        start = _instant(origin)
        values = np.asarray(times, dtype="datetime64[ns]")
        if self.unit == "duration":
            return _nearest((values - start).astype(np.int64), self.step)
        return self._count_local(to_wall(values, self.zone), to_wall(start, self.zone))

    def _count_local(self, local: np.ndarray, first: np.ndarray) -> np.ndarray:
        if self.unit == "day":
            return _nearest((local - first).astype(np.int64), self.step * DAY)
        if self.unit == "business":
            dates = local.astype("datetime64[D]")
            return _nearest(np.busday_count(first.astype("datetime64[D]"), dates), self.step)
        if self.unit == "open":
            return timetable.nearest(self.slots, local) - timetable.place(self.slots, first)
        if self.unit == "half-month":
            dates = local.astype("datetime64[D]")
            before = self._halves(dates)
            nearer = (self._half(before + 1) - dates) < (dates - self._half(before))
            return before + nearer - self._halves(first.astype("datetime64[D]"))
        shift = np.timedelta64(min(self.day, 28) - 1, "D")  # so that rounding is to the nearest day of that name
        middle = np.timedelta64(14, "D")
        months = (local - shift + middle).astype("datetime64[M]").astype(np.int64)
        origin = (first - shift + middle).astype("datetime64[M]").astype(np.int64)
        return _nearest(months - origin, self.step)

    def floor(self, times: np.ndarray) -> np.ndarray:
        """The start of the step that each time lies in: of the hour, the day, the week, the month.

        Args:
            times: (n,) `datetime64[ns]`, or integers where the unit is "index".
        """
        if self.unit == "index":
            return times - times % self.step
        wall = to_wall(times, self.zone)
        if self.unit == "duration":
            if self.step > DAY:
                return times
            since = (wall - wall.astype("datetime64[D]")).astype(np.int64)
            return times - (since % self.step).astype("timedelta64[ns]")
        if self.unit == "open":
            return to_utc(timetable.time_of(self.slots, timetable.place(self.slots, wall)), self.zone)
        days = wall.astype("datetime64[D]")
        if self.unit == "business":
            days = np.busday_offset(days, 0, roll="backward")
        elif self.unit == "half-month":
            days = self._half(self._halves(days))
        elif self.unit == "month":
            month = days.astype("datetime64[M]")
            ahead = (month.astype(np.int64) - (self.anchor - 1)) % self.step if self.anchor else 0
            days = (month - ahead).astype("datetime64[D]")
        elif self.step % 7 == 0:
            days = days - (days.astype(np.int64) + 3 - self.anchor) % 7
        return to_utc(days.astype("datetime64[ns]"), self.zone)

    def extend(self, last: Instant, steps: int) -> np.ndarray:
        """Gives the `steps` times that follow `last`."""
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


def _instant(time: Instant | np.ndarray) -> np.ndarray:
    if isinstance(time, pd.Timestamp):
        time = time.to_datetime64()
    return np.atleast_1d(np.asarray(time)).astype("datetime64[ns]")


def _integer(row: Instant | np.ndarray) -> np.ndarray:
    if isinstance(row, pd.Timestamp) or np.asarray(row).dtype.kind not in "iu":
        raise TypeError(f"rows that are only counted have integers for times, not {row!r}")
    return np.asarray(row, dtype=np.int64)


def _duration_alias(nanoseconds: int) -> str:
    for size, name in ((3600 * _SECONDS, "h"), (60 * _SECONDS, "min"), (_SECONDS, "s"), (10**6, "ms"), (1000, "us")):
        if nanoseconds % size == 0:
            return _many(nanoseconds // size, name)
    return _many(nanoseconds, "ns")


def _many(count: int, alias: str) -> str:
    return alias if count == 1 else f"{count}{alias}"


def _nearest(distance: np.ndarray, step: int) -> np.ndarray:
    whole, rest = np.divmod(distance, step)  # twice a distance of 146 years would not fit an int64 of nanoseconds
    return whole + (2 * rest >= step)
