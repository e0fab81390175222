"""Interpolated Markov models: the baseline that a language model of DNA has to beat.

The probability of a base after the context c of k bases is mixed with that of the shorter context,

    p_k(b | c) = (n_k(c, b) + m p_{k-1}(b | c')) / (n_k(c) + m),        p_{-1} = 1/4,

where n_k counts what was seen and m, the strength of the shorter context, is chosen on validation windows. Contexts
never reach over the start of a window or over an N; there the longest context that exists takes the order's place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float64, Int, UInt8

from genomamba import tokens
from genomamba.language_model.word_counts import count_words

MAX_ORDER: Final = 12
"""Longest context of the counts that follow a training."""

HIGHEST_ORDER: Final = 14
"""Longest context that can be counted; its table takes 4 GB."""

STRENGTHS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Values of m that are tried."""

_POSITIONS_AT_A_TIME: Final = 1 << 18


def table_bytes(order: int) -> int:
    """Memory that the counts of all contexts up to `order` bases take, with the tables made of them."""
    return 4 * 4 ** (order + 1) * 5 // 3


class MarkovCounts:
    """Counts of every word of up to `max_order` + 1 bases in the windows added so far.

    Each base is counted once, after the longest context it has; the shorter contexts follow by summing. Memory is
    `table_bytes(max_order)`: 360 MB for order 12.
    """

    def __init__(self, max_order: int = MAX_ORDER) -> None:
        if not 0 <= max_order <= HIGHEST_ORDER:
            raise ValueError(f"max_order={max_order} is outside 0 .. {HIGHEST_ORDER}")
        self.max_order = max_order
        self.n_bases = 0
        sizes = [4 ** (order + 1) for order in range(max_order + 1)]
        self._starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        self._counts = np.zeros(sum(sizes), dtype=np.int32)
        self._own = np.split(self._counts, self._starts[1:])

    def add(self, ids: UInt8[np.ndarray, "windows length"], *, both_strands: bool = False) -> None:
        """Counts the bases of some windows, each by itself; those of its reverse complement too with `both_strands`."""
        for other_strand in (False, True) if both_strands else (False,):
            self.n_bases += count_words(
                ids, tokens.FIRST_BASE, self.max_order, self._counts, self._starts, other_strand
            )

    def tables(self) -> list[Int[np.ndarray, "_ 4"]]:
        """n_k(c, b) for each order k: row c spells the context in base four, the oldest base first."""
        counts = self._own[self.max_order]
        tables = [counts.reshape(-1, 4)]
        for order in reversed(range(self.max_order)):
            wide = np.int64 if order < MAX_ORDER // 2 else np.int32
            counts = counts.reshape(4, -1).sum(axis=0, dtype=wide) + self._own[order]
            tables.append(counts.reshape(-1, 4))
        return tables[::-1]


@dataclass(frozen=True)
class MarkovScore:
    """Bits per base of every order and strength on the same windows.

    Attributes:
        bits: mean over all targets, for each order (rows) and strength (columns).
        strengths: the values of m.
        n_targets: bases scored: all but the first of each window, N and padding.
    """

    bits: Float64[np.ndarray, "orders strengths"]
    strengths: tuple[float, ...]
    n_targets: int

    @property
    def best(self) -> tuple[int, float, float]:
        """Order, strength and bits per base of the best model."""
        order, column = np.unravel_index(int(np.argmin(self.bits)), self.bits.shape)
        return int(order), self.strengths[int(column)], float(self.bits[order, column])

    def at(self, order: int, strength: float) -> float:
        """Bits per base of one model."""
        return float(self.bits[order, self.strengths.index(strength)])

    def by_order(self) -> list[tuple[int, float, float]]:
        """Order, its best strength, and its bits per base."""
        columns = self.bits.argmin(axis=1)
        return [(order, self.strengths[c], float(self.bits[order, c])) for order, c in enumerate(columns)]


def interpolated(tables: list[Int[np.ndarray, "_ 4"]], strength: float) -> list[Float[np.ndarray, "_ 4"]]:
    """The distribution of the base after each context, for each order."""
    found, before = [], np.full((1, 4), 0.25)
    for order, table in enumerate(tables):
        before = mixed(table, strength, before if order == 0 else np.tile(before, (4, 1)))
        found.append(before)
    return found


