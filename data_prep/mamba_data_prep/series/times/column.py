"""Which column holds the times, by name, then by content; and what becomes of cells that are no times."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.arrow import pc
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.table import Table
from mamba_data_prep.series.times.detect import Detected, detect_times
from mamba_data_prep.series.times.format import MONTH_NAMES, ParsedTimes, TimeFormat
from mamba_data_prep.series.words import STRONG_TIMES, plain, time_rank

BY_NAME, BY_CONTENT = 0.5, 0.98
"""Share of a column's cells that must be times, where its name says so and where only its content does."""

FOOTER = 20
"""Lines at the end that may be totals and sources in place of data."""

_COUNTERS = frozenset(("ds", "time", "timestamp", "ts", "t", "step", "period", "date", "epoch"))
_PERIODS = {"quarter": "Q", "qtr": "Q", "week": "W"}
_INTERVAL = (
    r"^(?P<start>.*?\d:\d\d\S*?(?: [^-\d]*?)?|.*?\d[-./]\d\S*?)"
    r"(?: +(?:-|\x{2013}|\x{2014}|to|until|bis) +.*\d[-./:]\d.*|/\d{4}-\d\d.*)$"
)
_DAY = 86_400_000_000_000
_CLOCK = r"^\d{1,2}[:.h]\d{2}([:.]\d{2})?( ?[AaPp][Mm])?$"


@dataclass(frozen=True)
class TimeColumn:
    """The times of a table.

    Attributes:
        names: the columns that hold them; () where rows are only counted.
        format: how they are written.
        times: the values, all of them read.
    """

    names: tuple[str, ...]
    format: TimeFormat
    times: ParsedTimes


def find_times(table: Table, options: ReadOptions, report: IngestReport) -> tuple[Table, TimeColumn]:
    """Finds and reads the times, leaving out lines at the end that hold none.

    Raises:
        UserError: a time cannot be read, or can be read in two ways.
    """
    names, detected = _chosen(table, options)
    if detected is None:
        table = _without_last_words(table, report)
        return table, _counted(len(table))
    cells = _joined(table, names)
    _tell_intervals(table, names, cells, report)
    _refuse_two_orders(table, names, cells, detected)
    times = _with_other_formats(table, names, cells, detected, options, report)
    table, times, cells = _without_footer(table, times, cells, report)
    if not times.ok.all():
        raise _no_time(table, names, cells, times)
    _tell(table, names, cells, detected.format, report)
    _note_spreadsheet_days(names, detected.format, times, report)
    return table, TimeColumn(names, detected.format, times)


def _counted(rows: int) -> TimeColumn:
    counts = np.arange(rows, dtype=np.int64)
    return TimeColumn((), TimeFormat("%i"), ParsedTimes(counts, np.ones(rows, dtype=bool), None))


def _chosen(table: Table, options: ReadOptions) -> tuple[tuple[str, ...], Detected | None]:
    if options.time:
        return options.time, _as_told(table, options)
    taken = {*options.id, *options.target, *options.ignore, *options.past_covariates, *options.future_covariates}
    names = [name for name in table.columns if name not in taken]
    ranked = sorted((rank, i, name) for i, name in enumerate(names) if (rank := time_rank(name)) is not None)
    if options.time_format:
        return _in_format(table, options.time_format, [*(name for _, _, name in ranked), *names])
    for _, _, name in ranked:
        if plain(name) in ("year", "yr", "month", "day") and (parts := _calendar_parts(names)):
            detected = detect_times(_joined(table, parts), dayfirst=options.dayfirst)
            if detected and detected.share >= BY_CONTENT:
                return parts, detected
        detected = detect_times(_starts(table.text(name)), dayfirst=options.dayfirst, integers=True)
        detected = _in_quarters(detected, _starts(table.text(name)), name)
        if detected and detected.share >= BY_NAME and _fits_name(detected, name):
            return _with_clock(table, name, names, detected, options)
    for name in names:
        detected = detect_times(_starts(table.text(name)), dayfirst=options.dayfirst, integers=name == names[0])
        if detected and detected.share >= BY_CONTENT and _fits_content(detected):
            return _with_clock(table, name, names, detected, options)
    _refuse_unread(table, [name for _, _, name in ranked])
    return (), None


