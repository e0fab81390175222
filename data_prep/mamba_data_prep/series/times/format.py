"""Times as text: directives like those of `strftime`, which both read and write, and never guess."""

# pandas 2 makes the parts of a DatetimeIndex at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa

from mamba_data_prep.series.arrow import pc
from mamba_data_prep.series.times.frequency import to_wall

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONG = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november")
MONTH_NAMES = "|".join((*_LONG, "december", *MONTHS[:8], "sept", *MONTHS[8:]))
_DAYS = "(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
_ZONE = r"z|utc|gmt|[+-]\d{2}:?(?:\d{2})?"
_READ = {
    **{"Y": r"\d{4}", "y": r"\d{2}", "m": r"\d{2}", "-m": r"\d{1,2}", "d": r"\d{2}", "-d": r"\d{1,2}", "j": r"\d{3}"},
    **{
        "H": r"\d{2}",
        "-H": r"\d{1,2}",
        "I": r"\d{2}",
        "-I": r"\d{1,2}",
        "M": r"\d{2}",
        "S": r"\d{2}",
        "f": r"\d{1,9}",
        **{f"{digits}f": rf"\d{{{digits}}}" for digits in range(1, 10)},
    },
    **{"p": r"[ap]\.?m\.?", "P": r"[ap]\.?m\.?"},
    **{
        "b": MONTH_NAMES,
        "B": MONTH_NAMES,
        "^b": MONTH_NAMES,
        "^B": MONTH_NAMES,
        "q": r"[1-4]",
        "G": r"\d{4}",
        "V": r"\d{2}",
        "-V": r"\d{1,2}",
    },
    **{
        "u": r"[1-7]",
        "z": _ZONE,
        ":z": _ZONE,
        "-z": _ZONE,
        "Z": _ZONE,
        ":Z": _ZONE,
        "s": r"-?\d{1,11}(?:\.\d{1,9})?",
        "L": r"-?\d{1,14}",
    },
    **{"K": r"-?\d{1,17}", "N": r"-?\d{1,19}", "i": r"-?\d{1,15}(?:\.0+)?"},
}
"""Directive -> what it reads. `%3f` is a fraction of three digits, `%-z` an offset in hours (with minutes
where there are some), `%:Z` the word UTC, `%P` am and pm, `%^b` a name in capitals; `%L`, `%K` and `%N` are milli-,
micro- and nanoseconds since 1970, `%i` an integer."""

_EPOCHS = {"s": 1_000_000_000, "L": 1_000_000, "K": 1000, "N": 1}
_DIRECTIVE = re.compile(r"%(-?[a-zA-Z]|:[zZ]|\^[abAB]|[1-9]f)|(\[)|(\])|([^%\[\]]+)")
_YEARS = (1678, 2261)
"""The whole years that nanoseconds in 64 bits can hold."""


@dataclass(frozen=True)
class ParsedTimes:
    """A column of times.

    Attributes:
        values: (n,) int64: nanoseconds since 1970 on the wall clock that was written, or plain integers.
        ok: (n,) whether the cell was a time.
        offset: (n,) seconds east of UTC as written, or None if none is written.
    """

    values: np.ndarray
    ok: np.ndarray
    offset: np.ndarray | None


@dataclass(frozen=True)
class TimeFormat:
    """How a column writes its times.

    Attributes:
        pattern: directives of `strftime`, with `%-m`, `%-d`, `%-H` for numbers without padding, `%q` for a quarter,
            `%G` `%V` for an ISO week, `%s` for seconds since 1970, `%i` for a plain integer, and `[...]` around what
            may be absent.
    """

    pattern: str = "%Y-%m-%d %H:%M:%S"

    @cached_property
    def directives(self) -> tuple[str, ...]:
        """The directives in order, without padding signs."""
        return tuple(_bare(found[0]) for found in _DIRECTIVE.findall(self.pattern) if found[0])

    @property
    def is_index(self) -> bool:
        """Whether times are plain integers."""
        return self.directives == ("i",)

    @property
    def has_zone(self) -> bool:
        """Whether times are instants: an offset is written, or they count from 1970."""
        return bool({"z", "Z", *_EPOCHS} & set(self.directives))

    @property
    def has_hours(self) -> bool:
        """Whether the time of day is written."""
        return bool({"H", "I", *_EPOCHS} & set(self.directives))

    @cached_property
    def expression(self) -> str:
        """The regular expression that reads it, in the dialect of RE2 and of Python."""
        parts = []
        for directive, opened, closed, literal in _DIRECTIVE.findall(self.pattern):
            if _bare(directive) in ("a", "A"):
                parts.append(_DAYS)
            elif directive:
                parts.append(f"(?P<{_bare(directive)}>{_READ[directive]})")
            else:
                parts.append("(?:" if opened else ")?" if closed else re.escape(literal).replace("\\ ", " +"))
        return f"^(?i:{''.join(parts)})$"

    def parse(self, cells: pa.Array) -> ParsedTimes:
        """Reads a column of text without blanks around it, each distinct cell once."""
        encoded = pc.dictionary_encode(cells)
        read = self._parse(encoded.dictionary)
        rows = encoded.indices.to_numpy(zero_copy_only=False)
        return ParsedTimes(read.values[rows], read.ok[rows], None if read.offset is None else read.offset[rows])

    def _parse(self, cells: pa.Array) -> ParsedTimes:
        groups = pc.extract_regex(cells, self.expression)
        found = pc.fill_null(pc.is_valid(groups), False).to_numpy(zero_copy_only=False)
        parts = {field.name: groups.field(field.name) for field in groups.type}
        if self.is_index:
            return ParsedTimes(_integers(_whole(parts["i"]), 0), found, None)
        epoch = next((name for name in _EPOCHS if name in parts), None)
        if epoch:
            values, ok = _since_1970(parts[epoch], epoch)
            return ParsedTimes(values, found & ok, np.zeros(len(values), dtype=np.int64))
        days, ok = _dates(parts)
        clock, valid = _clock(parts)
        zone = parts.get("z", parts.get("Z"))
        return ParsedTimes(
            days * 86_400_000_000_000 + clock, found & ok & valid, None if zone is None else _offsets(zone)
        )

    def format(self, times: np.ndarray, zone: str | None = None) -> list[str]:
        """Writes times: UTC instants where there is a zone, else wall clock; integers as they are."""
        if times.dtype.kind in "iu":
            return [str(int(value)) for value in times]
        utc = times.astype("datetime64[ns]")
        wall = pd.DatetimeIndex(to_wall(utc, zone))
        offset = (wall.to_numpy() - utc).astype("timedelta64[s]").astype(np.int64)
        columns: list[list[str]] = []
        for directive, opened, closed, literal in _DIRECTIVE.findall(self.pattern):
            if directive:
                columns.append(_written(directive, wall, offset, utc))
            elif not opened and not closed:
                columns.append([literal] * len(wall))
        return ["".join(pieces) for pieces in zip(*columns, strict=True)]


