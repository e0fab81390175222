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
    skipped.

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
    areas = _areas(genome, regions, records)
    starts = [_starts(begin, end, window, stride) for _, begin, end in areas]
    sizes = np.array([len(s) for s in starts], dtype=np.int64)
    record = np.repeat(np.array([a[0] for a in areas], dtype=np.int32), sizes)
    start = np.concatenate([*starts, np.zeros(0, dtype=np.int64)])
    limit = np.repeat(np.array([a[2] for a in areas], dtype=np.int64), sizes)
    end = np.minimum(start + window, limit)

    unknown = genome.unknown_counts(record, start, end)
    length = end - start
    known = (unknown <= max_n_fraction * length) & (unknown < length)
    whole = (length == window) | (last == "pad")
    kept = known & whole
    counts = {
        "windows": int(kept.sum()),
        "skipped_unknown": int((~known).sum()),
        "dropped_short": int((known & ~whole).sum()),
        "bases": int(length[kept].sum()),
        "unknown_bases": int(unknown[kept].sum()),
    }
    return WindowTable(record[kept], start[kept], end[kept], window, counts)


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


def _starts(begin: int, end: int, window: int, stride: int) -> np.ndarray:
    """Every whole window's start, and one more where bases are left over."""
    whole = max(0, (end - begin - window) // stride + 1) if end - begin >= window else 0
    starts = begin + stride * np.arange(whole + 1, dtype=np.int64)
    covered = int(starts[whole - 1]) + window if whole else begin
    return starts if covered < end and starts[-1] < end else starts[:whole]
