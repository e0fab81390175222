"""Rows of a stream: lines of CSV, written like the table that the forecaster was fitted on, one by one."""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import TimeFormat
from mamba_data_prep.series.numbers import Style, read_numbers
from mamba_data_prep.series.times.detect import detect_times
from mamba_data_prep.series.times.format import NO_OFFSET
from mamba_data_prep.series.words import MISSING, STRONG_IDS, TARGETS, is_time_name, plain
from tsmamba.panel.source import Source


@dataclass(frozen=True)
class Row:
    """One observation, as a line of the stream gives it.

    Attributes:
        line: of the stream.
        unique_id: of the series.
        cell: the time as it is written.
        value: in the data's units, NaN where it is missing.
        past, future: covariates, NaN where they are missing.
    """

    line: int
    unique_id: str
    cell: str
    value: float
    past: list[float]
    future: list[float]


@dataclass(frozen=True)
class Columns:
    """The places in a row of its series' name, its time, its values and its covariates.

    Attributes:
        ids: places of the columns that name the series.
        time: place of the time; None where rows are only counted.
        targets: names and places of the values; a row holds one value of as many series.
        past, future: places of the covariates.
    """

    ids: tuple[int, ...]
    time: int | None
    targets: tuple[tuple[str, int], ...]
    past: tuple[int, ...] = ()
    future: tuple[int, ...] = ()

    def name(self, row: Sequence[str], target: str) -> str:
        """The series' name, as reading a whole table makes it."""
        parts = [row[place].strip() for place in self.ids]
        return "/".join([*parts, target] if not parts or len(self.targets) > 1 else parts)


class RowReader:
    """Reads rows in the manner of the table that was fitted on, or of `unique_id,ds,y`.

    Args:
        lines: CSV with a header.
        source: how the table that was fitted on is written.
        known: names of the series that were fitted on.

    Raises:
        UserError: the header does not tell time and value.
    """

    def __init__(self, lines: Iterable[str], source: Source, known: Sequence[str]) -> None:
        first, self.lines = "", iter(lines)
        for line in self.lines:
            first = line.lstrip("\ufeff")
            break
        options, self.source, self.only = source.options, source, known[0] if len(known) == 1 else None
        self.delimiter = options.delimiter or ","
        self.style = Style(options.decimal or ".", options.thousands, _missing(source))
        columns = _as_fitted(next(csv.reader([first], delimiter=self.delimiter), []), source)
        if columns is None:
            self.delimiter = ","
            self.style, columns = Style(), _by_name(next(csv.reader([first]), []))
        self.columns = columns
        self.counts: dict[str, Iterator[int]] = defaultdict(itertools.count)

    def __iter__(self) -> Iterator[Row]:
        reader = csv.reader(self.lines, delimiter=self.delimiter)
        for row in reader:
            if any(cell.strip() for cell in row):
                yield from self._rows(row, reader.line_num + 1)

    def _rows(self, row: list[str], line: int) -> Iterator[Row]:
        columns = self.columns
        targets, past, future = columns.targets, columns.past, columns.future
        if len(row) <= max(columns.time or 0, *columns.ids, *past, *future, *(place for _, place in targets)):
            raise UserError("too few fields", path="-", line=line, found=",".join(row), fix="send whole rows")
        values = self._numbers(row, (*(place for _, place in targets), *past, *future), line)
        covariates = values[len(targets) :]
        for (target, _), value in zip(targets, values, strict=False):
            name = self._name(row, target, line)
            cell = str(next(self.counts[name])) if columns.time is None else row[columns.time].strip()
            yield Row(line, name, cell, value, covariates[: len(past)], covariates[len(past) :])

    def _name(self, row: list[str], target: str, line: int) -> str:
        if self.columns.ids or target in self.source.options.target:
            return self.columns.name(row, target)
        if self.only is None:
            raise UserError("rows must name their series", path="-", line=line, accepted="a column unique_id")
        return self.only

    def _numbers(self, row: list[str], places: Sequence[int], line: int) -> list[float]:
        reading = read_numbers(pa.array([row[place].strip() for place in places], pa.string()), self.style)
        if len(reading.bad):
            cell = row[places[int(reading.bad[0])]]
            raise UserError("not a number", path="-", line=line, found=cell, accepted="a number, or blank")
        return [float(value) for value in reading.values]


