"""Vectors of sequences: what a model makes of each position of a stretch, or of the stretch as a whole.

A causal language model reads a stretch of any length piece by piece, its state carried, so that pieces give what the
whole gives. A masked one reads windows, of each of which the inner part counts. Where both strands are read, a
position's vector is the mean of both: that of the forward strand, and that of the reverse complement at the same base.

Shapes: `L` positions, `D` channels.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from genomamba import tokens
from genomamba.classifier.network import SequenceClassifier
from genomamba.language_model.likelihood import PIECE
from genomamba.language_model.model import Carried, GenomeLM
from genomamba.language_model.pseudo_likelihood import inner_windows
from genomamba.prediction.predictor import DEFAULT_BATCH_BASES, length_batches, padded
from genomamba.prediction.scored import Strands, directions
from genomamba.prediction.stretches import Stretch
from mamba_data_prep.errors import UserError
from mamba_kernels.blocks.strands import merge_strands

Pooling = Literal["mean", "max", "last"]


class Vectors(NamedTuple):
    """Vectors of consecutive positions of a stretch, those of its context left out.

    Attributes:
        offset: of the first one from the stretch's start, base pairs.
        ids: (L,) uint8 token ids.
        values: (L, D) float32.
    """

    offset: int
    ids: UInt8[np.ndarray, " L"]
    values: Float32[np.ndarray, "L D"]


class Read(NamedTuple):
    """A stretch, and its vectors on either strand.

    Attributes:
        stretch: which.
        pieces: strand -> from where in the stretch each piece is, with its vectors (n, D) in the record's order.
    """

    stretch: Stretch
    pieces: Callable[[str], Iterator[tuple[int, np.ndarray]]]


@dataclass(frozen=True, eq=False)
class PositionModel(ABC):
    """A language model that is asked for the vectors of positions.

    Args:
        model: in evaluation mode.
        longest: bases of a stretch that is read beside others; longer ones are read by themselves, piece by piece.
        layer: after which block, from 0 (before the first); None is the end, behind the last norm.
        on_bases: told how many bases were read.
    """

    model: GenomeLM
    longest: int = 4096
    layer: int | None = None
    on_bases: Callable[[int], object] = field(default=lambda bases: None)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.model.config.d_model

    @abstractmethod
    def at_once(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Vectors (L, D) of each of several sequences of token ids."""

    @abstractmethod
    def pieces(self, stretch: Stretch, strand: str) -> Iterator[tuple[int, np.ndarray]]:
        """Vectors (n, D) of a strand of a long stretch: from where each piece is, in the record's order."""

    def read(self, stretches: Iterable[Stretch], strands: Strands = "both") -> Iterator[Read]:
        """The vectors of stretches, in their order; short ones are held back until some are together."""
        waiting: list[Stretch] = []
        held = 0
        for stretch in stretches:
            if stretch.length > self.longest:
                yield from self._together(waiting, strands)
                waiting, held = [], 0
                yield Read(stretch, partial(self.pieces, stretch))
                continue
            ids = stretch.read(0, stretch.length).copy()
            waiting.append(replace(stretch, read=lambda first, last, ids=ids: ids[first:last]))
            held += stretch.length
            if held >= _TOGETHER or len(waiting) >= _TOGETHER // 16:
                yield from self._together(waiting, strands)
                waiting, held = [], 0
        yield from self._together(waiting, strands)

    def _together(self, waiting: Sequence[Stretch], strands: Strands) -> Iterator[Read]:
        readings = [(i, strand) for i, one in enumerate(waiting) for strand in directions(one, strands)]
        found = self.at_once([_from(waiting[i].read(0, waiting[i].length), strand) for i, strand in readings])
        known = {
            reading: values if reading[1] == "+" else values[::-1]
            for reading, values in zip(readings, found, strict=True)
        }
        for i, stretch in enumerate(waiting):
            yield Read(stretch, lambda strand, i=i: iter([(0, known[i, strand])]))


