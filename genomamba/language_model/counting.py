"""Counting a training set for the table of contexts, and leaving each window's own words out while training on it.

Short contexts, up to `HIGHEST_COUNTED` bases, are all held; their distributions are those of the interpolated Markov
model (`genomamba.language_model.markov`), its order and strength chosen on validation windows. Of the contexts of
`LONG_ORDER` bases those are held that would save most bits: with counts n(b) and the short distribution p(b),

    saved = sum_b n(b) log2( ((n(b) - 1 + m p(b)) / (n - 1 + m)) / p(b) ),

each occurrence being foretold from all the others.

A model that is trained on windows whose words were counted would learn to trust counts too much: every word it meets
has been seen at least once, here. So training looks a window up in the counts of all other windows.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

from genomamba import tokens
from genomamba.config import HIGHEST_COUNTED, CountsConfig, TableShape
from genomamba.language_model.context_table import CODEWORDS, LONG_ORDER, Codes, ContextTable
from genomamba.language_model.data import GenomeWindows
from genomamba.language_model.markov import MarkovCounts, MarkovScore, interpolated, mixed, score_blocks
from genomamba.language_model.sided_table import SidedCodes
from genomamba.language_model.table_kernels import codes_without_own, long_words, nearest
from mamba_data_prep.genomes.windows import WindowTable

LONG_STRENGTH: Final = 3.0
"""m of the interpolation of a long context with its short one."""
LONG_LEAST: Final = 2
"""A long context that occurs less often in other windows is not looked up."""
_LEAST_COUNTED: Final = 3
_WORDS_AT_A_TIME: Final = 1 << 25
_LONG_FROM_BASES: Final = 1 << 28
_SAMPLE: Final = 50_000


@dataclass(frozen=True)
class WindowCounts:
    """The counts behind a table, kept while a model trains.

    Attributes:
        shape: of the table.
        strength: m of the interpolation of the short contexts.
        n_bases: bases counted, both strands.
        tables: n(c, b) of each order up to `shape.order`, row c in base four with the oldest base first.
        long_keys: (long,) the long contexts in base four, rising.
        long_counts: (long, 4).
    """

    shape: TableShape
    strength: float
    n_bases: int
    tables: list[Int[np.ndarray, "_ 4"]]
    long_keys: Int64[np.ndarray, " long"]
    long_counts: Int64[np.ndarray, "long 4"]

    def fill(self, table: ContextTable[Any, Any]) -> None:
        """Writes the distributions into a table, each as the nearest of 256 codewords fitted to them."""
        short = interpolated(self.tables, self.strength)
        held = [short[order] for order in self.shape.held_orders]
        seen = [self.tables[order].sum(axis=1) for order in self.shape.held_orders]
        codes, book = _coded(np.concatenate(held), np.concatenate(seen))
        before = short[-1][self.long_keys & (4**self.shape.order - 1)]
        long = mixed(self.long_counts, LONG_STRENGTH, before)
        long_codes, long_book = _coded(long, self.long_counts.sum(axis=1))
        table.fill(*(torch.from_numpy(part) for part in (codes, book, self.long_keys, long_codes, long_book)))


class OwnLeftOut:
    """Looks training windows up in the counts of all windows but themselves.

    Args:
        counts: of windows that do not overlap, each counted once on both strands.
        table: whose codewords are used.
    """

    def __init__(self, counts: WindowCounts, table: ContextTable[Any, Any]) -> None:
        flat = [part.ravel() for part in counts.tables]
        self._starts = np.cumsum([0, *(len(part) for part in flat[:-1])], dtype=np.int64)
        self._counts = np.concatenate(flat).astype(np.int64)
        self._long_counts = counts.long_counts.copy()
        self._held = np.array(counts.shape.held_orders, dtype=np.int64)
        self._known, self._table = counts, table

    def __call__(self, windows: Tensor, read: Tensor) -> Codes | SidedCodes:
        """The codewords at each position of what is read of whole training windows.

        Args:
            windows: (B, L) token ids of training windows, on either strand.
            read: (B, L) what a network reads of them: some bases may be hidden or replaced.
        """
        own = windows.cpu().numpy().astype(np.uint8)

        def find(ids: Tensor) -> tuple[Tensor, Tensor]:
            return self._find(own, ids)

        return self._table.lookup(read, find)

    def _find(self, own: UInt8[np.ndarray, "B L"], ids: Tensor) -> tuple[Tensor, Tensor]:
        short = np.empty(ids.shape, np.int64)
        long = np.empty_like(short)
        books = [book.detach().cpu().exp().sqrt().numpy() for book in (self._table.codebook, self._table.long_codebook)]
        codes_without_own(
            own, ids.cpu().numpy().astype(np.uint8), tokens.FIRST_BASE, self._held, self._counts, self._starts,
            self._known.strength, books[0], LONG_ORDER, self._known.long_keys, self._long_counts, LONG_STRENGTH,
            LONG_LEAST, books[1], short, long,
        )  # fmt: skip
        return torch.from_numpy(short).to(ids.device), torch.from_numpy(long).to(ids.device)


def count_windows(config: CountsConfig | None, train: GenomeWindows, valid: GenomeWindows) -> WindowCounts | None:
    """Counts the training windows on both strands and chooses what a table of them holds.

    Args:
        config: how long the contexts may be, and how many long ones are held; None for no counts.
        train: the training windows, read from the strand of the file.
        valid: windows that choose order and strength.

    Returns:
        The counts, or None where none are asked for.
    """
    if config is None:
        return None
    highest = HIGHEST_COUNTED if config.order == "auto" else config.order
    if config.order == "auto":
        highest = min(highest, math.ceil(math.log(max(4, 2 * train.windows.bases), 4)))
    counts = MarkovCounts(highest)
    for ids in train.blocks():
        counts.add(ids, both_strands=True)
    tables = counts.tables()
    order, strength = _best(score_blocks(tables, valid.blocks()), None if config.order == "auto" else highest)
    tables = [part.astype(np.int64) for part in tables[: order + 1]]
    keys, long = _long_contexts(train, interpolated(tables, strength)[-1], config.long_contexts)
    shape = TableShape(order=order, long_contexts=len(keys))
    return WindowCounts(shape, strength, counts.n_bases, tables, keys, long)


def _best(scored: MarkovScore, order: int | None) -> tuple[int, float]:
    """Order and strength that cost least on the windows scored, the order free or given."""
    return scored.best[:2] if order is None else scored.by_order()[order][:2]


def _long_contexts(
    train: GenomeWindows, short: Float[np.ndarray, "_ 4"], most: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n 4"]]:
    """The long contexts that save most bits, and their counts.

    Words are sorted in parts that begin with the same bases, so that memory stays small; of a genome above 2^28 bases
    windows spread evenly over it are counted.
    """
    windows = _spread(train.windows, _LONG_FROM_BASES)
    source = GenomeWindows(train.dataset.genome, windows)
    n_words = 2 * windows.bases
    bits = max(0, math.ceil(math.log2(max(1, n_words / _WORDS_AT_A_TIME))))
    keys, counts, gains = np.zeros(0, np.int64), np.zeros((0, 4), np.int64), np.zeros(0)
    for wanted in range(1 << bits if most else 0):
        found = _counted_words(source, bits, wanted, n_words)
        keys, counts = np.concatenate([keys, found[0]]), np.concatenate([counts, found[1]])
        gains = np.concatenate([gains, _saved_bits(found[1], short[found[0] & (len(short) - 1)])])
        best = np.sort(np.argsort(-gains, kind="stable")[:most])
        best = best[gains[best] > 0]
        keys, counts, gains = keys[best], counts[best], gains[best]
    order = np.argsort(keys)
    return keys[order], counts[order]


def _counted_words(
    source: GenomeWindows, bits: int, wanted: int, n_words: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n 4"]]:
    """The long contexts whose highest `bits` are `wanted` and that occur at least three times, with their counts."""
    parts = []
    for ids in source.blocks():
        for other_strand in (False, True):
            words = np.empty(ids.size, np.uint64)
            n = long_words(ids, tokens.FIRST_BASE, LONG_ORDER, other_strand, bits, wanted, words)
            parts.append(words[:n].copy())
    words = np.concatenate(parts) if parts else np.zeros(0, np.uint64)
    del parts
    words.sort()
    context = (words >> np.uint64(2)).astype(np.int64)
    first = np.flatnonzero(np.r_[True, context[1:] != context[:-1]][: len(context)])
    total = np.diff(np.r_[first, len(context)])
    kept = total >= _LEAST_COUNTED
    which = np.repeat(np.where(kept, np.cumsum(kept) - 1, -1), total)
    mine = which >= 0
    counts = np.bincount(4 * which[mine] + (words[mine] & np.uint64(3)).astype(np.int64), minlength=4 * int(kept.sum()))
    return context[first[kept]], counts.reshape(-1, 4)


def _saved_bits(counts: Int64[np.ndarray, "n 4"], short: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    others = counts.sum(axis=1, keepdims=True) - 1
    told = (np.maximum(counts - 1, 0) + LONG_STRENGTH * short) / (others + LONG_STRENGTH)
    return (counts * np.log2(told / short)).sum(axis=1)


def _coded(
    distributions: Float[np.ndarray, "n 4"], seen: Int[np.ndarray, " n"]
) -> tuple[UInt8[np.ndarray, " n"], Float[np.ndarray, "256 4"]]:
    """The nearest codeword of each distribution, and the codewords: means of what they stand for, as often as seen."""
    book = np.full((CODEWORDS, 4), 0.25)
    codes = np.zeros(len(distributions), np.uint8)
    if not len(distributions):
        return codes, book
    roots = np.sqrt(distributions).astype(np.float32)
    weight = seen / max(1, seen.sum()) if seen.sum() else np.full(len(seen), 1 / len(seen))
    rows = np.random.default_rng(0).choice(len(roots), _SAMPLE, p=weight)
    sample = np.unique(roots[rows], axis=0)
    if len(sample) > CODEWORDS:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        fitted = KMeans(
            CODEWORDS,
            init="random",
            n_init=1,  # pyright: ignore[reportArgumentType]
            max_iter=20,
            random_state=0,
        )
        with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):  # fewer codewords are no harm
            sample = fitted.fit(roots[rows]).cluster_centers_
    book[: len(sample)] = sample**2
    nearest(roots, np.sqrt(book).astype(np.float32), codes)
    for base in range(4):
        total = np.bincount(codes, (seen + 1e-9) * distributions[:, base], CODEWORDS)
        book[:, base] = np.where(total > 0, total, book[:, base])
    return codes, book / book.sum(axis=1, keepdims=True)


def _spread(windows: WindowTable, n_bases: int) -> WindowTable:
    n = min(len(windows), max(1, n_bases // windows.window))
    return windows.select(np.linspace(0, len(windows) - 1, n).round().astype(np.int64))
