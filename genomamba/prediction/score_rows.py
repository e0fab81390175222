"""The tables of `genomamba score`: a row a record or region, or a row a base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genomamba import tokens
from genomamba.prediction.rows import Column
from genomamba.prediction.scored import ScoredPiece, Strands, directions
from genomamba.prediction.stretches import Stretch

_LETTERS = np.array(list("?" * tokens.FIRST_BASE + tokens.BASES + "N????"))
_MOST_ROWS = 2**13


@dataclass(frozen=True, eq=False)
class StretchScores:
    """A row for each record or region.

    Attributes:
        seq_id: record ids; not necessarily unique.
        start, end: int64, 0-based half-open, base pairs in the record.
        strand: "." where both strands were read, otherwise the one that was.
        name: names of the regions, or None where records are scored.
        known: int64, bases that are A, C, G or T.
        scored: int64, bases that were scored.
        log2_p: float64, the sum of log2 of their probabilities.
    """

    seq_id: Sequence[str]
    start: np.ndarray
    end: np.ndarray
    strand: Sequence[str]
    name: Sequence[str] | None
    known: np.ndarray
    scored: np.ndarray
    log2_p: np.ndarray

    def __len__(self) -> int:
        return len(self.seq_id)

    @property
    def bits(self) -> np.ndarray:
        """What the bases cost together; NaN where none was scored."""
        return np.where(self.scored > 0, -self.log2_p, np.nan)

    def columns(self) -> dict[str, Column]:
        """The table, in the order in which it is written."""
        length = self.end - self.start
        named: dict[str, Column] = {"seq_id": self.seq_id, "start": self.start, "end": self.end, "strand": self.strand}
        if self.name is not None:
            named["name"] = self.name
        return {
            **named, "length": length, "n_frac": 1 - self.known / np.maximum(length, 1), "scored": self.scored,
            "log2_likelihood": 0.0 - self.bits, "bits": self.bits, "bits_per_base": self.track(None),
        }  # fmt: skip

    def track(self, name: str | None) -> np.ndarray:
        """Bits a base of each row; NaN where none was scored."""
        return self.bits / np.maximum(self.scored, 1)


@dataclass(frozen=True, eq=False)
class BaseScores:
    """A row for each base.

    Attributes:
        seq_id, start, strand: as in `StretchScores`.
        ids: uint8 token ids.
        log2_p: float64; NaN where nothing is told.
    """

    seq_id: Sequence[str]
    start: np.ndarray
    strand: Sequence[str]
    ids: np.ndarray
    log2_p: np.ndarray

    def __len__(self) -> int:
        return len(self.seq_id)

    def beyond(self, n: int) -> BaseScores:
        """Without the first `n` rows."""
        return BaseScores(self.seq_id[n:], self.start[n:], self.strand[n:], self.ids[n:], self.log2_p[n:])

    @property
    def end(self) -> np.ndarray:
        """One beyond each base."""
        return self.start + 1

    @property
    def scored(self) -> np.ndarray:
        """Whether each base was scored."""
        return ~np.isnan(self.log2_p)

    def columns(self) -> dict[str, Column]:
        """The table, in the order in which it is written."""
        return {
            "seq_id": self.seq_id, "start": self.start, "end": self.end, "strand": self.strand,
            "base": _LETTERS[self.ids].tolist(), "log2_likelihood": self.log2_p, "bits": self.track(None),
        }  # fmt: skip

    def track(self, name: str | None) -> np.ndarray:
        """Bits of each base; NaN where it was not scored."""
        return 0.0 - self.log2_p


def stretch_rows(pieces: Iterable[ScoredPiece], strands: Strands, *, regions: bool) -> Iterator[StretchScores]:
    """A row a stretch, each given as soon as its last piece is scored."""
    known = scored = 0
    log2_p = 0.0
    for piece in pieces:
        known += int(np.count_nonzero(_is_base(piece.ids)))
        scored += int(np.count_nonzero(~np.isnan(piece.log2_p)))
        log2_p += float(np.nansum(piece.log2_p))
        if piece.is_last:
            stretch = piece.stretch
            yield StretchScores(
                [stretch.record], np.array([stretch.start]), np.array([stretch.end]), [_strand(stretch, strands)],
                [stretch.label or ""] if regions else None, np.array([known]), np.array([scored]), np.array([log2_p]),
            )  # fmt: skip
            known, scored, log2_p = 0, 0, 0.0


def base_rows(pieces: Iterable[ScoredPiece], strands: Strands) -> Iterator[BaseScores]:
    """A row a base."""
    for piece in pieces:
        stretch = piece.stretch
        start = stretch.start + piece.offset + np.arange(len(piece.ids))
        strand = _strand(stretch, strands)
        for first in range(0, len(start), _MOST_ROWS):
            part = slice(first, first + _MOST_ROWS)
            n = len(start[part])
            yield BaseScores([stretch.record] * n, start[part], [strand] * n, piece.ids[part], piece.log2_p[part])


def no_scores(per: str, *, regions: bool) -> StretchScores | BaseScores:
    """A table of the kind without a row."""
    none = np.zeros(0, np.int64)
    if per == "base":
        return BaseScores([], none, [], np.zeros(0, np.uint8), np.zeros(0))
    return StretchScores([], none, none, [], [] if regions else None, none, none, np.zeros(0))


def _strand(stretch: Stretch, strands: Strands) -> str:
    read = directions(stretch, strands)
    return "." if len(read) == 2 else read[0]


def _is_base(ids: np.ndarray) -> np.ndarray:
    return (ids >= tokens.FIRST_BASE) & (ids < tokens.FIRST_BASE + 4)
