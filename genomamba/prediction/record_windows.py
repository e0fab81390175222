"""Cutting streamed FASTA records into windows of tokens, in memory that does not grow with a record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from genomamba import tokens
from mamba_data_prep.genomes.fasta import FastaPiece

_IS_BASE = np.zeros(256, bool)
_IS_BASE[tokens.FIRST_BASE : tokens.FIRST_BASE + 4] = True


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
    """Windows at 0, stride, 2 stride ... of each record; the last one ends with the record and may be shorter.

    A record without bases has one window, which is empty.

    Raises:
        ValueError: the stride is longer than the window, so that bases would be left out.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride must lie from 1 to the window of {window:,}, not {stride:,}")
    held, start, covered = np.zeros(0, np.uint8), 0, 0
    for piece in pieces:
        if piece.offset == 0:
            held, start, covered = np.zeros(0, np.uint8), 0, 0
        first = start
        bases = tokens.encode(piece.sequence)
        held = np.concatenate([held, bases]) if len(held) else bases
        available = first + len(held)
        if piece.is_last and not available:
            yield RecordWindow(piece.record, 0, 0, held, 0, 0, True)
        while start + window < available or (piece.is_last and covered < available):
            end = min(start + window, available)
            ids = held[start - first : end - first]
            known = _known(ids)
            new_known = known if covered <= start else _known(ids[covered - start :])
            yield RecordWindow(piece.record, start, end, ids, known, new_known, piece.is_last and end == available)
            start, covered = start + stride, end
        held = held[start - first :]


def _known(ids: np.ndarray) -> int:
    return int(np.count_nonzero(_IS_BASE[ids]))
