"""Regular grids: rows in order, one a step, duplicates settled by rule, gaps as rows of missing values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.table import Table
from mamba_data_prep.series.times.frequency import Frequency
from mamba_data_prep.series.times.steps import Irregular, find_frequency

SPARSEST = 20
"""Steps a row of the file at most; a grid that is emptier has a wrong step."""
_LONGER = {"duration": "D", "open": "D", **dict.fromkeys(("day", "business", "half-month"), "MS"), "month": "YS"}
"""What to average over where there are too many steps."""


@dataclass(frozen=True)
class Rows:
    """The rows of all series, one after another.

    Attributes:
        series: (n,) number of the series.
        times: (n,) int64, UTC or wall-clock nanoseconds, or integers.
        values: (n, columns) float64.
        lines: (n,) lines of the file.
    """

    series: np.ndarray
    times: np.ndarray
    values: np.ndarray
    lines: np.ndarray

    def take(self, order: np.ndarray) -> Rows:
        """Gives the rows with these numbers, or where a mask is true."""
        return Rows(self.series[order], self.times[order], self.values[order], self.lines[order])


@dataclass(frozen=True)
class Grid:
    """Rows on their grids: as `Rows`, with `times` as `datetime64[ns]` or int64."""

    series: np.ndarray
    times: np.ndarray
    values: np.ndarray
    frequency: Frequency


def to_grid(
    rows: Rows,
    names: list[str],
    table: Table,
    zone: str | None,
    options: ReadOptions,
    report: IngestReport,
    *,
    index: bool,
) -> Grid:
    """Sorts, settles duplicates, finds the step, and fills gaps.

    Args:
        rows: as they lie in the file.
        names: the series' names, for messages.
        table: the file, for messages.
        zone: where days are counted; None: on the wall clock that `rows.times` shows.
        options: the frequency, and what becomes of duplicates, if the user says so.
        report: where repairs are told.
        index: whether times are plain integers.

    Raises:
        UserError: rows contradict each other, or no step fits the times.
    """
    rows = _without_duplicates(_sorted(rows, report), names, table, options, report, index=index)
    frequency = _frequency(rows, names, table, zone, options, report, index=index)
    origins = _origins(rows, frequency, binned=options.frequency is not None)
    counts = frequency.count(_as_times(rows.times, index), _as_times(origins, index)[rows.series])
    if options.frequency is not None:
        late = frequency.after(_as_times(origins, index)[rows.series], counts) > _as_times(rows.times, index)
        counts = counts - late
    snapped = frequency.after(_as_times(origins, index)[rows.series], counts)
    rows, counts = _snapped(rows, counts, snapped, names, table, options, report, index=index)
    return _filled(rows, counts, _as_times(origins, index), frequency, table, report)


def _as_times(values: np.ndarray, index: bool) -> np.ndarray:
    return values if index else values.astype("datetime64[ns]")


def _sorted(rows: Rows, report: IngestReport) -> Rows:
    order = np.lexsort((rows.times, rows.series))
    arrival = np.argsort(rows.series, kind="stable")
    steps = np.diff(rows.times[arrival])[np.diff(rows.series[arrival]) == 0]
    if (steps < 0).any():
        back = arrival[1:][(np.diff(rows.series[arrival]) == 0) & (np.diff(rows.times[arrival]) < 0)]
        falls = bool((steps <= 0).all())
        what = (
            "rows ran from the latest to the earliest and were turned round"
            if falls
            else "rows were put in order of time"
        )
        report.repair("sorted", what, count=len(back), lines=np.sort(rows.lines[back])[:5].tolist())
    return rows.take(order)


def _without_duplicates(
    rows: Rows, names: list[str], table: Table, options: ReadOptions, report: IngestReport, *, index: bool
) -> Rows:
    """One row a series and time: equal rows are merged, contradicting ones follow the policy or are refused."""
    new = np.append([True], (np.diff(rows.series) != 0) | (np.diff(rows.times) != 0))
    if new.all():
        return rows
    starts = np.flatnonzero(new)
    low, high = np.fmin.reduceat(rows.values, starts), np.fmax.reduceat(rows.values, starts)
    conflict = ((low != high) & ~np.isnan(low)).any(axis=1)
    sizes = np.diff(np.append(starts, len(new)))
    merged = (sizes > 1) & ~conflict
    if merged.any():
        lines = rows.lines[starts[merged] + 1]
        what = "rows that repeat a time without contradicting each other were merged"
        report.repair("duplicate_rows", what, count=int((sizes[merged] - 1).sum()), lines=lines[:5].tolist())
    values, policy = high, options.duplicates
    if conflict.any():
        first = starts[np.flatnonzero(conflict)[0]]
        if policy == "refuse":
            raise _conflict(rows, int(first), int(conflict.sum()), names, table, options.time, index=index)
        values = _settled(rows, starts, policy, high, conflict)
        what = f"rows that contradict each other about one time: the {policy} of their values is used"
        before = " | ".join(f"{value:g}" for value in rows.values[first : first + 2, 0])
        shown = f"{values[np.flatnonzero(conflict)[0], 0]:g}"
        lines = rows.lines[starts[conflict] + 1]
        report.repair(
            f"duplicates_{policy}",
            what,
            count=int(conflict.sum()),
            lines=lines[:5].tolist(),
            examples=[(before, shown)],
        )
    return Rows(rows.series[starts], rows.times[starts], values, rows.lines[starts])


def _settled(rows: Rows, starts: np.ndarray, policy: str, merged: np.ndarray, conflict: np.ndarray) -> np.ndarray:
    if policy in ("mean", "sum"):
        present = ~np.isnan(rows.values)
        total = np.add.reduceat(np.where(present, rows.values, 0.0), starts)
        count = np.add.reduceat(present.astype(np.int64), starts)
        chosen = np.where(count > 0, total / np.maximum(count, 1) if policy == "mean" else total, np.nan)
    else:  # lexsort is stable, so equal times keep the file's order
        chosen = rows.values[starts if policy == "first" else np.append(starts[1:], len(rows.times)) - 1]
    return np.where(conflict[:, None], chosen, merged)


def _conflict(
    rows: Rows, first: int, count: int, names: list[str], table: Table, columns: tuple[str, ...], *, index: bool
) -> UserError:
    time = rows.times[first] if index else str(rows.times[first].astype("datetime64[ns]"))[:19]
    differing = np.flatnonzero(rows.values[first] != rows.values[first + 1])
    pair = " and ".join(f"{value:g}" for value in rows.values[first : first + 2, differing[0] if len(differing) else 0])
    name = names[int(rows.series[first])]
    where = f" in column {' + '.join(columns)!r}" if columns else ""
    return UserError(
        f"two rows contradict each other about {time}{f' of series {name!r}' if name else ''}"
        f"{where} ({count:,} times so)",
        path=table.path,
        line=int(rows.lines[first + 1]),
        found=f"{pair} (line {rows.lines[first]:,} and this one)",
        fix="delete one; or name the column that tells the series apart (--id COLUMN); or ask for a rule "
        "(--read duplicates=mean, sum, first or last); or, if clocks went back, name the zone (--timezone)",
    )


def _frequency(
    rows: Rows,
    names: list[str],
    table: Table,
    zone: str | None,
    options: ReadOptions,
    report: IngestReport,
    *,
    index: bool,
) -> Frequency:
    if options.frequency is not None:
        return Frequency.from_alias(options.frequency, zone)
    if len(rows.times) < 2:
        fix = "give two rows or more"
        raise UserError("one row is no series", path=table.path, line=int(rows.lines[0]), fix=fix)
    try:
        frequency = find_frequency(rows.times, rows.series, zone, index=index)
    except Irregular as error:
        raise UserError(
            f"the times follow no regular step: {error}",
            path=table.path,
            line=int(rows.lines[0]),
            found=", ".join(str(t)[:19] for t in _as_times(rows.times[:4], index)),
            fix="name the step to average over, such as --freq h or --freq D",
        ) from None
    report.detected["frequency"] = frequency.alias
    if frequency.unit == "open":
        every = frequency.alias.split()[0]
        what = (
            f"rows lie at certain times of the week alone ({frequency.alias}): these are forecast, and seasons are "
            f"counted in them; --freq {every} takes the times between as missing values"
        )
        report.note("open_times", what, count=len(frequency.slots))
    return frequency


def _origins(rows: Rows, frequency: Frequency, *, binned: bool) -> np.ndarray:
    """One time on the grid for each series: its first, or, if some rows lie off the grid, one that most agree with."""
    starts = np.flatnonzero(np.append([True], np.diff(rows.series) != 0))
    origins = np.zeros(int(rows.series.max()) + 1, dtype=np.int64)
    origins[rows.series[starts]] = rows.times[starts]
    index = frequency.unit == "index"
    if binned:
        return _floored(origins, frequency)
    times, own = _as_times(rows.times, index), _as_times(origins, index)[rows.series]
    off = frequency.after(own, frequency.count(times, own)) != times
    for series in np.unique(rows.series[off]):
        inside = rows.series == series
        origins[series] = _best_origin(rows.times[inside], frequency)
    return origins


def _best_origin(times: np.ndarray, frequency: Frequency) -> int:
    index = frequency.unit == "index"
    values = _as_times(times, index)
    candidates = [*times[:: max(1, len(times) // 24)].tolist(), int(_floored(times[:1], frequency)[0])]

    def agreeing(candidate: int) -> int:
        origin = _as_times(np.array([candidate]), index)
        return int((frequency.after(origin, frequency.count(values, origin)) == values).sum())

    hits = [agreeing(candidate) for candidate in candidates]
    return candidates[int(np.argmax(hits))] if max(hits) > 0.5 * len(times) else candidates[-1]


def _floored(times: np.ndarray, frequency: Frequency) -> np.ndarray:
    return frequency.floor(_as_times(times, frequency.unit == "index")).astype(np.int64)


def _snapped(
    rows: Rows,
    counts: np.ndarray,
    snapped: np.ndarray,
    names: list[str],
    table: Table,
    options: ReadOptions,
    report: IngestReport,
    *,
    index: bool,
) -> tuple[Rows, np.ndarray]:
    """Rows with their times on the grid; several in one step are averaged if the user named the step, else refused."""
    times = _as_times(rows.times, index)
    moved = np.flatnonzero(times != snapped)
    if not len(moved):
        return rows, counts
    on_grid = Rows(rows.series, counts, rows.values, rows.lines)
    if options.frequency is not None:
        before = len(rows.times)
        settled = _averaged(on_grid)
        what = f"rows were averaged over steps of {options.frequency}"
        report.repair("resampled", what, count=before, examples=[(f"{before:,} rows", f"{len(settled.times):,} steps")])
    else:
        what = "times that lie beside the grid were moved to its nearest step"
        examples = [(str(times[row])[:23], str(snapped[row])[:23]) for row in moved[:5]]
        report.repair("off_grid", what, count=len(moved), lines=rows.lines[moved[:5]].tolist(), examples=examples)
        settled = _without_duplicates(on_grid, names, table, options, report, index=True)
    return settled, settled.times


def _averaged(rows: Rows) -> Rows:
    starts = np.flatnonzero(np.append([True], (np.diff(rows.series) != 0) | (np.diff(rows.times) != 0)))
    values = _settled(rows, starts, "mean", rows.values[starts], np.ones(len(starts), dtype=bool))
    return Rows(rows.series[starts], rows.times[starts], values, rows.lines[starts])


def _filled(
    rows: Rows, counts: np.ndarray, origins: np.ndarray, frequency: Frequency, table: Table, report: IngestReport
) -> Grid:
    """The whole grid from each series' first row to its last."""
    starts = np.flatnonzero(np.append([True], np.diff(rows.series) != 0))
    ends = np.append(starts[1:], len(counts)) - 1
    lengths = counts[ends] - counts[starts] + 1
    total = int(lengths.sum())
    uncounted = bool((lengths < 1).any())  # over 292 years, nanoseconds do not fit an int64
    if uncounted or total > SPARSEST * len(counts) + 1000:
        longer = _LONGER.get(frequency.unit)
        raise UserError(
            f"a grid with step {frequency.alias} has {'too many' if uncounted else f'{total:,}'} steps for "
            f"{len(counts):,} rows",
            path=table.path,
            line=int(rows.lines[0]),
            fix="check the first and last times"
            + ("" if longer is None else f"; or name a longer step to average over, such as --freq {longer}"),
        )
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    place = np.repeat(first - counts[starts], np.diff(np.append(starts, len(counts)))) + counts
    values = np.full((total, rows.values.shape[1]), np.nan)
    values[place] = rows.values
    series = np.repeat(rows.series[starts], lengths)
    steps = np.arange(total) - np.repeat(first - counts[starts], lengths)
    times = frequency.after(origins[series], steps)
    missing = np.ones(total, dtype=bool)
    missing[place] = False
    if missing.any():
        after = np.flatnonzero(np.diff(place) > 1) + 1
        gap = np.flatnonzero(missing)
        what = "steps that the file leaves out were added as missing values"
        examples = [("no row", str(time)[:19]) for time in times[gap[:5]]]
        report.repair("gaps", what, count=len(gap), lines=rows.lines[after[:5]].tolist(), examples=examples)
    return Grid(series, times, values, frequency)
