"""Windows longer than the intervals of a split: two for each, one from its first base on, one up to its last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval
from mamba_data_prep.genomes.windows import WindowTable


def anchored(
    genome: Genome, own: Sequence[Interval], others: Sequence[Interval], window: int, *, max_n_fraction: float = 0.5
) -> WindowTable:
    """Two windows an interval, over neighbouring bases of its record but never into an interval of another split.

    One begins where the interval begins, the other ends where it ends. Where another split or the record's end is too
    near, a window is moved as far as need be; where even all bases between two borders are too few, it is short.

    Args:
        genome: the intervals' own.
        own: disjoint intervals of a split, under the genome's record names.
        others: those of the other splits.
        window: base pairs of a window.
        max_n_fraction: windows with a larger fraction of unknown bases are left out.

    Returns:
        Windows in the genome's order, none of them twice; they overlap.
    """
    rows: set[tuple[int, int, int]] = set()
    borders: dict[int, list[tuple[int, int]]] = {}
    for interval in others:
        borders.setdefault(genome.number_of(interval.name), []).append((interval.start, interval.end))
    for number in {genome.number_of(interval.name) for interval in own}:
        left = np.array(sorted([0, *(end for _, end in borders.get(number, []))]))
        right = np.array(sorted([*(start for start, _ in borders.get(number, [])), genome.records[number].length]))
        for interval in own:
            if genome.number_of(interval.name) != number:
                continue
            low = int(left[np.searchsorted(left, interval.start, side="right") - 1])
            high = int(right[np.searchsorted(right, interval.end, side="left")])
            for start in (interval.start, interval.end - window):
                first = max(low, min(start, high - window))
                rows.add((number, first, min(first + window, high)))
    record, start, end = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3).T
    unknown, length = genome.unknown_counts(record, start, end), end - start
    kept = (unknown <= max_n_fraction * length) & (unknown < length)
    return WindowTable(record[kept].astype(np.int32), start[kept], end[kept], window)
