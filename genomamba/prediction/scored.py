"""From sequences to the log-likelihood of every base, on one strand or as the mean of both.

Short sequences go through the model side by side; a long one by itself, piece by piece, so that memory does not grow
with it. Read from the other strand, its values wait in a temporary file (4 bytes a base) for those of the first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Final, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from genomamba import tokens
from genomamba.language_model.likelihood import PIECE, LikelihoodState, log2_likelihood
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.pseudo_likelihood import EVERY, inner_windows, pseudo_log2_p
from genomamba.prediction.predictor import length_batches, padded
from genomamba.prediction.stopping import as_far_as_read
from genomamba.prediction.stretches import Stretch
from mamba_data_prep.errors import UserError

Strands = Literal["both", "forward", "reverse"]
_BUFFER_BASES: Final = 2**17
_BUFFER_STRETCHES: Final = 2**13


@dataclass(frozen=True, slots=True, eq=False)
class ScoredPiece:
    """Consecutive bases of a stretch, those of its context left out.

    Attributes:
        stretch: which.
        offset: of the first base from the stretch's start, base pairs.
        ids: uint8 token ids.
        log2_p: float64, log2 of each base's probability; NaN where none is told.
        is_last: whether the stretch ends with this piece.
    """

    stretch: Stretch
    offset: int
    ids: np.ndarray
    log2_p: np.ndarray
    is_last: bool


def directions(stretch: Stretch, strands: Strands) -> tuple[str, ...]:
    """The strands of the record that are read: "+", "-" or both; a region's own strand is its forward one."""
    if strands == "both":
        return "+", "-"
    return ("-",) if (strands == "forward") == (stretch.strand == "-") else ("+",)


