"""`tsmamba stream`: rows on standard input, a forecast after each, from a state that never grows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mamba_data_prep.errors import UserError
from tsmamba.evaluation.conformal import Calibration
from tsmamba.evaluation.season_widths import phase_after
from tsmamba.fitting.fitted import FittedModel
from tsmamba.forecaster import Forecaster
from tsmamba.methods.methods import Learned
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.holidays import holiday_flags
from tsmamba.panel.source import Source
from tsmamba.streaming.rows import Clock, Row, RowReader
from tsmamba.streaming.stream import Recent, Stream

_LONGEST_GAP = 10_000
"""Missing rows that are filled in between two rows; a longer gap is a wrong time."""


class _Series:
    """One series of the stream: its state, its last time, and what calibration needs of its past."""

    def __init__(
        self, fitted: FittedModel, unique_id: str, source: Source, calibration: Calibration, place: str | None
    ) -> None:
        self.stream = Stream(fitted, unique_id, source.frequency)
        self.unique_id, self.levels, self.frequency = unique_id, fitted.levels, source.frequency
        self.calibration, self.recent, self.place = calibration, Recent(calibration.season), place
        self.last: np.datetime64 | int | None = None

    def push(self, time: np.datetime64 | int, row: Row) -> Forecast:
        """Feed one row, and a missing one for each step that was left out before it."""
        if self.last is not None:
            steps = int(self.frequency.count(np.array([time]), self.last)[0])
            if steps < 1 or steps > _LONGEST_GAP or self.frequency.after(self.last, np.array([steps]))[0] != time:
                raise UserError(
                    "this time does not follow the row before it", path="-", line=row.line, found=row.cell,
                    accepted=f"{self.last} and whole steps of {self.frequency.alias}, at most {_LONGEST_GAP:,}",
                    fix="send rows in order of time, each once",
                )  # fmt: skip
            for skipped in self.frequency.after(self.last, np.arange(1, steps)):
                self.recent.push(np.nan)
                unknown = [np.nan] * len(row.future)
                self.stream.push(skipped, None, [np.nan] * len(row.past), [*unknown, *self._holiday(skipped)])
        self.last = time
        self.recent.push(row.value)
        point, _ = self.stream.push(time, row.value, row.past, [*row.future, *self._holiday(time)])
        every = np.repeat(point[:, None], len(self.levels), axis=1)
        forecast = Forecast((self.unique_id,), self.levels, point[None], every[None])
        recent, season = self.recent, self.calibration.season
        phase = phase_after(time, self.frequency, season)
        constant = recent.constant(self.levels)[None]
        scale, floor = np.array([recent.scale]), np.array([recent.floor])
        return self.calibration.shifted(forecast, scale, floor, np.array([phase]), constant)

    def _holiday(self, time: np.datetime64 | int) -> list[float]:
        if self.place is None:
            return []
        return holiday_flags(np.array([time]), self.frequency, self.place).tolist()


def run_stream(rows: Iterable[str], model: Path, horizon: int | None = None) -> Iterator[str]:
    """A forecast after each row.

    Args:
        rows: CSV lines with a header: those of the table that was fitted on, or a time column, a value column, and, for
            several series, one that names them.
        model: a run made by `tsmamba fit --method causal`.
        horizon: rows ahead; those fitted by default.

    Yields:
        CSV lines: a header, then `unique_id, origin, ds, yhat` and quantiles, as many as the horizon after each row:
        what `tsmamba forecast --model` says of a file that ends there.

    Raises:
        UserError: the model is not causal, or a row cannot be read.
    """
    forecaster = Forecaster.load(model)
    method = forecaster.selection_.method
    if not isinstance(method, Learned) or method.name != "causal":
        fix = "fit one: tsmamba fit CSV --method causal --out RUN"
        raise UserError("only causal models can be fed row by row", path=model, found=method.name, fix=fix)
    fitted, source = method.model, forecaster.source_
    steps = min(horizon or fitted.horizon, fitted.horizon)
    reader, clock = RowReader(rows, source, list(fitted.scaler.series)), Clock(source)
    yield ",".join(["unique_id", "origin", "ds", "yhat", *(f"q{level:g}" for level in fitted.levels)]) + "\n"
    series: dict[str, _Series] = {}
    for row in reader:
        if row.unique_id not in series:
            calibration, place = forecaster.selection_.calibration, forecaster.holidays
            series[row.unique_id] = _Series(fitted, row.unique_id, source, calibration, place)
        one = series[row.unique_id]
        time = clock.read(row, one.last)
        forecast = one.push(time, row)
        written = clock.write(source.frequency.after(time, np.arange(steps + 1)))
        yield from _lines(forecast, written)


def _lines(forecast: Forecast, written: Sequence[str]) -> Iterator[str]:
    """Rows of the output: the origin's time comes first in `written`, then those of the steps."""
    name, origin, *times = (*map(_quoted, (forecast.ids[0], *written)),)
    for step, time in enumerate(times):
        figures = ",".join(f"{figure:.10g}" for figure in (forecast.point[0, step], *forecast.quantiles[0, step]))
        yield f"{name},{origin},{time},{figures}\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text