def _bare(directive: str) -> str:
    return directive.lstrip("-:^123456789")


def _whole(cells: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(cells, r"\.0+$", "")


def _integers(cells: pa.Array, absent: int) -> np.ndarray:
    """Digits as int64; `absent` where a group is empty or the cell was not read."""
    empty = pc.or_(pc.is_null(cells), pc.equal(pc.fill_null(cells, ""), ""))
    return pc.cast(pc.if_else(empty, str(absent), cells), pa.int64()).to_numpy(zero_copy_only=False)


def _since_1970(cells: pa.Array, unit: str) -> tuple[np.ndarray, np.ndarray]:
    if unit == "s":
        whole = _integers(pc.replace_substring_regex(cells, r"\..*$", ""), 0)
        digits = pc.utf8_rpad(pc.replace_substring_regex(pc.fill_null(cells, ""), r"^[^.]*\.?", ""), 9, "0")
        fraction = _integers(digits, 0)
    else:
        whole, fraction = _integers(cells, 0), np.zeros(len(cells), dtype=np.int64)
    ok = np.abs(whole) < 9_200_000_000_000_000_000 // _EPOCHS[unit]
    return np.where(ok, whole, 0) * _EPOCHS[unit] + fraction, ok


def _dates(parts: dict[str, pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """Days since 1970, and whether the calendar has such a day."""
    year = _year(parts)
    known = (year >= _YEARS[0]) & (year <= _YEARS[1])
    year = np.where(known, year, 1970)
    if "V" in parts:
        return _weeks(year, _integers(parts["V"], 1), _integers(parts["u"], 1) if "u" in parts else None, known)
    month = _month(parts, len(year))
    valid = known & (month >= 1) & (month <= 12)
    first = ((year - 1970) * 12 + np.where(valid, month, 1) - 1).astype("datetime64[M]")
    start = first.astype("datetime64[D]").astype(np.int64)
    if "j" in parts:
        day = _integers(parts["j"], 1)
        last = ((year - 1969) * 12).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    else:
        day = _integers(parts["d"], 1) if "d" in parts else np.ones(len(year), dtype=np.int64)
        last = (first + 1).astype("datetime64[D]").astype(np.int64)
    return start + day - 1, valid & (day >= 1) & (start + day - 1 < last)


def _year(parts: dict[str, pa.Array]) -> np.ndarray:
    if "y" in parts:
        short = _integers(parts["y"], 0)
        return np.where(short < 69, 2000 + short, 1900 + short)
    return _integers(parts.get("Y", parts.get("G")), 1970)


def _month(parts: dict[str, pa.Array], count: int) -> np.ndarray:
    if "m" in parts:
        return _integers(parts["m"], 1)
    if "q" in parts:
        return 3 * _integers(parts["q"], 1) - 2
    name = parts.get("b", parts.get("B"))
    if name is None:
        return np.ones(count, dtype=np.int64)
    short = pc.utf8_slice_codeunits(pc.utf8_lower(pc.fill_null(name, "jan")), 0, 3)
    return pc.fill_null(pc.index_in(short, pa.array(MONTHS)), -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1


def _weeks(
    year: np.ndarray, week: np.ndarray, day: np.ndarray | None, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Days since 1970 of ISO weeks: week 1 holds 4 January."""
    fourth = ((year - 1970) * 12).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + 3
    monday = fourth - (fourth + 3) % 7 + 7 * (week - 1)
    thursday = (monday + 3).astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    return monday + (0 if day is None else day - 1), known & (week >= 1) & (thursday == year)


def _clock(parts: dict[str, pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """Nanoseconds since midnight; 24:00 is the next midnight."""
    count = len(next(iter(parts.values())))
    hour = _integers(parts["H"], 0) if "H" in parts else np.zeros(count, dtype=np.int64)
    ok = hour <= 24
    if "I" in parts:
        twelve = _integers(parts["I"], 12)
        ok = (twelve >= 1) & (twelve <= 12)
        evening = pc.fill_null(pc.starts_with(pc.utf8_lower(parts.get("p", parts.get("P"))), "p"), False).to_numpy(
            zero_copy_only=False
        )
        hour = twelve % 12 + 12 * evening
    minute, second = (_integers(parts[k], 0) if k in parts else np.zeros(count, dtype=np.int64) for k in "MS")
    fraction = _integers(pc.utf8_rpad(pc.fill_null(parts["f"], ""), 9, "0"), 0) if "f" in parts else 0
    ok &= (minute < 60) & (second < 60) & ((hour < 24) | ((minute == 0) & (second == 0)))
    return ((hour * 60 + minute) * 60 + second) * 1_000_000_000 + fraction, ok


def _offsets(cells: pa.Array) -> np.ndarray:
    """Seconds east of UTC; the largest int64 where no offset is written."""
    encoded = pc.dictionary_encode(pc.utf8_lower(pc.fill_null(cells, "")))
    table = np.array([_offset(text) for text in encoded.dictionary.to_pylist()], dtype=np.int64)
    return table[encoded.indices.to_numpy(zero_copy_only=False)]


NO_OFFSET = np.iinfo(np.int64).max
"""Stands in `ParsedTimes.offset` for a time that was written without one."""


def _offset(text: str) -> int:
    if not text:
        return NO_OFFSET
    if text in ("z", "utc", "gmt"):
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    return (-1 if text[0] == "-" else 1) * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)


def _signed(seconds: int, colon: str) -> str:
    sign, minutes = "-" if seconds < 0 else "+", abs(seconds) // 60
    return f"{sign}{minutes // 60:02d}{colon}{minutes % 60:02d}"


_PARTS: dict[str, Callable[[pd.DatetimeIndex], list[str]]] = {
    "Y": lambda t: [f"{v:04d}" for v in t.year],
    "y": lambda t: [f"{v % 100:02d}" for v in t.year],
    "m": lambda t: [f"{v:02d}" for v in t.month],
    "d": lambda t: [f"{v:02d}" for v in t.day],
    "j": lambda t: [f"{v:03d}" for v in t.day_of_year],
    "H": lambda t: [f"{v:02d}" for v in t.hour],
    "I": lambda t: [f"{(v + 11) % 12 + 1:02d}" for v in t.hour],
    "M": lambda t: [f"{v:02d}" for v in t.minute],
    "S": lambda t: [f"{v:02d}" for v in t.second],
    "f": lambda t: [f"{u:06d}" + (f"{n:03d}" if n else "") for u, n in zip(t.microsecond, t.nanosecond, strict=True)],
    "p": lambda t: ["PM" if v >= 12 else "AM" for v in t.hour],
    "P": lambda t: ["pm" if v >= 12 else "am" for v in t.hour],
    "b": lambda t: [MONTHS[v - 1].capitalize() for v in t.month],
    "B": lambda t: [(*_LONG, "december")[v - 1].capitalize() for v in t.month],
    "a": lambda t: [v[:3] for v in t.day_name()],
    "A": lambda t: list(t.day_name()),
    "q": lambda t: [str(v) for v in t.quarter],
    "G": lambda t: [f"{v:04d}" for v in t.isocalendar().year],
    "V": lambda t: [f"{v:02d}" for v in t.isocalendar().week],
    "u": lambda t: [str(v + 1) for v in t.dayofweek],
}


def _written(directive: str, wall: pd.DatetimeIndex, offset: np.ndarray, utc: np.ndarray) -> list[str]:
    if directive == "-z":
        return [_signed(int(seconds), ":").removesuffix(":00") for seconds in offset]
    if directive.startswith("^"):
        return [text.upper() for text in _PARTS[directive[1:]](wall)]
    if directive[0].isdigit():
        digits = int(directive[0])
        return [f"{u:06d}{n:03d}"[:digits] for u, n in zip(wall.microsecond, wall.nanosecond, strict=True)]
    if directive.startswith("-"):
        return [text.lstrip("0") or "0" for text in _PARTS[directive[1:]](wall)]
    if directive in _PARTS:
        return _PARTS[directive](wall)
    if directive in _EPOCHS:
        return [str(v // _EPOCHS[directive]) for v in utc.astype(np.int64).tolist()]
    if directive in ("Z", ":Z") and not offset.any():
        return ["Z" if directive == "Z" else "UTC"] * len(wall)
    return [_signed(int(seconds), "" if directive == "z" else ":") for seconds in offset]
