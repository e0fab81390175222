"""Compiled loops of the table of contexts: looking words up in counts, with and without a window's own."""

from __future__ import annotations

import math

import numpy as np

from mamba_kernels.cpu.numba_runtime import kernel


@kernel
def nearest(roots: np.ndarray, book: np.ndarray, codes: np.ndarray) -> None:
    """The codeword nearest to each distribution, by the distance of square roots (Hellinger's).

    Args:
        roots: float32 (n, 4), square roots of probabilities.
        book: float32 (words, 4), the same of the codewords.
        codes: uint8 (n,), written.
    """
    for row in range(roots.shape[0]):
        codes[row] = _nearest(roots[row, 0], roots[row, 1], roots[row, 2], roots[row, 3], book)


@kernel
def long_words(
    ids: np.ndarray, first_base: int, order: int, other_strand: bool, bits: int, wanted: int, words: np.ndarray
) -> int:
    """Collect the words of `order` bases and the base that follows, of those contexts that begin in a given way.

    Args:
        ids: uint8 (windows, length) of token ids; A, C, G and T follow one another from `first_base` on.
        first_base: the id of A.
        order: bases of the context.
        other_strand: read each window's reverse complement.
        bits: how many of the context's highest bits are compared with `wanted`.
        wanted: their value.
        words: uint64, written from the start on.

    Returns:
        The number of words.
    """
    mask = (np.uint64(1) << np.uint64(2 * (order + 1))) - np.uint64(1)
    shift = np.uint64(2 * (order + 1) - bits)
    n = 0
    length = ids.shape[1]
    for window in range(ids.shape[0]):
        word, run = np.uint64(0), 0
        for place in range(length):
            base = np.int64(ids[window, length - 1 - place if other_strand else place]) - first_base
            if base < 0 or base > 3:
                run = 0
                continue
            if other_strand:
                base = 3 - base
            word = ((word << np.uint64(2)) | np.uint64(base)) & mask
            run += 1
            if run > order and (bits == 0 or word >> shift == np.uint64(wanted)):
                words[n] = word
                n += 1
    return n


@kernel
def codes_without_own(
    own: np.ndarray,
    read: np.ndarray,
    first_base: int,
    held: np.ndarray,
    counts: np.ndarray,
    starts: np.ndarray,
    strength: float,
    book: np.ndarray,
    long_order: int,
    long_keys: np.ndarray,
    long_counts: np.ndarray,
    long_strength: float,
    long_least: int,
    long_book: np.ndarray,
    short_codes: np.ndarray,
    long_codes: np.ndarray,
) -> None:
    """The codewords at each base of sequences, from all counts but those of the window that each was made from.

    Args:
        own: uint8 (windows, length) of token ids, each window of which was counted once on both strands.
        read: uint8 (windows, length), the sequences that are looked up: a window itself, what is left of it where bases
            are hidden, or the other strand of that.
        first_base: the id of A.
        held: int64, the context lengths that the table holds, rising, 0 the first.
        counts: int64, n(context, base) of all orders up to the last of `held`; given back as they were.
        starts: int64, where the counts of each order begin.
        strength: m of the interpolation.
        book: float32 (words, 4), square roots of the codewords.
        long_order: bases of the long contexts.
        long_keys: int64, rising, the long contexts that are held.
        long_counts: int64 (n, 4); given back as they were.
        long_strength: m of the interpolation with the short distribution.
        long_least: fewer counts than these in other windows are no context.
        long_book: float32 (words, 4), square roots of the long codewords.
        short_codes: int64 (windows, length), written.
        long_codes: int64 (windows, length), written; -1 where no long context is held.
    """
    for window in range(own.shape[0]):
        _count(own[window], first_base, -1, held[-1], counts, starts, long_order, long_keys, long_counts)
        _codes(
            read[window], first_base, held, counts, starts, strength, book, long_order, long_keys, long_counts,
            long_strength, long_least, long_book, short_codes[window], long_codes[window],
        )  # fmt: skip
        _count(own[window], first_base, 1, held[-1], counts, starts, long_order, long_keys, long_counts)


