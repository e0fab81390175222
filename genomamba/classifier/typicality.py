"""How typical a sequence is of what a classifier was trained on, so that foreign sequences are seen to be foreign.

A classifier gives every sequence one of its classes, also a sequence of a species that it has never met, and is often
sure of it. So a class keeps a Markov model of its training sequences, and the bits a base that held-out sequences cost
under it, at their whole length and at halves of it. A new sequence is compared with those of its length: its
typicality for a class is the conformal p-value

    p = 2 min(1 + held at or below it, 1 + held at or above it) / (1 + held),

both ends counting, for what is too easily foretold (a repeat) is as foreign as what is not foretold. Its typicality is
the largest p of a class. Of sequences like those held out at most one in a hundred is below 0.01, whatever the classes
and their Markov models are like: exactly so of validation sequences, nearly so with training sequences among them.

Sources: Ren et al. 2019, Likelihood Ratios for Out-of-Distribution Detection (likelihoods of DNA for this purpose);
Bates et al. 2023, Testing for Outliers with Conformal p-Values; Vovk and Wang 2020, Combining p-Values via Averaging.
Shapes: `M` sequences, `C` classes, `J` lengths, `Q` held-out sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from genomamba import tokens
from genomamba.classifier.config import TypicalShape
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.language_model.markov import MarkovCounts, interpolated
from mamba_kernels.cpu.numba_runtime import kernel

UNLIKE: Final = 0.01
"""Sequences that are less typical than this are counted as unlike the training data."""
_ORDER: Final = 5
_ORDER_OF_MANY: Final = 3
_MANY_CLASSES: Final = 64
_STRENGTH: Final = 20.0
_SHORTEST: Final = 32
_FEWEST: Final = 20
_MOST_HELD: Final = 1000
_MOST_COUNTED: Final = 2**16
_FOLDS: Final = 5


class Typicality(nn.Module):
    """Markov models of classes, and what held-out sequences cost under them.

    Args:
        shape: its sizes.
        n_classes: how many classes there are.
    """

    bits: Tensor
    held: Tensor
    counted: Tensor

    def __init__(self, shape: TypicalShape, n_classes: int) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("bits", torch.zeros(n_classes, 4 ** (shape.order + 1)))
        self.register_buffer("held", torch.zeros(n_classes, len(shape.lengths), shape.held))
        self.register_buffer("counted", torch.zeros(n_classes, len(shape.lengths), dtype=torch.int64))

    @classmethod
    def of(cls, data: LabelledData) -> Typicality:
        """Counts the training split, and measures held-out sequences.

        These are the validation split, and where a class has fewer than 1,000 there its training sequences too, each
        under counts of four fifths of them without it.
        """
        n_classes = len(data.classes)
        order = _ORDER if n_classes <= _MANY_CLASSES else _ORDER_OF_MANY
        own = [data.train.select(data.train.labels == label) for label in range(n_classes)]
        bits = np.stack([_word_bits(examples, order, data.stranded) for examples in own])
        held_out = [_held_out(data, label, *known) for label, known in enumerate(zip(own, bits, strict=True))]
        lengths, costs = _costs_by_length(held_out, data)
        held = max(1, *(len(part) for row in costs for part in row))
        found = cls(TypicalShape(order=order, lengths=lengths, held=held, stranded=data.stranded), n_classes)
        found.bits.copy_(torch.from_numpy(bits))
        for label, row in enumerate(costs):
            for place, part in enumerate(row):
                found.counted[label, place] = len(part)
                found.held[label, place, : len(part)] = torch.from_numpy(np.sort(part))
        return found

    @property
    def least(self) -> float:
        """The smallest value that it can give to a whole window: that of the class with the fewest held sequences."""
        return min(1.0, 2 / (1 + int(self.counted[:, -1].min())))

    def of_windows(self, windows: Sequence[np.ndarray]) -> Float64[np.ndarray, " M"]:
        """The typicality of windows of token ids; NaN where there is no word of known bases."""
        bits, held, counted = self.bits.cpu().numpy(), self.held.cpu().numpy(), self.counted.cpu().numpy()
        lengths = np.array(self.shape.lengths)
        found = np.full(len(windows), np.nan)
        for number, ids in enumerate(windows):
            costs = bits_a_base(ids, bits, self.shape.order, both_strands=not self.shape.stranded)
            if np.isnan(costs[0]):
                continue
            place = max(int(np.searchsorted(lengths, len(ids), side="right")) - 1, 0)
            found[number] = max(
                _p_value(held[label, place, : counted[label, place]], cost) for label, cost in enumerate(costs)
            )
        return found


class MeanTypicality:
    """The typicality of a record from those of its windows: twice their mean, weighted by their known bases.

    Twice the mean of p-values is a p-value, whatever their dependence (Vovk and Wang 2020). One window is as it is.
    """

    def __init__(self) -> None:
        self._sum, self._weight, self._windows = 0.0, 0, 0

    def add(self, value: float, weight: int) -> None:
        """Takes one window's value, which may be NaN, and its number of known bases."""
        if value == value:
            self._sum += weight * value
            self._weight += weight
            self._windows += 1

    def result(self) -> float:
        """The record's value; NaN when no window had one."""
        if not self._weight:
            return float("nan")
        return min(1.0, (1 if self._windows == 1 else 2) * self._sum / self._weight)