@dataclass(frozen=True, eq=False)
class CausalVectors(PositionModel):
    """The vectors of a causal model: of each position given all bases before it."""

    @torch.inference_mode()
    def at_once(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `PositionModel.at_once`; what is padded on the right changes nothing before it."""
        found = [np.zeros((len(ids), self.width), np.float32) for ids in sequences]
        for chosen in length_batches([len(ids) for ids in sequences], PIECE):
            rows, lengths = padded([sequences[i] for i in chosen])
            if not rows.shape[1]:
                continue
            with _tapped(self.model, self.layer) as tapped:
                hidden = self.model.embeddings(rows.to(_device(self.model)))
            for i, values, length in zip(chosen, _float(tapped.get("hidden", hidden)), lengths.tolist(), strict=True):
                found[i] = values[:length]
            self.on_bases(int(lengths.sum()))
        return found

    def pieces(self, stretch: Stretch, strand: str) -> Iterator[tuple[int, np.ndarray]]:
        """See `PositionModel.pieces`; the state is carried from piece to piece."""
        carried: Carried | None = None
        for first, last in _cuts(stretch.length):
            start, end = (first, last) if strand == "+" else (stretch.length - last, stretch.length - first)
            ids = torch.from_numpy(_from(stretch.read(start, end), strand).copy())[None]
            with torch.inference_mode(), _tapped(self.model, self.layer) as tapped:
                found = self.model.advance(ids.to(_device(self.model)), carried)
            carried = found.carried
            values = _float(tapped.get("hidden", found.hidden))[0]
            self.on_bases(last - first)
            yield start, values if strand == "+" else values[::-1]


@dataclass(frozen=True, eq=False)
class MaskedVectors(PositionModel):
    """The vectors of a model that looks both ways: of each position given its window of `longest` bases."""

    @torch.inference_mode()
    def at_once(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `PositionModel.at_once`; only sequences of one length are read together, since padding is seen."""
        found = [np.zeros((len(ids), self.width), np.float32) for ids in sequences]
        groups: dict[int, list[int]] = {}
        for i, ids in enumerate(sequences):
            groups.setdefault(len(ids), []).append(i)
        for length, group in groups.items():
            together = max(1, PIECE // max(1, length))
            for first in range(0, len(group) if length else 0, together):
                chosen = group[first : first + together]
                rows = torch.from_numpy(np.stack([sequences[i] for i in chosen]))
                with _tapped(self.model, self.layer) as tapped:
                    hidden = self.model.embeddings(rows.to(_device(self.model)))
                for i, values in zip(chosen, _float(tapped.get("hidden", hidden)), strict=True):
                    found[i] = values
                self.on_bases(rows.numel())
        return found

    def pieces(self, stretch: Stretch, strand: str) -> Iterator[tuple[int, np.ndarray]]:
        """See `PositionModel.pieces`; of each window the inner part counts."""
        for start, end, inner, until in inner_windows(stretch.length, self.longest):
            (values,) = self.at_once([_from(stretch.read(start, end), strand)])
            values = values if strand == "+" else values[::-1]
            yield inner, values[inner - start : until - start]


def position_vectors(read: Read, width: int, strands: Strands = "both") -> Iterator[Vectors]:
    """The vectors of a stretch's positions, piece by piece, in the record's order.

    A causal model reads the other strand from the stretch's end, so that its vectors wait: 4 D bytes a base, in a
    temporary file where there are many.
    """
    stretch = read.stretch
    ways = directions(stretch, strands)
    with tempfile.SpooledTemporaryFile(max_size=_HELD) as file:

        def held(start: int, count: int) -> np.ndarray:
            file.seek(4 * width * start)
            return np.frombuffer(file.read(4 * width * count), np.float32).reshape(count, width)

        for start, values in read.pieces("-") if "-" in ways else ():
            file.seek(4 * width * start)
            file.write(np.ascontiguousarray(values, np.float32).tobytes())
        if "+" in ways:
            pieces = read.pieces("+")
            both = ((at, (held(at, len(values)) + values) / 2 if len(ways) == 2 else values) for at, values in pieces)
        else:
            both = ((first, held(first, last - first)) for first, last in _cuts(stretch.length))
        yield from _own(both, stretch)


def pooled(pieces: Iterable[Vectors], how: Pooling, width: int, *, backwards: bool = False) -> np.ndarray:
    """One vector of all positions that hold a base, in float32; NaN where none does.

    Args:
        pieces: in any order.
        how: their mean, the greatest value of each channel, or the vector of the last one.
        width: numbers in a vector.
        backwards: the last one is that nearest to the stretch's start, as on the other strand.
    """
    total, count = np.zeros(width), 0
    greatest = np.full(width, -np.inf)
    end: tuple[int, np.ndarray] | None = None
    for piece in pieces:
        known = np.flatnonzero(_is_base(piece.ids))
        if not len(known):
            continue
        values = piece.values[known]
        total += values.sum(axis=0, dtype=np.float64)
        count += len(known)
        greatest = np.maximum(greatest, values.max(axis=0))
        at = int(known[0] if backwards else known[-1])
        place = piece.offset + at
        if end is None or (place < end[0]) == backwards:
            end = place, piece.values[at]
    if end is None:
        return np.full(width, np.nan, np.float32)
    return {"mean": total / count, "max": greatest, "last": end[1]}[how].astype(np.float32)


def stretch_vector(read: Read, how: Pooling, width: int, strands: Strands = "both") -> Float32[np.ndarray, " D"]:
    """One vector of a stretch; where both strands are read, the mean of what each is pooled to."""
    each = [
        pooled(_own(read.pieces(strand), read.stretch), how, width, backwards=strand == "-")
        for strand in directions(read.stretch, strands)
    ]
    return np.stack(each).mean(axis=0, dtype=np.float32)


def _own(pieces: Iterable[tuple[int, np.ndarray]], stretch: Stretch) -> Iterator[Vectors]:
    """The pieces without the stretch's context."""
    own = stretch.own
    for start, values in pieces:
        first, last = max(start, own.start), min(start + len(values), own.stop)
        if first < last:
            inside = np.ascontiguousarray(values[first - start : last - start], np.float32)
            yield Vectors(first - own.start, stretch.read(first, last), inside)


@dataclass(frozen=True, eq=False)
class ClassifierVectors:
    """What a classifier's head reads: one vector a window, and of a longer stretch the mean over its windows.

    Args:
        model: in evaluation mode.
        on_bases: told how many bases were read.
    """

    model: SequenceClassifier
    on_bases: Callable[[int], object] = field(default=lambda bases: None)

    def read(self, stretches: Iterable[Stretch], strands: Strands = "both") -> Iterator[tuple[Stretch, np.ndarray]]:
        """A vector (W,) of each stretch's own bases, windows weighted by their known bases; NaN without one.

        They come in their order, and windows of several stretches go through the model together.
        """
        begun: list[_Weighted] = []
        waiting: list[tuple[_Weighted, np.ndarray]] = []
        held = 0
        for stretch in stretches:
            begun.append(_Weighted(stretch, np.zeros(self.model.pooling.width)))
            for ids in self._windows(stretch):
                self.on_bases(len(ids))
                if _is_base(ids).any():
                    both = [_from(ids, strand) for strand in directions(stretch, strands)]
                    waiting += [(begun[-1], one) for one in both]
                    held += len(ids) * len(both)
                if held >= _TOGETHER:
                    self._add(waiting)
                    waiting, held = [], 0
            if len(begun) >= _TOGETHER // 16:
                self._add(waiting)
                waiting, held = [], 0
            if not waiting:
                yield from (one.result() for one in begun)
                begun = []
        self._add(waiting)
        yield from (one.result() for one in begun)

    def _windows(self, stretch: Stretch) -> Iterator[np.ndarray]:
        """Token ids of windows that cover a stretch's own bases evenly."""
        window, own = self.model.config.window, stretch.own
        count = max(1, -(-(own.stop - own.start) // window))
        starts = np.linspace(own.start, max(own.start, own.stop - window), count).round().astype(int).tolist()
        for start in starts:
            yield stretch.read(start, min(start + window, own.stop)).copy()

    @torch.inference_mode()
    def _add(self, waiting: Sequence[tuple[_Weighted, np.ndarray]]) -> None:
        """Reads windows, and adds what they give to the vectors of their stretches."""
        for chosen in length_batches([len(ids) for _, ids in waiting], DEFAULT_BATCH_BASES):
            rows, lengths = padded([waiting[i][1] for i in chosen])
            device = _device(self.model)
            found = _float(self.model.pooled(rows.to(device), lengths.to(device)))
            for i, vector in zip(chosen, found, strict=True):
                total, ids = waiting[i]
                total.add(vector, int(_is_base(ids).sum()))


@dataclass(eq=False)
class _Weighted:
    """The mean of a stretch's windows as far as they have been read.

    Attributes:
        stretch: whose.
        total: (W,) the sum of their vectors, each as often as it holds a base.
        weight: how many bases that were.
    """

    stretch: Stretch
    total: np.ndarray
    weight: int = 0

    def add(self, vector: np.ndarray, bases: int) -> None:
        self.total += bases * vector
        self.weight += bases

    def result(self) -> tuple[Stretch, np.ndarray]:
        mean = self.total / self.weight if self.weight else np.full_like(self.total, np.nan)
        return self.stretch, mean.astype(np.float32)


def check_layer(model: GenomeLM, layer: int | None) -> None:
    """Refuses a layer that a model does not have.

    Raises:
        UserError: it has fewer blocks.
    """
    most = len(model.backbone.blocks)
    if layer is not None and not 0 <= layer <= most:
        raise UserError(
            "the model has no such layer", found=layer,
            accepted=f"0 (before the first block) to {most} (after the last one), or nothing for the normalised end",
        )  # fmt: skip


@contextmanager
def _tapped(model: GenomeLM, layer: int | None) -> Iterator[dict[str, Tensor]]:
    """What runs behind a block while the model reads once, under `hidden`; nothing where its end is asked for."""
    taken: dict[str, Tensor] = {}
    if layer is None:
        yield taken
        return
    blocks = model.backbone.blocks

    def keep(values: Tensor) -> None:
        both = model.config.reverse_complement == "equivariant"
        taken["hidden"] = merge_strands(values) if both else values

    if layer == 0:
        hook = blocks[0].register_forward_pre_hook(lambda module, given: keep(given[0]))
    else:
        hook = blocks[layer - 1].register_forward_hook(lambda module, given, out: keep(out[0]))
    try:
        yield taken
    finally:
        hook.remove()


_HELD: Final = 2**26
"""Bytes of one strand's vectors that wait in memory; more wait on disk."""
_TOGETHER: Final = 2**16
"""Bases of short stretches that are held back until they are read."""


def _cuts(length: int) -> Iterator[tuple[int, int]]:
    """Pieces of a stretch; the last one takes a single base more rather than leaving it alone."""
    first = 0
    while first < length:
        last = length if length - first <= PIECE + 1 else first + PIECE
        yield first, last
        first = last


def _from(ids: np.ndarray, strand: str) -> np.ndarray:
    return ids if strand == "+" else tokens.reverse_complement(ids)


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _float(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def _is_base(ids: Sequence[int] | np.ndarray) -> np.ndarray:
    return (np.asarray(ids) >= tokens.FIRST_BASE) & (np.asarray(ids) < tokens.FIRST_BASE + 4)
