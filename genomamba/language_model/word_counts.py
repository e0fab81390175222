"""Counting the words of DNA at the speed of memory: one compiled pass over the bases, on either strand."""

from __future__ import annotations

import numpy as np

from mamba_kernels.cpu.numba_runtime import kernel


@kernel
def count_words(
    ids: np.ndarray, first_base: int, max_order: int, counts: np.ndarray, starts: np.ndarray, other_strand: bool
) -> int:
    """Add one for the word that ends at each base, after the longest context that the base has.

    Args:
        ids: uint8 (windows, length) of token ids; A, C, G and T follow one another from `first_base` on.
        first_base: the id of A.
        max_order: bases of the longest context.
        counts: int32; the words of k + 1 bases lie from `starts[k]` on, in base four, the oldest base first.
        starts: int64 (max_order + 1,).
        other_strand: read each window's reverse complement.

    Returns:
        The number of bases counted.
    """
    longest = (np.int64(1) << (2 * (max_order + 1))) - 1
    total = 0
    length = ids.shape[1]
    for window in range(ids.shape[0]):
        word, context = np.int64(0), 0
        for place in range(length):
            base = np.int64(ids[window, length - 1 - place if other_strand else place]) - first_base
            if base < 0 or base > 3:
                word, context = np.int64(0), 0
                continue
            if other_strand:
                base = 3 - base
            word = ((word << 2) | base) & longest
            counts[starts[context] + (word & ((np.int64(1) << (2 * (context + 1))) - 1))] += 1
            context = min(context + 1, max_order)
            total += 1
    return total
