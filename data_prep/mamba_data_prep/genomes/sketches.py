"""Sketches of sequences: a sample of their 16-mers, the same for both strands, by which near copies are found.

Which 16-mers are sampled depends on the 16-mer alone, as in FracMinHash (Irber et al. 2022, bioRxiv 2022.01.11.475838),
so that the share of one sketch that is in another estimates the share of the sequence.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mamba_data_prep.genomes.audit import canonical_kmers
from mamba_data_prep.sampler import mix

K = 16
_SAMPLES = 128
_REPEATED = 1000
"""A 16-mer that is in more sequences than this tells nothing about any of them."""


def sketches(sequences: Iterable[np.ndarray], length: int) -> list[np.ndarray]:
    """Gives the sampled 16-mers of each sequence as ascending distinct uint64 hashes.

    Args:
        sequences: upper-case ASCII bases, uint8 (L,) each.
        length: of a usual sequence in bases, which gets about 128 samples; the same for all that are compared.
    """
    limit = np.uint64(((1 << 64) - 1) // max(1, length // _SAMPLES))
    made = []
    for bases in sequences:
        hashes = np.unique(mix(canonical_kmers(bases, K)))
        made.append(hashes[hashes <= limit])
    return made


def closest(these: list[np.ndarray], among: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Gives for each sketch the largest share of it that a single one of the others holds, and which one that is.

    Returns:
        Shares (n,) from 0 to 1, and indexes (n,) into `among`; 0 and -1 where nothing is shared.
    """
    shares, where = np.zeros(len(these)), np.full(len(these), -1, np.int64)
    nothing = np.zeros(0, np.uint64)
    wanted = np.unique(np.concatenate([nothing, *these]))
    table = np.concatenate([nothing, *among])
    owner = np.repeat(np.arange(len(among)), [len(hashes) for hashes in among])
    if not len(wanted) or not len(table):
        return shares, where
    kept = wanted[np.searchsorted(wanted, table).clip(max=len(wanted) - 1)] == table
    table, owner = table[kept], owner[kept]
    order = np.argsort(table, kind="stable")
    table, owner = table[order], owner[order]
    for number, hashes in enumerate(these):
        first, last = np.searchsorted(table, hashes), np.searchsorted(table, hashes, side="right")
        found = [owner[a:b] for a, b in zip(first, last, strict=True) if 0 < b - a <= _REPEATED]
        if found:
            owners, counts = np.unique(np.concatenate(found), return_counts=True)
            shares[number], where[number] = counts.max() / len(hashes), owners[counts.argmax()]
    return shares, where
