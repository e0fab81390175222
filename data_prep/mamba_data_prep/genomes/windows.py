"""Windows: equal pieces of a genome, as tables of coordinates (0-based half-open)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import xxhash

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval, records_of

_AT_A_TIME = 1 << 15
"""Windows that are made at a time, so that what is computed of them takes no memory that grows with the genome."""


@dataclass(frozen=True, eq=False)
class WindowTable:
    """Windows of a genome, in the order in which they were made.

    Attributes:
        record: number of each window's record, int32 (n,).
        start: first base, 0-based, int64 (n,).
        end: one beyond the last base, int64 (n,); `end - start` is less than `window` where the record or region ended.
        window: base pairs of a whole window.
        counts: of a table made by `tile`: windows kept, skipped for unknown bases, dropped for being short; bases,
            unknown bases.
    """

    record: np.ndarray
    start: np.ndarray
    end: np.ndarray
    window: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.record) == len(self.start) == len(self.end):
            raise ValueError(f"columns differ in length: {len(self.record)}, {len(self.start)}, {len(self.end)}")
        widest = int((self.end - self.start).max(initial=0))
        if not self.window:
            object.__setattr__(self, "window", widest)
        if widest > self.window:
            raise ValueError(f"a window of {widest:,} bases in a table of windows of {self.window:,}")

    def __len__(self) -> int:
        return len(self.record)

    @property
    def bases(self) -> int:
        """Base pairs in all windows together; those in two windows count twice."""
        return int((self.end - self.start).sum())

    def select(self, which: np.ndarray) -> WindowTable:
        """Gives the windows that a boolean mask or an array of indices names, in that order."""
        return replace(self, record=self.record[which], start=self.start[which], end=self.end[which], counts={})

    def digest(self) -> str:
        """Gives a hash of the coordinates: equal for equal tables, on every machine."""
        hasher = xxhash.xxh3_128(str(self.window).encode())
        for column, kind in ((self.record, "<i4"), (self.start, "<i8"), (self.end, "<i8")):
            hasher.update(np.ascontiguousarray(column, dtype=kind).tobytes())
        return hasher.hexdigest()


def joined_tables(*tables: WindowTable) -> WindowTable:
    """Gives the windows of several tables one after another; the table's window is the longest one's."""
    record, start, end = (np.concatenate([getattr(t, name) for t in tables]) for name in ("record", "start", "end"))
    return WindowTable(record, start, end, max(table.window for table in tables))


def cut(genome: Genome, table: WindowTable, window: int, *, max_n_fraction: float = 0.5) -> WindowTable:
    """Cuts each window of a table into shorter ones, from its first base on; a short rest is a window too.

    Args:
        genome: the table's.
        table: windows that do not overlap.
        window: base pairs of a shorter window.
        max_n_fraction: windows with a larger fraction of unknown bases are skipped.
    """
    names = [record.name for record in genome.records]
    rows = zip(table.record.tolist(), table.start.tolist(), table.end.tolist(), strict=True)
    regions = [Interval(names[record], start, end) for record, start, end in rows]
    return tile(genome, window, regions=regions, max_n_fraction=max_n_fraction)


def tile(
    genome: Genome,
    window: int,
    stride: int | None = None,
    *,
    regions: Iterable[Interval] | None = None,
    records: Iterable[str | int] | None = None,
    max_n_fraction: float = 0.5,
    last: Literal["pad", "drop"] = "pad",
) -> WindowTable:
    """Cuts records or regions into windows, from each one's first base on.

    Windows start at multiples of `stride`. A last window that would reach beyond the record's or region's end is kept
    short (its item is padded to `window`) or dropped; it is never shifted. Windows without any A, C, G or T are always
    skipped. The table takes 20 bytes a window, and making it a few megabytes more.

    Args:
        genome: what to cut.
        window: base pairs of a window.
        stride: base pairs from one window's start to the next's; `window` by default, so that windows do not overlap.
        regions: only these intervals, each cut from its own start.
        records: only these records, by name or number.
        max_n_fraction: windows with a larger fraction of unknown bases (not A, C, G, T) are skipped.
        last: what becomes of a short last window.

    Raises:
        UserError: window or stride is less than 1, or a region or record does not exist.
    """
    stride = window if stride is None else stride
    if window < 1 or stride < 1:
        raise UserError("window and stride must be at least 1 base", found=f"window {window}, stride {stride}")
    if not 0 <= max_n_fraction <= 1:
        raise UserError("max_n_fraction must lie between 0 and 1", found=max_n_fraction)
    areas = np.array(_areas(genome, regions, records), dtype=np.int64).reshape(-1, 3)
    number, begin, limit = areas.T
    sizes = _windows_in(begin, limit, window, stride)
    before = np.concatenate(([0], np.cumsum(sizes)))
    record = np.empty(int(before[-1]), dtype=np.int32)  # untouched memory costs nothing, so too many rows do no harm
    start, end = np.empty(len(record), dtype=np.int64), np.empty(len(record), dtype=np.int64)
    counts = {"windows": 0, "skipped_unknown": 0, "dropped_short": 0, "bases": 0, "unknown_bases": 0}
    for first in range(0, len(record), _AT_A_TIME):
        place = np.arange(first, min(first + _AT_A_TIME, len(record)))
        area = np.searchsorted(before, place, side="right") - 1
        starts = begin[area] + stride * (place - before[area])
        ends = np.minimum(starts + window, limit[area])
        unknown = genome.unknown_counts(number[area], starts, ends)
        length = ends - starts
        known = (unknown <= max_n_fraction * length) & (unknown < length)
        whole = (length == window) | (last == "pad")
        kept = known & whole
        rows = slice(counts["windows"], counts["windows"] + int(kept.sum()))
        record[rows], start[rows], end[rows] = number[area][kept], starts[kept], ends[kept]
        counts["windows"] = rows.stop
        counts["skipped_unknown"] += int((~known).sum())
        counts["dropped_short"] += int((known & ~whole).sum())
        counts["bases"] += int(length[kept].sum())
        counts["unknown_bases"] += int(unknown[kept].sum())
    rows = slice(counts["windows"])
    return WindowTable(record[rows], start[rows], end[rows], window, counts)


def _areas(
    genome: Genome, regions: Iterable[Interval] | None, records: Iterable[str | int] | None
) -> list[tuple[int, int, int]]:
    wanted = None
    if records is not None:
        wanted = [genome.number_of(r) if isinstance(r, int) else records_of(genome, [r])[0] for r in records]
    if regions is None:
        numbers = range(len(genome)) if wanted is None else wanted
        return [(number, 0, genome.records[number].length) for number in numbers]
    regions = list(regions)
    numbers = records_of(genome, regions)
    for number, region in zip(numbers, regions, strict=True):
        region.check_within(genome.records[number].length)
    pairs = zip(numbers, regions, strict=True)
    return [(n, r.start, r.end) for n, r in pairs if wanted is None or n in set(wanted)]


def _windows_in(begin: np.ndarray, end: np.ndarray, window: int, stride: int) -> np.ndarray:
    """How many windows each area takes, int64 (n,): the whole ones, and one more where bases are left over."""
    whole = np.maximum(0, (end - begin - window) // stride + 1)
    following = begin + stride * whole
    covered = np.where(whole > 0, following - stride + window, begin)
    return whole + ((covered < end) & (following < end))