def _refuse_unread(table: Table, names: list[str]) -> None:
    """Rows are only counted where no column claims to hold their times."""
    for name in names:
        cells = table.text(name)
        certain = (time_rank(name) or 0) <= len(STRONG_TIMES)
        expression = r"\p{L}|\d[-:/]\d" if certain else r"\p{L}{3}|\d[-:/]\d"
        words = pc.match_substring_regex(cells, expression).to_numpy(zero_copy_only=False)
        if words.mean() >= BY_NAME:
            row = int(np.flatnonzero(words)[0])
            raise UserError(
                f"column {name!r} is named like times, but its cells cannot be read as such",
                path=table.path,
                line=int(table.lines[row]),
                found=cells[row].as_py(),
                accepted="dates like 2020-01-31, 31.1.2020, 1949-01, Jan 2020, 1956 Q1, 1991-W06",
                fix=f"write them so; or name another column (--time); or count the rows (--read ignore={name!r})",
            )


def _as_told(table: Table, options: ReadOptions) -> Detected:
    absent = [name for name in options.time if name not in table.columns]
    if absent:
        accepted = ", ".join(table.columns)
        raise UserError("there is no column of this name", path=table.path, line=1, found=absent[0], accepted=accepted)
    cells = _joined(table, options.time)
    if options.time_format:
        format = TimeFormat(options.time_format)
        times = format.parse(cells)
        return Detected(format, times, float(times.ok.mean()))
    detected = _in_quarters(
        detect_times(cells, dayfirst=options.dayfirst, integers=True), cells, " ".join(options.time)
    )
    if detected is None:
        raise UserError(
            f"column {' + '.join(options.time)!r} holds no times",
            path=table.path,
            line=int(table.lines[0]),
            found=cells[0].as_py(),
            accepted="dates like 2020-01-31, 31.1.2020, 1949-01, 1956 Q1, 1991-W06, seconds since 1970, integers",
            fix="name another column with --time, or give time_format in a rules file",
        )
    return detected


def _fits_name(detected: Detected, name: str) -> bool:
    values = detected.times.values[detected.times.ok]
    if detected.format.is_index:
        return plain(name) in _COUNTERS and bool(values.min() != values.max())
    return True


def _fits_content(detected: Detected) -> bool:
    """Digits alone are times only where they march in even steps, as no measurement does."""
    pattern = detected.format.pattern
    if detected.format.is_index or pattern == "%Y":
        return False
    if any(mark in pattern for mark in "-/: .QqWMbT"):
        return True
    return _even(np.diff(np.unique(detected.times.values)))


def _even(gaps: np.ndarray) -> bool:
    if len(gaps) < 3:
        return False
    _, counts = np.unique(gaps, return_counts=True)
    return bool(counts.max() >= 0.9 * len(gaps) or gaps.max() <= 1.12 * gaps.min())


def _joined(table: Table, names: tuple[str, ...]) -> pa.Array:
    if len(names) == 1:
        return _starts(table.text(names[0]))
    texts = [table.text(name) for name in names]
    if plain(names[0]) in ("year", "yr"):
        if (letter := _PERIODS.get(plain(names[1]))) is not None:
            return pc.binary_join_element_wise(texts[0], pc.utf8_ltrim(texts[1], f"{letter}{letter.lower()} "), letter)
        date = pc.binary_join_element_wise(*texts[:3], "-")
        return (
            date
            if len(texts) < 4
            else pc.binary_join_element_wise(date, pc.binary_join_element_wise(texts[3], "00", ":"), " ")
        )
    clock = texts[1]
    if not pc.any(pc.match_substring_regex(clock, r"[:.h]")).as_py():
        clock = pc.binary_join_element_wise(clock, "00", ":")
    return pc.binary_join_element_wise(texts[0], clock, " ")


def _starts(cells: pa.Array) -> pa.Array:
    """The beginnings of intervals such as "1.1.2021 00:00 - 1.1.2021 01:00"; other cells as they are."""
    found = pc.extract_regex(cells, _INTERVAL)
    is_interval = pc.is_valid(found)
    filled = pc.sum(pc.not_equal(cells, "")).as_py() or 0
    if not filled or (pc.sum(is_interval).as_py() or 0) < BY_CONTENT * filled:
        return cells
    start = pc.utf8_trim_whitespace(pc.struct_field(found, "start"))
    return pc.if_else(is_interval, start, cells)


