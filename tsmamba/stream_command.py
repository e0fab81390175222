"""`tsmamba stream`: rows on standard input, a forecast after each, from a state that never grows."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from mamba_data_prep.errors import UserError
from mamba_data_prep.series import Frequency
from mamba_data_prep.series.timedetect import detect_times
from mamba_data_prep.series.timeformat import NO_OFFSET, TimeFormat
from mamba_data_prep.series.words import STRONG_IDS, TARGETS, is_missing, is_time_name, plain

from tsmamba.fitted import FittedModel
from tsmamba.forecaster import Forecaster
from tsmamba.methods import Learned
from tsmamba.streaming import Stream

_LONGEST_GAP = 10_000
"""Missing rows that are filled in between two rows; a longer gap is a wrong time."""


class _Series:
    """One series of the stream: its state, its last time, and what follows it."""

    def __init__(self, fitted: FittedModel, unique_id: str, frequency: Frequency) -> None:
        self.stream = Stream(fitted, unique_id, frequency)
        self.frequency = frequency
        self.last: np.datetime64 | int | None = None

    def push(self, time: np.datetime64 | int, value: float | None, line: int) -> tuple[np.ndarray, np.ndarray]:
        """Feed one row, and a missing one for each step that was left out before it."""
        if self.last is not None:
            steps = int(self.frequency.count(np.array([time]), self.last)[0])
            if steps < 1 or steps > _LONGEST_GAP or self.frequency.after(self.last, np.array([steps]))[0] != time:
                raise UserError(
                    "this time does not follow the row before it", path="-", line=line, found=str(time),
                    accepted=f"{self.last} and whole steps of {self.frequency.alias}, at most {_LONGEST_GAP:,}",
                    fix="send rows in order of time, each once",
                )  # fmt: skip
            for skipped in self.frequency.after(self.last, np.arange(1, steps)):
                self.stream.push(skipped, None)
        self.last = time
        return self.stream.push(time, value)


def run_stream(rows: Iterable[str], model: Path, horizon: int | None = None) -> Iterator[str]:
    """A forecast after each row.

    Args:
        rows: CSV lines with a header: a time column, a value column, and, for several series, one that names them.
        model: a run made by `tsmamba fit --method causal`.
        horizon: rows ahead; those fitted by default.

    Yields:
        CSV lines: a header, then `unique_id, origin, ds, yhat` and quantiles, as many as the horizon after each row.
        The quantiles are the model's own: calibration needs the history that a stream does not keep.

    Raises:
        UserError: the model is not causal, or a row cannot be read.
    """
    forecaster = Forecaster.load(model)
    method = forecaster.selection_.method
    if not isinstance(method, Learned) or method.name != "causal":
        fix = "fit one: tsmamba fit CSV --method causal --out RUN"
        raise UserError("only causal models can be fed row by row", path=model, found=method.name, fix=fix)
    fitted, frequency = method.model, Frequency.from_alias(forecaster.frequency_)
    steps = min(horizon or fitted.horizon, fitted.horizon)
    reader = csv.reader(iter(rows))
    header = next(reader, None)
    columns = _columns(header or [])
    yield ",".join(["unique_id", "origin", "ds", "yhat", *(f"q{level:g}" for level in fitted.levels)]) + "\n"
    series: dict[str, _Series] = {}
    format: TimeFormat | None = None
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        name, cell, value = _fields(row, columns, reader.line_num, list(fitted.scaler.series))
        format = format or _format(cell, reader.line_num)
        time = _time(cell, format, reader.line_num)
        one = series.get(name) or series.setdefault(name, _Series(fitted, name, frequency))
        point, quantiles = one.push(time, value, reader.line_num)
        written = format.format(frequency.after(time, np.arange(steps + 1)), "UTC" if format.has_zone else None)
        for ahead in range(steps):
            figures = ",".join(f"{figure:.10g}" for figure in (point[ahead], *quantiles[ahead]))
            yield f"{_quoted(name)},{written[0]},{written[ahead + 1]},{figures}\n"


def _columns(header: list[str]) -> tuple[int | None, int, int]:
    """The places of the series' name, the time and the value."""
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
            accepted="unique_id,ds,y (unique_id may be left out for one series)", fix="name the columns so",
        )  # fmt: skip
    return name, time, value


def _fields(
    row: list[str], columns: tuple[int | None, int, int], line: int, known: list[str]
) -> tuple[str, str, float | None]:
    name, time, value = columns
    if len(row) <= max(time, value, name or 0):
        raise UserError("too few fields", path="-", line=line, found=",".join(row), fix="send whole rows")
    if name is None and len(known) != 1:
        raise UserError("rows must name their series", path="-", line=line, accepted="a column unique_id")
    cell = row[value].strip()
    try:
        number = None if is_missing(cell) else float(cell)
    except ValueError:
        raise UserError("not a number", path="-", line=line, found=cell, accepted="a number, or blank") from None
    if number is not None and not np.isfinite(number):
        raise UserError("not a finite number", path="-", line=line, found=cell, accepted="a number, or blank")
    return known[0] if name is None else row[name].strip(), row[time].strip(), number


def _format(cell: str, line: int) -> TimeFormat:
    detected = detect_times(pa.array([cell]), integers=True)
    if detected is None or detected.other_order is not None:
        raise UserError("this time cannot be read", path="-", line=line, found=cell, accepted="2020-01-31 13:00:00")
    return detected.format


def _time(cell: str, format: TimeFormat, line: int) -> np.datetime64 | int:
    parsed = format.parse(pa.array([cell]))
    if not parsed.ok[0]:
        raise UserError("this time is not like the first", path="-", line=line, found=cell, accepted=format.pattern)
    value = int(parsed.values[0])
    if format.is_index:
        return value
    offset = 0 if parsed.offset is None or parsed.offset[0] == NO_OFFSET else int(parsed.offset[0])
    return np.datetime64(value - offset * 1_000_000_000, "ns")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text