class Clock:
    """Reads the times of a stream, and writes those that follow in the same manner.

    Args:
        source: how the table that was fitted on writes its times, in which zone.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.format = source, None

    def read(self, row: Row, last: np.datetime64 | int | None) -> np.datetime64 | int:
        """A row's time: UTC where there is a zone, a number where rows are only counted.

        Args:
            row: of the stream.
            last: time of the series' row before; of an hour that clocks repeat, what follows it is the second.
        """
        if self.format is None:
            self.format = self._found(row)
        parsed = self.format.parse(pa.array([row.cell]))
        if not parsed.ok[0]:
            problem, accepted = "this time is not like the first", self.format.pattern
            raise UserError(problem, path="-", line=row.line, found=row.cell, accepted=accepted)
        value = int(parsed.values[0])
        if self.format.is_index:
            return value
        if parsed.offset is not None and parsed.offset[0] != NO_OFFSET:
            return np.datetime64(value - int(parsed.offset[0]) * 1_000_000_000, "ns")
        if self.source.zone is None:
            return np.datetime64(value, "ns")
        return self._instant(row, np.datetime64(value, "ns"), last)

    def write(self, times: np.ndarray) -> list[str]:
        """Times in the stream's format, in the source's zone."""
        if self.format is None:
            raise ValueError("no time was read yet")
        return self.format.format(times, self.source.zone or ("UTC" if self.format.has_zone else None))

    def _found(self, row: Row) -> TimeFormat:
        usual = self.source.time_format
        if usual.parse(pa.array([row.cell])).ok[0]:
            return usual
        detected = detect_times(pa.array([row.cell]), integers=True)
        if detected is None or detected.other_order is not None:
            accepted = usual.pattern
            raise UserError("this time cannot be read", path="-", line=row.line, found=row.cell, accepted=accepted)
        return detected.format

    def _instant(self, row: Row, wall: np.datetime64, last: np.datetime64 | int | None) -> np.datetime64:
        """A wall clock's time in UTC; of an hour that clocks repeat, the first unless that is past."""
        clock = pd.DatetimeIndex([wall, wall])
        both = clock.tz_localize(self.source.zone, ambiguous=np.array([True, False]), nonexistent="NaT")
        if both.hasnans:
            problem = f"no such time in {self.source.zone}: clocks go forward over it"
            raise UserError(problem, path="-", line=row.line, found=row.cell)
        summer, winter = both.tz_convert("UTC").tz_localize(None).to_numpy(dtype="datetime64[ns]")
        return summer if last is None or summer > last else winter


def _as_fitted(header: Sequence[str], source: Source) -> Columns | None:
    """The columns of the table that was fitted on, if the header has them."""
    options, places = source.options, {name.strip(): place for place, name in reversed(list(enumerate(header)))}
    needed = (*options.time, *options.id, *options.target, *options.past_covariates, *options.future_covariates)
    counted = source.time_format.is_index and not options.time
    if not (len(options.time) == 1 or counted) or not options.target or not all(name in places for name in needed):
        return None
    at = {name: places[name] for name in needed}
    return Columns(
        tuple(at[name] for name in options.id),
        None if counted else at[options.time[0]],
        tuple((name, at[name]) for name in options.target),
        tuple(at[name] for name in options.past_covariates),
        tuple(at[name] for name in options.future_covariates),
    )


def _by_name(header: Sequence[str]) -> Columns:
    """Columns whose names say what they hold: `unique_id,ds,y` and the like."""
    words = [plain(name) for name in header]
    name = next((i for i, word in enumerate(words) if word in STRONG_IDS), None)
    time = next((i for i, one in enumerate(header) if i != name and is_time_name(one)), None)
    value = next((i for i, word in enumerate(words) if word in TARGETS), None)
    if value is None:
        rest = [i for i in range(len(header)) if i not in (name, time)]
        value = rest[0] if len(rest) == 1 else None
    if time is None or value is None:
        raise UserError(
            "the header does not tell time and value", path="-", line=1, found=",".join(header),
            accepted="the columns of the table that was fitted on, or unique_id,ds,y", fix="name the columns so",
        )  # fmt: skip
    return Columns(() if name is None else (name,), time, ((header[value], value),))


def _missing(source: Source) -> frozenset[str]:
    return MISSING | {word.strip().lower() for word in source.options.missing}