def _tell_intervals(table: Table, names: tuple[str, ...], cells: pa.Array, report: IngestReport) -> None:
    written = table.text(names[0])
    if len(names) == 1 and not cells.equals(written):
        report.repair(
            "time_intervals",
            "intervals of time were read as their beginnings",
            count=len(table),
            lines=table.lines[:5].tolist(),
            examples=[(written[row].as_py(), cells[row].as_py()) for row in range(min(2, len(table)))],
            column=names[0],
        )


def _in_format(table: Table, pattern: str, names: list[str]) -> tuple[tuple[str, ...], Detected]:
    """The first column, of those named like times first, that is written in a format that was told."""
    format = TimeFormat(pattern)
    for name in names:
        cells = _starts(table.text(name))
        times = format.parse(cells)
        filled = pc.sum(pc.not_equal(cells, "")).as_py() or 0
        if filled and times.ok.sum() >= BY_NAME * filled:
            return (name,), Detected(format, times, float(times.ok.sum() / filled))
    raise UserError(
        "no column holds times in this format",
        path=table.path,
        line=int(table.lines[0]),
        found=pattern,
        accepted="the directives of strftime, and %q for a quarter, %G-W%V for a week, %s for seconds since 1970",
        fix="correct time_format, or name the column with --time",
    )


def _in_quarters(detected: Detected | None, cells: pa.Array, name: str) -> Detected | None:
    """Months of which only 1 to 4 occur, in a column named like quarters, as the quarters they are."""
    if detected is None or not {"quarter", "quarters", "qtr", "quartal", "trimestre"} & set(plain(name).split()):
        return detected
    format = TimeFormat(re.sub("%-?m", "%q", detected.format.pattern))
    if "d" in detected.format.directives or format.pattern == detected.format.pattern:
        return detected
    times = format.parse(cells)
    return detected if times.ok.sum() < detected.times.ok.sum() else Detected(format, times, detected.share)


def _without_last_words(table: Table, report: IngestReport) -> Table:
    """Leave out last lines that begin with words where the lines before begin with numbers: totals and remarks."""
    name = next(iter(table.columns))
    words = pc.match_substring_regex(table.text(name), r"\p{L}").to_numpy(zero_copy_only=False)
    end = len(table) - int(np.argmin(np.append(words[::-1], False)))
    tail = len(table) - end
    if not 0 < tail <= FOOTER or end < 2 or words[:end].any() or len(table.columns) < 2:
        return table
    texts = [" | ".join(str(c[row].as_py() or "") for c in table.columns.values()) for row in range(end, len(table))]
    what = "lines at the end that begin with words (totals, sources, remarks) were left out"
    examples = [(text.rstrip(" |"), "") for text in texts]
    report.repair("footer_lines", what, count=tail, lines=table.lines[end:].tolist(), examples=examples)
    return table.keep(np.arange(len(table)) < end)


def _calendar_parts(names: list[str]) -> tuple[str, ...]:
    """The columns year, month and, where they are, day and hour; or year and quarter, or year and week."""
    by_word = {plain(name): name for name in reversed(names)}
    parts = [by_word.get("year", by_word.get("yr")), by_word.get("month"), by_word.get("day"), by_word.get("hour")]
    if parts[0] is None:
        return ()
    if parts[1] is None:
        within = next((by_word[word] for word in _PERIODS if word in by_word), None)
        return () if within is None else (parts[0], within)
    kept = parts[: parts.index(None)] if None in parts else parts
    return tuple(name for name in kept if name is not None)