@dataclass(frozen=True)
class Unlike:
    """How many test sequences are unlike the training data.

    Attributes:
        n: test sequences.
        unlike: those less typical than `below`.
        least: the smallest typicality that a whole window can have.
        below: the threshold.
    """

    n: int
    unlike: int
    least: float
    below: float = UNLIKE

    @classmethod
    def of(cls, typicality: Typicality, test: Examples) -> Unlike:
        """Measures the test split."""
        unlike = sum(bool(typicality.of_windows([tokens.encode(bases)])[0] < UNLIKE) for bases in test)
        return cls(len(test), unlike, typicality.least)

    @property
    def words(self) -> str:
        """The same as a sentence."""
        if self.least >= self.below:
            return (
                f"There are too few sequences to tell foreign ones: the least typicality is {self.least:.2g}; "
                f"{math.ceil(2 / self.below)} of each class allow one below {self.below:g}."
            )
        return (
            f"{self.unlike:,} of {self.n:,} test examples ({self.unlike / self.n:.1%}) have a typicality below "
            f"{self.below:g}, where {self.below:.0%} are expected at most."
        )


def bits_a_base(ids: np.ndarray, bits: np.ndarray, order: int, *, both_strands: bool) -> Float64[np.ndarray, " C"]:
    """What a sequence costs a base under each class, over its words of order + 1 known bases; NaN without one."""
    costs = np.zeros(len(bits))
    words = _sum_bits(ids, tokens.FIRST_BASE, bits, order, both_strands, costs)
    return costs / words if words else np.full(len(bits), np.nan)


def _p_value(held: np.ndarray, cost: float) -> float:
    """The conformal p-value of a cost among sorted ones, both ends; 1 where none is held."""
    same = np.float32(cost)  # as it would be held
    below, above = np.searchsorted(held, same, side="right"), len(held) - np.searchsorted(held, same, side="left")
    return min(1.0, 2 * (1 + min(int(below), int(above))) / (1 + len(held)))


def _word_bits(examples: Examples, order: int, stranded: bool) -> np.ndarray:
    """The cost of each word's last base after the others, float32 (4 ** (order + 1),)."""
    counts = MarkovCounts(order)
    for bases in examples.thinned(_MOST_COUNTED):
        counts.add(tokens.encode(bases)[None], both_strands=not stranded)
    return -np.log2(interpolated(counts.tables(), _STRENGTH)[-1]).ravel().astype(np.float32)


def _held_out(
    data: LabelledData, label: int, own: Examples, bits: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token ids of a class's held-out sequences, each with the bits of words under counts that it is not in."""
    valid = data.valid.select(data.valid.labels == label).thinned(_MOST_HELD)
    yield from ((tokens.encode(bases), bits) for bases in valid)
    wanted, fold = _MOST_HELD - len(valid), np.arange(len(own)) % _FOLDS
    for part in range(_FOLDS if wanted else 0):
        rest = _word_bits(own.select(fold != part), _order_of(bits), data.stranded)
        left_out = own.select(fold == part).thinned(math.ceil(wanted / _FOLDS))
        yield from ((tokens.encode(bases), rest) for bases in left_out)


def _costs_by_length(
    held_out: Sequence[Iterable[tuple[np.ndarray, np.ndarray]]], data: LabelledData
) -> tuple[list[int], list[list[np.ndarray]]]:
    """The lengths that are told apart, rising, and the costs of each class's held-out sequences at them.

    A sequence counts at each length that it has, with its middle; lengths that few sequences have are left out.
    """
    halves = [data.window >> step for step in range(data.window.bit_length()) if data.window >> step >= _SHORTEST]
    halves = halves or [data.window]
    costs: list[list[list[float]]] = [[[] for _ in halves] for _ in held_out]
    for row, sequences in zip(costs, held_out, strict=True):
        for ids, bits in sequences:
            for place, length in enumerate(halves):
                if len(ids) >= length or place == len(halves) - 1:
                    first = max(len(ids) - length, 0) // 2
                    middle = ids[first : first + length]
                    (cost,) = bits_a_base(middle, bits[None], _order_of(bits), both_strands=not data.stranded)
                    row[place] += [] if np.isnan(cost) else [float(cost)]
    most = [max(len(row[place]) for row in costs) for place in range(len(halves))]
    kept = [place for place, n in enumerate(most) if n >= _FEWEST or place == len(halves) - 1][::-1]
    return [halves[place] for place in kept], [[np.array(row[place], np.float32) for place in kept] for row in costs]


def _order_of(bits: np.ndarray) -> int:
    return round(math.log(len(bits), 4)) - 1


@kernel
def _sum_bits(
    ids: np.ndarray, first_base: int, bits: np.ndarray, order: int, both_strands: bool, costs: np.ndarray
) -> int:
    """Adds up the bits of each word of known bases, on one strand or both.

    Args:
        ids: uint8 (length,) token ids; A, C, G and T follow one another from `first_base` on.
        first_base: the id of A.
        bits: float32 (classes, 4 ** (order + 1)), words in base four with the oldest base first.
        order: bases of the context.
        both_strands: add those of the reverse complement.
        costs: float64 (classes,), written.

    Returns:
        The number of words.
    """
    mask = (np.int64(1) << (2 * (order + 1))) - 1
    word, other, known, total = np.int64(0), np.int64(0), 0, 0
    for place in range(len(ids)):
        base = np.int64(ids[place]) - first_base
        if base < 0 or base > 3:
            known = 0
            continue
        word = ((word << 2) | base) & mask
        other = (other >> 2) | ((3 - base) << (2 * order))
        known += 1
        if known > order:
            for label in range(bits.shape[0]):
                costs[label] += bits[label, word]
            total += 1
            if both_strands:
                for label in range(bits.shape[0]):
                    costs[label] += bits[label, other]
                total += 1
    return total