def mean_log2_p(each: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over directions at each base; where only one of them foretells the base, that one's value."""
    if len(each) == 1:
        return each[0]
    first, second = each
    return np.where(np.isnan(first), second, np.where(np.isnan(second), first, (first + second) / 2))


@runtime_checkable
class Scorer(Protocol):
    """A language model that is asked for the log-likelihood of bases.

    Attributes:
        longest: bases of a sequence that is scored at once, beside others.
    """

    @property
    def longest(self) -> int:
        """Bases of a sequence that is scored at once."""
        ...

    def at_once(self, sequences: Sequence[np.ndarray], strands: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
        """log2 p of each base of sequences of token ids, in the order given, each on its strands."""
        ...

    def piecewise(self, stretch: Stretch, strands: tuple[str, ...]) -> Iterator[np.ndarray]:
        """log2 p of each base of a long sequence, piece by piece from its beginning."""
        ...


@dataclass(frozen=True, eq=False)
class CausalScorer:
    """Scores every base given all bases before it, exactly, whatever the length.

    Args:
        model: in evaluation mode, on `device`.
        on_bases: called with the number of bases that were read on one of the strands, for showing progress.
    """

    model: GenomeLM
    device: torch.device
    on_bases: Callable[[int], object] = field(default=lambda bases: None)
    longest: int = PIECE

    def at_once(self, sequences: Sequence[np.ndarray], strands: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
        """See `Scorer.at_once`."""
        readings = [(i, strand) for i, own in enumerate(strands) for strand in own]
        found: dict[tuple[int, str], np.ndarray] = {}
        for chosen in length_batches([len(sequences[i]) for i, _ in readings], self.longest):
            batch = [readings[i] for i in chosen]
            ids, _ = padded([_read_from(sequences[i], strand) for i, strand in batch])
            if not ids.shape[1]:
                found.update({reading: np.zeros(0) for reading in batch})
                continue
            log2_p = log2_likelihood(self.model, ids.to(self.device)).log2_p.cpu().numpy()
            for row, (i, strand) in zip(log2_p, batch, strict=True):
                found[i, strand] = _as_given(row[: len(sequences[i])], strand)
                self.on_bases(len(sequences[i]))
        return [mean_log2_p([found[i, strand] for strand in own]) for i, own in enumerate(strands)]

    def piecewise(self, stretch: Stretch, strands: tuple[str, ...]) -> Iterator[np.ndarray]:
        """See `Scorer.piecewise`."""
        with tempfile.TemporaryFile() as held:
            places: list[tuple[int, int]] = []
            if "-" in strands:
                for start, values in self._walk(stretch, "-"):
                    held.write(values.astype(np.float32)[::-1].tobytes())
                    places.append((start, len(values)))
            if "+" not in strands:
                yield from (_held(held, stretch.length, start, n) for start, n in reversed(places))
                return
            for start, values in self._walk(stretch, "+"):
                if places:
                    values = mean_log2_p([values, _held(held, stretch.length, start, len(values))])
                yield values

    def _walk(self, stretch: Stretch, strand: str) -> Iterator[tuple[int, np.ndarray]]:
        """Pieces in the order in which a strand is read: where each lies, and its values in the order of the record."""
        state: LikelihoodState | None = None
        for done in range(0, stretch.length, self.longest):
            n = min(self.longest, stretch.length - done)
            start = done if strand == "+" else stretch.length - done - n
            ids = torch.from_numpy(_read_from(stretch.read(start, start + n), strand).copy())[None]
            log2_p, _, state = log2_likelihood(self.model, ids.to(self.device), state)
            self.on_bases(n)
            yield start, _as_given(log2_p[0].cpu().numpy(), strand)


@dataclass(frozen=True, eq=False)
class MaskedScorer:
    """Scores every base given those on both sides, see `genomamba.language_model.pseudo_likelihood`.

    Args:
        model: in evaluation mode, on `device`.
        longest: the window, in bases.
        every: how far hidden bases are apart.
        on_bases: called with the number of bases that were scored on one of the strands.
    """

    model: GenomeLM
    device: torch.device
    longest: int
    every: int = EVERY
    on_bases: Callable[[int], object] = field(default=lambda bases: None)

    def at_once(self, sequences: Sequence[np.ndarray], strands: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
        """See `Scorer.at_once`; only sequences of one length go through the model together, since padding is seen."""
        found = [np.zeros(len(ids)) for ids in sequences]
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for i, (ids, own) in enumerate(zip(sequences, strands, strict=True)):
            groups.setdefault((len(ids), own), []).append(i)
        for (length, own), group in groups.items():
            together = max(1, PIECE // max(1, length * self.every))
            for first in range(0, len(group) if length else 0, together):
                chosen = group[first : first + together]
                for i, values in zip(chosen, self._scored([sequences[i] for i in chosen], own), strict=True):
                    found[i] = values
        return found

    def piecewise(self, stretch: Stretch, strands: tuple[str, ...]) -> Iterator[np.ndarray]:
        """See `Scorer.piecewise`."""
        for start, end, inner, until in inner_windows(stretch.length, self.longest):
            yield self._scored([stretch.read(start, end)], strands)[0][inner - start : until - start]

    def _scored(self, sequences: list[np.ndarray], strands: tuple[str, ...]) -> list[np.ndarray]:
        ids = torch.from_numpy(np.stack(sequences)).to(self.device)
        alike = self.model.config.reverse_complement == "equivariant"
        each = [
            pseudo_log2_p(self.model, ids, self.every, other_strand=strand == "-", tokens_at_a_time=PIECE)
            for strand in (strands[:1] if alike else strands)
        ]
        self.on_bases(ids.numel() * len(strands))
        return list(mean_log2_p([one.cpu().numpy() for one in each]))


def score_stretches(stretches: Iterable[Stretch], scorer: Scorer, strands: Strands = "both") -> Iterator[ScoredPiece]:
    """The log-likelihood of every base of sequences, in their order; short ones are held back until some are together.

    Where the sequences end in a `UserError`, the pieces of those before it are given first.
    """
    waiting: list[tuple[Stretch, np.ndarray]] = []
    held = 0
    refused: list[UserError] = []
    for stretch in as_far_as_read(stretches, refused):
        if stretch.length > scorer.longest:
            yield from _together(waiting, scorer, strands)
            waiting, held = [], 0
            yield from _alone(stretch, scorer, strands)
            continue
        waiting.append((stretch, stretch.read(0, stretch.length).copy()))
        held += stretch.length
        if held >= _BUFFER_BASES or len(waiting) >= _BUFFER_STRETCHES:
            yield from _together(waiting, scorer, strands)
            waiting, held = [], 0
    yield from _together(waiting, scorer, strands)
    if refused:
        raise refused[0]


def _together(waiting: list[tuple[Stretch, np.ndarray]], scorer: Scorer, strands: Strands) -> Iterator[ScoredPiece]:
    if not waiting:
        return
    found = scorer.at_once([ids for _, ids in waiting], [directions(stretch, strands) for stretch, _ in waiting])
    for (stretch, ids), values in zip(waiting, found, strict=True):
        yield ScoredPiece(stretch, 0, ids[stretch.own], values[stretch.own], True)


def _alone(stretch: Stretch, scorer: Scorer, strands: Strands) -> Iterator[ScoredPiece]:
    place, own = 0, stretch.own
    for values in scorer.piecewise(stretch, directions(stretch, strands)):
        first, last = max(place, own.start), min(place + len(values), own.stop)
        if first < last:
            inside = values[first - place : last - place]
            yield ScoredPiece(stretch, first - own.start, stretch.read(first, last), inside, last == own.stop)
        place += len(values)


def _read_from(ids: np.ndarray, strand: str) -> np.ndarray:
    return ids if strand == "+" else tokens.reverse_complement(ids)


def _as_given(values: np.ndarray, strand: str) -> np.ndarray:
    """Values of a strand in the order of the record."""
    return values if strand == "+" else values[::-1]


def _held(file: IO[bytes], length: int, start: int, n: int) -> np.ndarray:
    """Values of the other strand, which lie in the file from the record's end, in the order of the record."""
    file.seek(4 * (length - start - n))
    return np.frombuffer(file.read(4 * n), np.float32)[::-1].astype(np.float64)
