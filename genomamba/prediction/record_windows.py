"""Cutting streamed FASTA records into windows of tokens, in memory that does not grow with a record."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from genomamba import tokens
from mamba_data_prep.genomes.fasta import FastaPiece

_IS_BASE = np.zeros(256, bool)
_IS_BASE[tokens.FIRST_BASE : tokens.FIRST_BASE + 4] = True
_HELD_IN_MEMORY = 2**24
"""Bases of one record that are held in memory; what is longer waits on disk for its end."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordWindow:
    """A stretch of one record.

    Attributes:
        record: the record's id.
        start, end: 0-based half-open, base pairs in the record.
        ids: uint8 tokens of these bases.
        known: how many of them are A, C, G or T.
        new_known: the same without the bases that the record's earlier windows held.
        is_last: no window of this record follows.
    """

    record: str
    start: int
    end: int
    ids: np.ndarray
    known: int
    new_known: int
    is_last: bool


def record_windows(pieces: Iterable[FastaPiece], window: int, stride: int) -> Iterator[RecordWindow]:
    """Windows of each record, laid symmetrically: its reverse complement is cut at the very same places.

    A record up to `window` long is one window, and so is one without bases. The windows of a longer record are
    all `window` long and at most `stride` apart, the first at its start and the last at its end. Where they lie depends
    on a record's length, so a record is held until its end is read: on disk, where it is long.

    Raises:
        ValueError: the stride is longer than the window, so that bases would be left out.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride must lie from 1 to the window of {window:,}, not {stride:,}")
    with tempfile.SpooledTemporaryFile(max_size=_HELD_IN_MEMORY) as held:
        length = 0
        for piece in pieces:
            if piece.offset == 0:
                held.seek(0)
                length = 0
            held.write(tokens.encode(piece.sequence).tobytes())
            length += len(piece.sequence)
            if piece.is_last:
                yield from _windows_of(held, piece.record, length, window, stride)


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


def _windows_of(held: IO[bytes], record: str, length: int, window: int, stride: int) -> Iterator[RecordWindow]:
    covered = 0
    for start in window_starts(length, window, stride):
        end = min(start + window, length)
        held.seek(start)
        ids = np.frombuffer(held.read(end - start), np.uint8)
        yield RecordWindow(record, start, end, ids, _known(ids), _known(ids[covered - start :]), end == length)
        covered = end


def _known(ids: np.ndarray) -> int:
    return int(np.count_nonzero(_IS_BASE[ids]))
