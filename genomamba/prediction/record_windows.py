"""Cutting records, or regions of them, into windows of tokens, in memory that does not grow with a record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from genomamba import tokens
from genomamba.prediction.stretches import Stretch

_IS_BASE = np.zeros(256, bool)
_IS_BASE[tokens.FIRST_BASE : tokens.FIRST_BASE + 4] = True


@dataclass(frozen=True, slots=True, eq=False)
class RecordWindow:
    """A window of a record, or of a region of one.

    Attributes:
        record: the record's id.
        start, end: 0-based half-open, base pairs in the record.
        ids: uint8 tokens of these bases, as they are read on the region's strand.
        known: how many of them are A, C, G or T.
        new_known: the same without the bases that earlier windows of the record or region held.
        is_last: no window of this record or region follows.
        first: where the region begins; 0 of a record.
        strand: the region's, "+", "-" or "." where none is known.
        label: the region's name in a BED file, if it has one.
    """

    record: str
    start: int
    end: int
    ids: np.ndarray
    known: int
    new_known: int
    is_last: bool
    first: int = 0
    strand: str = "."
    label: str | None = None


def record_windows(stretches: Iterable[Stretch], window: int, stride: int) -> Iterator[RecordWindow]:
    """Windows of each record or region, laid symmetrically: its reverse complement is cut at the very same places.

    A stretch up to `window` long is one window, and so is one without bases. The windows of a longer one are all
    `window` long and at most `stride` apart, the first at its start and the last at its end. Those of a region on the
    minus strand come in the order of the record too, each read on that strand.

    Args:
        stretches: records or regions, without context.
        window: bases of a window.
        stride: bases from window to window.

    Raises:
        ValueError: the stride is longer than the window, so that bases would be left out.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride must lie from 1 to the window of {window:,}, not {stride:,}")
    for stretch in stretches:
        covered = 0
        for start in window_starts(stretch.length, window, stride):
            end = min(start + window, stretch.length)
            ids = stretch.read(start, end)
            known, new = _known(ids), _known(ids[covered - start :])
            covered = end
            yield RecordWindow(
                stretch.record, stretch.start + start, stretch.start + end,
                tokens.reverse_complement(ids) if stretch.strand == "-" else ids, known, new, end == stretch.length,
                stretch.start, stretch.strand, stretch.label,
            )  # fmt: skip


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows of a record begin, ascending, so that `start` and `length - window - start` both do.

    Examples:
        >>> window_starts(10, window=4, stride=4)
        [0, 3, 6]
        >>> window_starts(11, window=4, stride=4)
        [0, 3, 4, 7]
    """
    room = length - window
    if room <= 0:
        return [0]
    count = -(-room // stride) + 1
    count += room % 2 and count % 2  # an odd count has a middle window, which needs as much on its left as on its right
    left = [-(-i * room // (count - 1)) for i in range((count + 1) // 2)]
    return sorted({*left, *(room - start for start in left)})


def _known(ids: np.ndarray) -> int:
    return int(np.count_nonzero(_IS_BASE[ids]))
