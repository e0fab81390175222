"""Training, validation and test windows that share no base.

Blocks are the default: a genome is cut into blocks of many windows, blocks are dealt to the splits, and windows within
a gap of another split's are left out. A record shorter than one block is a block of its own, so one rule serves a
chromosome, a bacterium and a million contigs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.anchored import anchored
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval, read_bed, records_of, within
from mamba_data_prep.genomes.windows import WindowTable, joined_tables, tile
from mamba_data_prep.sampler import hashes

NAMES = ("train", "valid", "test")
_LABELS = {"train": 0, "training": 0, "valid": 1, "val": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2}
_RECORD_SHIFT = 40
"""Positions of all records on one axis: the record's number above this bit, the position below it."""
_DEALS = 64
"""Deals tried, in a fixed order, until every split gets a window; only genomes of a few windows need more than one."""


@dataclass(frozen=True, eq=False)
class Split:
    """Three tables of windows that share no base, and how they came about (plain values, for JSON).

    Evaluation windows do not overlap and stand in the genome's order, so they are the same in every run.
    """

    train: WindowTable
    valid: WindowTable
    test: WindowTable
    description: dict[str, Any]

    def tables(self) -> dict[str, WindowTable]:
        """Gives the three tables by name."""
        return {name: getattr(self, name) for name in NAMES}


def default_split(genome: Genome, window: int, seed: int = 0) -> Split:
    """90 % of the genome for training, 5 % for validation, 5 % for testing, by blocks.

    Raises:
        UserError: the genome has too few windows.
    """
    return split_by_block(genome, window, seed=seed)