def mixed(
    counts: Int[np.ndarray, "n 4"], strength: float, before: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "n 4"]:
    """The distribution after each context, from what was seen there and the distribution after the shorter one."""
    return (counts + strength * before) / (counts.sum(axis=1, keepdims=True) + strength)


def score(
    tables: list[Int[np.ndarray, "_ 4"]],
    ids: UInt8[np.ndarray, "windows length"],
    strengths: Iterable[float] = STRENGTHS,
) -> MarkovScore:
    """Scores windows with models of every order and strength.

    Args:
        tables: what `MarkovCounts.tables` gives.
        ids: windows of token ids; the first base of each is context only, as for the language model.
        strengths: values of m.
    """
    chosen = tuple(strengths)
    total = np.zeros((len(tables), len(chosen)))
    n_targets = 0
    for rows in _blocks(ids):
        words, contexts = _words(rows, len(tables) - 1)
        contexts[:, 0] = -1
        kept = contexts >= 0
        n_targets += int(np.count_nonzero(kept))
        words, contexts = words[kept], contexts[kept]
        for part in range(0, len(words), _POSITIONS_AT_A_TIME):
            place = slice(part, part + _POSITIONS_AT_A_TIME)
            total += _nats(tables, words[place], contexts[place], np.array(chosen))
    with np.errstate(invalid="ignore"):
        return MarkovScore(total / np.log(2) / n_targets if n_targets else total * np.nan, chosen, n_targets)


def score_blocks(
    tables: list[Int[np.ndarray, "_ 4"]],
    blocks: Iterable[UInt8[np.ndarray, "windows length"]],
    strengths: tuple[float, ...] = STRENGTHS,
) -> MarkovScore:
    """As `score`, of windows that come some at a time."""
    total, n_targets = np.zeros((len(tables), len(strengths))), 0
    for ids in blocks:
        part = score(tables, ids, strengths)
        if part.n_targets:
            total += part.bits * part.n_targets
            n_targets += part.n_targets
    return MarkovScore(total / max(1, n_targets), strengths, n_targets)


def _nats(
    tables: list[Int[np.ndarray, "_ 4"]],
    words: Int[np.ndarray, " n"],
    contexts: Int[np.ndarray, " n"],
    strengths: Float64[np.ndarray, " strengths"],
) -> Float64[np.ndarray, "orders strengths"]:
    total = np.zeros((len(tables), len(strengths)))
    probability = np.full((len(strengths), len(words)), 0.25)
    logs = np.zeros_like(probability)
    for order, table in enumerate(tables):
        has = contexts >= order
        word = words[has] & (4 ** (order + 1) - 1)
        seen = table[word >> 2]
        hits = np.take_along_axis(seen, (word & 3)[:, None], axis=1)[:, 0]
        mixed = (hits + strengths[:, None] * probability[:, has]) / (seen.sum(axis=1) + strengths[:, None])
        probability[:, has] = mixed
        logs[:, has] = np.log(mixed)
        total[order] = -logs.sum(axis=1)
    return total


def _blocks(ids: UInt8[np.ndarray, "windows length"]) -> Iterable[UInt8[np.ndarray, "rows length"]]:
    rows = max(1, _POSITIONS_AT_A_TIME // max(1, ids.shape[1]))
    for start in range(0, len(ids), rows):
        yield ids[start : start + rows]


def _words(
    ids: UInt8[np.ndarray, "windows length"], max_order: int
) -> tuple[Int[np.ndarray, "windows length"], Int[np.ndarray, "windows length"]]:
    """The word that ends at each position, in base four, and the length of its context (-1 where there is no base)."""
    base = ids.astype(np.int32) - tokens.FIRST_BASE
    known = (base >= 0) & (base < 4)
    base[~known] = 0
    words = base.copy()
    for back in range(1, min(max_order, ids.shape[1] - 1) + 1):
        words[:, back:] |= base[:, :-back] << (2 * back)
    position = np.arange(ids.shape[1], dtype=np.int32)
    last_unknown = np.maximum.accumulate(np.where(known, np.int32(-1), position), axis=1)
    contexts = np.minimum(position - last_unknown - 1, np.int32(max_order))
    return words, contexts