@kernel
def _count(
    ids: np.ndarray,
    first_base: int,
    step: int,
    order: int,
    counts: np.ndarray,
    starts: np.ndarray,
    long_order: int,
    long_keys: np.ndarray,
    long_counts: np.ndarray,
) -> None:
    """Add `step` for each word of a window, on both strands, in the counts of all orders and of the long contexts."""
    length = ids.shape[0]
    mask = (np.int64(1) << 2 * long_order) - 1
    for strand in range(2):
        context, run = np.int64(0), 0
        for place in range(length):
            base = np.int64(ids[length - 1 - place if strand else place]) - first_base
            if base < 0 or base > 3:
                context, run = np.int64(0), 0
                continue
            if strand:
                base = 3 - base
            for shorter in range(min(run, order) + 1):
                within = context & ((np.int64(1) << 2 * shorter) - 1)
                counts[starts[shorter] + 4 * within + base] += step
            if run >= long_order:
                found = _find(long_keys, context)
                if found >= 0:
                    long_counts[found, base] += step
            context = ((context << 2) | base) & mask
            run += 1


@kernel
def _codes(
    ids: np.ndarray,
    first_base: int,
    held: np.ndarray,
    counts: np.ndarray,
    starts: np.ndarray,
    strength: float,
    book: np.ndarray,
    long_order: int,
    long_keys: np.ndarray,
    long_counts: np.ndarray,
    long_strength: float,
    long_least: int,
    long_book: np.ndarray,
    short_codes: np.ndarray,
    long_codes: np.ndarray,
) -> None:
    mask = (np.int64(1) << 2 * long_order) - 1
    context, run = np.int64(0), 0
    mixed = np.empty(4, np.float64)
    for place in range(ids.shape[0]):
        base = np.int64(ids[place]) - first_base
        if base < 0 or base > 3:
            context, run = np.int64(0), 0
        else:
            context = ((context << 2) | base) & mask
            run += 1
        longest = np.int64(0)
        for order in held:
            if order <= run:
                longest = order
        mixed[:] = 0.25
        for order in range(longest + 1):
            at = starts[order] + 4 * (context & ((np.int64(1) << 2 * order) - 1))
            _mix(counts[at : at + 4], strength, mixed)
        short_codes[place] = _nearest(
            math.sqrt(mixed[0]), math.sqrt(mixed[1]), math.sqrt(mixed[2]), math.sqrt(mixed[3]), book
        )
        long_codes[place] = -1
        if run >= long_order:
            found = _find(long_keys, context)
            if found >= 0 and long_counts[found].sum() >= long_least:
                _mix(long_counts[found], long_strength, mixed)
                long_codes[place] = _nearest(
                    math.sqrt(mixed[0]), math.sqrt(mixed[1]), math.sqrt(mixed[2]), math.sqrt(mixed[3]), long_book
                )


@kernel
def _mix(seen: np.ndarray, strength: float, mixed: np.ndarray) -> None:
    """The distribution after a context, from its counts and, with weight `strength`, from the shorter context's."""
    total = seen[0] + seen[1] + seen[2] + seen[3] + strength
    for base in range(4):
        mixed[base] = (seen[base] + strength * mixed[base]) / total


@kernel
def _nearest(a: float, c: float, g: float, t: float, book: np.ndarray) -> int:
    best, least = 0, np.float64(np.inf)
    for word in range(book.shape[0]):
        distance = (
            (a - book[word, 0]) ** 2 + (c - book[word, 1]) ** 2 + (g - book[word, 2]) ** 2 + (t - book[word, 3]) ** 2
        )
        if distance < least:
            best, least = word, distance
    return best


@kernel
def _find(keys: np.ndarray, key: int) -> int:
    """The place of a key among rising ones, or -1."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < len(keys) and keys[low] == key else -1