def split_by_block(
    genome: Genome,
    window: int,
    fractions: tuple[float, float, float] = (0.9, 0.05, 0.05),
    *,
    block: int | None = None,
    gap: int | None = None,
    seed: int = 0,
    stride: int | None = None,
    regions: Sequence[Interval] | None = None,
    max_n_fraction: float = 0.5,
) -> Split:
    """Deals blocks of the genome to the splits.

    Args:
        genome: what to split.
        window: base pairs of a window.
        fractions: of the windows, for training, validation and test; they add up to 1.
        block: base pairs of a block, rounded up to whole windows; by default about 4 sqrt(windows) blocks in all.
        gap: base pairs between windows of different splits; at least and by default one window.
        seed: which blocks go where.
        stride: of training windows, `window` by default; evaluation windows never overlap.
        regions: only these intervals; those that overlap are joined.
        max_n_fraction: windows with more unknown bases are skipped.

    Raises:
        UserError: the genome has too few windows, or a number is out of range.
    """
    gap = window if gap is None else gap
    _check_numbers(fractions, gap, window)
    regions = None if regions is None else _joined(within(genome, regions))
    table = tile(genome, window, regions=regions, max_n_fraction=max_n_fraction)
    per_block = -(-block // window) if block is not None else max(1, round(len(table) ** 0.5 / 4))
    size = per_block * window
    _, block_of = np.unique(_axis(table.record, table.start // size), return_inverse=True)
    train = (
        table
        if stride in (None, window)
        else tile(genome, window, stride, regions=regions, max_n_fraction=max_n_fraction)
    )
    about = {"method": "block", "block": size, "seed": seed, "fractions": list(fractions)}
    return _deal(genome, table, train, block_of, fractions, gap, about)


def split_by_record(
    genome: Genome,
    window: int,
    *,
    valid: Iterable[str] = (),
    test: Iterable[str] = (),
    fractions: tuple[float, float, float] = (0.9, 0.05, 0.05),
    seed: int = 0,
    stride: int | None = None,
    max_n_fraction: float = 0.5,
) -> Split:
    """Gives whole records to each split: those named, or by fractions where none is named; the others train.

    Raises:
        UserError: a record does not exist or is named twice, or a split would be empty.
    """
    named = [records_of(genome, list(valid)), records_of(genome, list(test))]
    table = tile(genome, window, max_n_fraction=max_n_fraction)
    train = table if stride in (None, window) else tile(genome, window, stride, max_n_fraction=max_n_fraction)
    about = {"method": "record", "seed": seed, "fractions": list(fractions)}
    if not any(named):
        _check_numbers(fractions, window, window)
        _, block_of = np.unique(table.record, return_inverse=True)
        return _deal(genome, table, train, block_of, fractions, window, about)
    both = sorted(set(named[0]) & set(named[1]))
    if both:
        raise UserError("this record is named for validation and for testing", record=genome.records[both[0]].name)
    parts = [train.select(~np.isin(train.record, named[0] + named[1]))]
    parts += [table.select(np.isin(table.record, numbers)) for numbers in named]
    names = {split: [genome.records[n].name for n in numbers] for split, numbers in zip(NAMES[1:], named, strict=True)}
    return _finished(genome, parts, [True, bool(named[0]), bool(named[1])], {"method": "record", **names}, window, 0)


def split_by_bed(
    genome: Genome,
    bed: str | Path | Sequence[Interval],
    window: int,
    *,
    stride: int | None = None,
    max_n_fraction: float = 0.5,
    beyond: bool = False,
) -> Split:
    """Gives the splits that a BED file's fourth column names: train, valid or test.

    Overlapping intervals of one split are joined. How far the splits lie apart is the file's affair.

    With `beyond`, training intervals shorter than a window have two windows each, which reach over neighbouring bases
    of no other split (`mamba_data_prep.genomes.anchored`), and intervals for evaluation that touch are one.

    Args:
        genome: what to split.
        bed: the file, or its intervals.
        window: base pairs of a window.
        stride: of training windows, `window` by default.
        max_n_fraction: windows with more unknown bases are skipped.
        beyond: whether training windows may reach beyond intervals that are shorter.

    Raises:
        UserError: a label is none of these, or intervals of two splits share bases, or a split that is named is empty.
    """
    regions: tuple[list[Interval], ...] = ([], [], [])
    intervals = read_bed(bed, genome) if isinstance(bed, str | Path) else within(genome, bed)
    for interval in intervals:
        number = _LABELS.get((interval.label or "").lower())
        if number is None:
            raise interval.error("the fourth column names no split", interval.label or "", "train, valid or test")
        regions[number].append(interval)
    _refuse_shared(genome, regions)
    strides = (window if stride is None else stride, window, window)
    joined = [_joined(part, touching=beyond and part is not regions[0]) for part in regions]
    parts = [
        tile(genome, window, step, regions=part, max_n_fraction=max_n_fraction)
        for part, step in zip(joined, strides, strict=True)
    ]
    if beyond and any(len(interval) < window for interval in joined[0]):
        long = [interval for interval in joined[0] if len(interval) >= window]
        short = [interval for interval in joined[0] if len(interval) < window]
        parts[0] = joined_tables(
            tile(genome, window, strides[0], regions=long, max_n_fraction=max_n_fraction),
            anchored(genome, short, [*regions[1], *regions[2]], window, max_n_fraction=max_n_fraction),
        )
    about = {
        "method": "bed",
        **({"beyond": True} if beyond else {}),
        "intervals": {name: len(r) for name, r in zip(NAMES, regions, strict=True)},
    }
    return _finished(genome, parts, [bool(r) for r in regions], about, window, 0)


def names_splits(intervals: Sequence[Interval]) -> bool:
    """Tells whether some label is train, valid or test (or another name of these), so that all of them must be."""
    return any((interval.label or "").lower() in _LABELS for interval in intervals)


def near(table: WindowTable, others: Sequence[WindowTable], gap: int = 0) -> np.ndarray:
    """Tells which windows share a base with a window of `others`, or lie less than `gap` bases from one; bool (n,)."""
    pairs = [(_axis(o.record, o.start - gap), _axis(o.record, o.end + gap)) for o in others]
    empty = np.zeros(0, dtype=np.int64)
    starts, ends = merged(
        np.concatenate([empty, *(s for s, _ in pairs)]), np.concatenate([empty, *(e for _, e in pairs)])
    )
    start, end = _axis(table.record, table.start), _axis(table.record, table.end)
    after = np.searchsorted(ends, start, side="right")  # the first area that ends beyond the window's start
    return after < np.searchsorted(starts, end, side="left")


def shared_bases(table: WindowTable, others: Sequence[WindowTable]) -> np.ndarray:
    """How many bases of each window lie in a window of `others`; int64 (n,)."""
    every = joined_tables(*others)
    stretches = np.stack(merged(_axis(every.record, every.start), _axis(every.record, every.end)), axis=1)
    return covered(stretches, _axis(table.record, table.end)) - covered(stretches, _axis(table.record, table.start))


def covered(stretches: np.ndarray, place: np.ndarray) -> np.ndarray:
    """How many bases before each place lie in stretches.

    Args:
        stretches: int64 (m, 2), starts and ends, 0-based half-open, ascending and apart.
        place: int64 (n,).

    Returns:
        int64 (n,).
    """
    if not len(stretches):
        return np.zeros(len(place), np.int64)
    before = np.concatenate([[0], np.cumsum(stretches[:, 1] - stretches[:, 0])])
    number = np.searchsorted(stretches[:, 0], place, side="right")
    last = np.maximum(number - 1, 0)
    inside = np.minimum(place, stretches[last, 1]) - stretches[last, 0]  # below 0 before the first stretch
    return before[last] + np.maximum(inside, 0)


def clusters(table: WindowTable) -> np.ndarray:
    """A number for each window, the same for windows that overlap or touch, directly or through others; int64 (n,)."""
    starts, _ = merged(_axis(table.record, table.start), _axis(table.record, table.end))
    return np.searchsorted(starts, _axis(table.record, table.start), side="right") - 1


def union(table: WindowTable) -> WindowTable:
    """Gives the stretches that the windows cover, in the genome's order: windows that overlap or touch become one."""
    starts, ends = merged(_axis(table.record, table.start), _axis(table.record, table.end))
    record = starts >> _RECORD_SHIFT
    return WindowTable(record.astype(np.int32), starts - _axis(record, 0), ends - _axis(record, 0))


def merged(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives the union of intervals as sorted intervals that neither overlap nor touch; int64 (n,) each."""
    if not len(starts):
        return starts, ends
    place = np.argsort(starts, kind="stable")
    starts, reach = starts[place], np.maximum.accumulate(ends[place])
    begins = np.concatenate(([True], starts[1:] > reach[:-1]))
    return starts[begins], reach[np.concatenate((begins[1:], [True]))]


def _deal(
    genome: Genome,
    table: WindowTable,
    train: WindowTable,
    block_of: np.ndarray,
    fractions: tuple[float, float, float],
    gap: int,
    about: dict[str, Any],
) -> Split:
    """Deals blocks to the splits; `table` are the windows for evaluation, `train` those for training."""
    wanted = [fraction > 0 for fraction in fractions]
    parts: list[WindowTable] = []
    for attempt in range(_DEALS):
        split_of = _dealt(np.bincount(block_of), fractions, about["seed"], attempt)[block_of]
        test = table.select(split_of == 2)
        valid = table.select(split_of == 1)
        valid = valid.select(~near(valid, [test], gap))
        parts = [train.select(~near(train, [table.select(split_of != 0)], gap)), valid, test]
        if all(len(part) for part, needed in zip(parts, wanted, strict=True) if needed):
            break
    return _finished(genome, parts, wanted, about, table.window, gap)


def _dealt(sizes: np.ndarray, fractions: tuple[float, float, float], seed: int, attempt: int) -> np.ndarray:
    """The split of each block: in the order of their hashes, for testing until enough, then for validation."""
    place = np.argsort(hashes(seed, attempt, np.arange(len(sizes), dtype=np.uint64)))
    before = np.cumsum(sizes[place]) - sizes[place]
    total = sizes.sum()
    first_valid = int(np.searchsorted(before, fractions[2] * total, side="left"))
    tested = int(sizes[place[:first_valid]].sum())
    first_train = int(np.searchsorted(before, tested + fractions[1] * total, side="left"))
    splits = np.zeros(len(sizes), dtype=np.int8)
    splits[place[:first_valid]] = 2
    splits[place[first_valid:first_train]] = 1
    return splits


def _finished(
    genome: Genome, parts: Sequence[WindowTable], wanted: Sequence[bool], about: dict[str, Any], window: int, gap: int
) -> Split:
    for name, part, needed in zip(NAMES, parts, wanted, strict=True):
        if needed and not len(part):
            longest = max(record.length for record in genome.records)
            raise UserError(
                f"there are too few windows of {window:,} bases: none is left for {name}",
                path=genome.path,
                found=f"{len(genome):,} records, the longest {longest:,} bases",
                accepted="five windows or more in one record, or three records of one window, without too many N",
                fix=f"use shorter windows, of at most {max(1, longest // 8):,} bases, or a longer genome",
            )
    tables = dict(zip(NAMES, parts, strict=True))
    counts = {name: {"windows": len(part), "bases": part.bases} for name, part in tables.items()}
    digests = {name: part.digest() for name, part in tables.items()}
    description = {**about, "window": window, "gap": gap, "counts": counts, "digests": digests}
    return Split(tables["train"], tables["valid"], tables["test"], description)


def _joined(intervals: Sequence[Interval], *, touching: bool = False) -> list[Interval]:
    """The intervals in order, those that overlap as one; those that only touch stay two unless `touching`."""
    joined: list[Interval] = []
    for interval in sorted(intervals, key=lambda i: (i.name, i.start, i.end)):
        if joined and joined[-1].name == interval.name and interval.start < joined[-1].end + touching:
            joined[-1] = replace(joined[-1], end=max(joined[-1].end, interval.end))
        else:
            joined.append(interval)
    return joined


def _refuse_shared(genome: Genome, regions: tuple[list[Interval], ...]) -> None:
    tables = [_as_table(genome, part) for part in regions]
    for i, part in enumerate(regions):
        shared = near(tables[i], [t for j, t in enumerate(tables) if j > i])
        if shared.any():
            interval = part[int(np.argmax(shared))]
            fix = "cut the intervals apart, with at least one window between them"
            problem = "this interval shares bases with an interval of another split"
            raise interval.error(problem, f"{interval.start}-{interval.end} {interval.label}", "disjoint splits", fix)


def _as_table(genome: Genome, intervals: Sequence[Interval]) -> WindowTable:
    record = np.array([genome.number_of(i.name) for i in intervals], dtype=np.int32)
    start = np.array([i.start for i in intervals], dtype=np.int64)
    return WindowTable(record, start, np.array([i.end for i in intervals], dtype=np.int64))


def _check_numbers(fractions: tuple[float, float, float], gap: int, window: int) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-6:
        accepted = "three numbers that add up to 1, the first above 0"
        raise UserError("these fractions are no split", found=list(fractions), accepted=accepted)
    if gap < window:
        raise UserError("the gap must be at least one window", found=gap, accepted=f"{window} or more")


def _axis(record: np.ndarray, position: np.ndarray | int) -> np.ndarray:
    return (record.astype(np.int64) << _RECORD_SHIFT) + position