def _with_clock(
    table: Table, name: str, names: list[str], detected: Detected, options: ReadOptions
) -> tuple[tuple[str, ...], Detected]:
    """A date column together with the column of the time of day, where dates alone repeat."""
    single = (name,), detected
    if detected.format.has_hours or detected.format.is_index or "d" not in detected.format.directives:
        return single
    if len(np.unique(detected.times.values)) > 0.9 * len(table):
        return single
    for other in names:
        words = set(plain(other).split())
        if other == name or not words & {"time", "hour", "hr", "hh", "uhrzeit", "zeit", "hora", "heure", "tid", "tijd"}:
            continue
        cells = table.text(other)
        clock = pc.mean(pc.cast(pc.match_substring_regex(cells, _CLOCK), pa.float64())).as_py()
        hours = pc.mean(pc.cast(pc.match_substring_regex(cells, r"^([01]?\d|2[0-4])$"), pa.float64())).as_py()
        if max(clock, hours) < BY_CONTENT:
            continue
        joined = detect_times(_joined(table, (name, other)), dayfirst=options.dayfirst)
        if joined and joined.share >= BY_CONTENT and (clock >= BY_CONTENT or "hour" in words or words == {"time"}):
            return (name, other), joined
    return _finer(table, name, names, detected, options) or single


def _finer(
    table: Table, name: str, names: list[str], detected: Detected, options: ReadOptions
) -> tuple[tuple[str, ...], Detected] | None:
    """Another column, whatever its name, with even times of day on the very days that this one repeats."""
    for other in (one for one in names if one != name):
        finer = detect_times(_starts(table.text(other)), dayfirst=options.dayfirst)
        if finer is None or finer.share < BY_CONTENT or not finer.format.has_hours or finer.times.offset is not None:
            continue
        same = finer.times.values // _DAY == detected.times.values // _DAY
        if same.mean() >= BY_CONTENT and _even(np.diff(np.unique(finer.times.values))):
            return (other,), finer
    return None


def _refuse_two_orders(table: Table, names: tuple[str, ...], cells: pa.Array, detected: Detected) -> None:
    if detected.other_order is None:
        return
    row = int(np.flatnonzero(detected.times.values != detected.other_order.parse(cells).values)[0])
    raise UserError(
        f"dates in column {' + '.join(names)!r} can be day/month or month/day, and no row settles it",
        path=table.path,
        line=int(table.lines[row]),
        found=cells[row].as_py(),
        accepted="dates whose order is certain, such as 2020-01-31 or 31/1/2020",
        fix="say which: --dayfirst or --monthfirst",
    )


def _with_other_formats(
    table: Table,
    names: tuple[str, ...],
    cells: pa.Array,
    detected: Detected,
    options: ReadOptions,
    report: IngestReport,
) -> ParsedTimes:
    """Read the cells that the main format does not, where another one reads them without doubt."""
    times = detected.times
    rest = np.flatnonzero(~times.ok & pc.not_equal(cells, "").to_numpy(zero_copy_only=False))
    if not len(rest) or times.ok.mean() < BY_NAME:
        return times
    other = detect_times(cells.take(pa.array(rest)), dayfirst=options.dayfirst)
    if other is None:
        return times
    first = rest[other.times.ok][0] if other.times.ok.any() else rest[0]
    if other.other_order is not None or (
        _day_order(other.format) != _day_order(detected.format)
        and "d" in (_day_order(other.format) + _day_order(detected.format))
    ):
        if _day_order(detected.format) and _day_order(other.format):
            raise _two_orders_in_one(table, names, cells, int(first))
        if other.other_order is not None:
            return times
    if (times.offset is None) != (other.times.offset is None):
        return times
    rows = rest[other.times.ok]
    values, ok = times.values.copy(), times.ok.copy()
    offset = None if times.offset is None else times.offset.copy()
    values[rows], ok[rows] = other.times.values[other.times.ok], True
    if offset is not None and other.times.offset is not None:
        offset[rows] = other.times.offset[other.times.ok]
    examples = [(cells[int(row)].as_py(), str(np.datetime64(int(values[row]), "ns"))[:19]) for row in rows[:5]]
    report.repair(
        "mixed_time_formats",
        f"most times are written like {detected.format.pattern}, these like {other.format.pattern}",
        count=len(rows),
        lines=table.lines[rows[:5]].tolist(),
        examples=examples,
        column=" + ".join(names),
    )
    return ParsedTimes(values, ok, offset)


def _day_order(format: TimeFormat) -> str:
    order = "".join(d for d in format.directives if d in "dm")
    return order if format.directives[:1] in (("d",), ("m",)) else ""


def _two_orders_in_one(table: Table, names: tuple[str, ...], cells: pa.Array, row: int) -> UserError:
    return UserError(
        f"column {' + '.join(names)!r} mixes day/month and month/day",
        path=table.path,
        line=int(table.lines[row]),
        found=cells[row].as_py(),
        fix="write all dates as 2020-01-31: in a mixed column the rest cannot be trusted either",
    )


def _without_footer(
    table: Table, times: ParsedTimes, cells: pa.Array, report: IngestReport
) -> tuple[Table, ParsedTimes, pa.Array]:
    good = np.flatnonzero(times.ok)
    end = int(good[-1]) + 1 if len(good) else 0
    tail = len(table) - end
    if tail == 0 or tail > FOOTER or end < 2:
        return table, times, cells
    texts = [
        " | ".join(str(column[row].as_py() or "") for column in table.columns.values())
        for row in range(end, len(table))
    ]
    what = "lines at the end that begin with no time (totals, sources, remarks) were left out"
    report.repair(
        "footer_lines",
        what,
        count=tail,
        lines=table.lines[end:].tolist(),
        examples=[(t.rstrip(" |"), "") for t in texts],
    )
    offset = None if times.offset is None else times.offset[:end]
    kept = ParsedTimes(times.values[:end], times.ok[:end], offset)
    return table.keep(np.arange(len(table)) < end), kept, cells[:end]


def _no_time(table: Table, names: tuple[str, ...], cells: pa.Array, times: ParsedTimes) -> UserError:
    bad = np.flatnonzero(~times.ok)
    row = int(bad[0])
    cell = cells[row].as_py()
    examples = cells[int(np.flatnonzero(times.ok)[0])].as_py() if times.ok.any() else "2020-01-31"
    more = f" ({len(bad):,} rows like it)" if len(bad) > 1 else ""
    return UserError(
        f"there is {'no time' if cell else 'an empty time'} in column {' + '.join(names)!r}{more}",
        path=table.path,
        line=int(table.lines[row]),
        found=cell,
        accepted=f"times like the others here, such as {examples}, in the years 1678 to 2261",
        fix=_mend(cell),
    )


def _mend(cell: str | None) -> str:
    """What to do about a cell that is no time; of a month's name in another language, to translate it."""
    word = re.search(r"[^\W\d_]{3,}", cell or "")
    if word is None or not re.search(r"\d", cell or "") or re.fullmatch(MONTH_NAMES, word[0].lower()):
        return "correct or delete that line"
    return f"correct or delete that line; months are read by their English names, so if {word[0]} is one, translate it"


def _tell(table: Table, names: tuple[str, ...], cells: pa.Array, format: TimeFormat, report: IngestReport) -> None:
    report.detected |= {"time column": " + ".join(names), "time format": format.pattern}
    if "y" in format.directives:
        report.note("two_digit_years", "years 69 to 99 were read as 1969 to 1999, 00 to 68 as 2000 to 2068")
    late = pc.match_substring_regex(cells, r"[T ]24:").to_numpy(zero_copy_only=False)
    if late.any():
        rows = np.flatnonzero(late)
        what = "24:00 was read as 0:00 of the next day"
        report.repair(
            "hour_24",
            what,
            count=len(rows),
            lines=table.lines[rows[:5]].tolist(),
            examples=[(cells[int(rows[0])].as_py(), "next day 00:00")],
        )


def _note_spreadsheet_days(
    names: tuple[str, ...], format: TimeFormat, times: ParsedTimes, report: IngestReport
) -> None:
    values = times.values
    if format.is_index and "date" in plain(names[0]).split() and values.min() > 20_000 and values.max() < 80_000:
        what = "the dates are whole numbers, and were only counted: spreadsheets count days so; export them as dates"
        report.note("spreadsheet_days", what, column=names[0])


def pinned(options: ReadOptions, column: TimeColumn) -> ReadOptions:
    """Gives the options with the times' columns and format written down."""
    if not column.names:
        return options
    order = _day_order(column.format)
    return replace(options, time=column.names, dayfirst=options.dayfirst if not order else order == "dm")
