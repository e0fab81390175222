"""Cutting genomes into train, valid and test sections at the same fractional positions of every genome.

Records are laid end to end and measured from 0 to 1. Aligned genomes given as several classes (the same chromosome of
related species) thereby hold each locus in the same section, up to the drift of their coordinates, and a gap at every
border, at least one window and 0.2 % of the genome wide, keeps loci that drifted across it out of both sides.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genomamba.classifier.examples import SPLITS
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.alphabet import reverse_complement
from mamba_data_prep.genomes.genome import Genome

GAP_FRACTION = 0.002
MAX_STRIPES = 8
_WINDOWS_A_STRIPE = 16


@dataclass(frozen=True)
class Section:
    """A piece of one record (0-based half-open) that belongs to one split."""

    split: str
    record: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Stretches:
    """Stretches of several genomes, read when they are asked for.

    Attributes:
        genome: int64 index into `genomes` of each stretch.
        record, start, end: its place, 0-based half-open.
        minus: whether it is read from the minus strand.
    """

    genomes: tuple[Genome, ...]
    genome: np.ndarray
    record: np.ndarray
    start: np.ndarray
    end: np.ndarray
    minus: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def fetch(self, index: int) -> np.ndarray:
        """Stretch `index` as uint8 ASCII, in its own direction."""
        genome = self.genomes[int(self.genome[index])]
        bases = genome.fetch(int(self.record[index]), int(self.start[index]), int(self.end[index]))
        return reverse_complement(bases) if self.minus[index] else bases

    def lengths(self) -> np.ndarray:
        """Length in bases of each stretch."""
        return self.end - self.start


def cut_sections(
    lengths: Sequence[int],
    window: int,
    valid_fraction: float,
    test_fraction: float,
    *,
    gap: int | None = None,
    smaller: str = "--set data.window=N",
) -> tuple[Section, ...]:
    """Cuts a genome of records with these lengths.

    The pattern train, valid, test is repeated up to `MAX_STRIPES` times along the genome, so that no split is a single
    place, yet only as often as leaves about 16 windows in each held-out stripe.

    Args:
        lengths: bases of each record.
        window: bases of a window; no gap is narrower.
        valid_fraction: share of the genome held out for choices.
        test_fraction: share of the genome held out for the report.
        gap: bases left out at each border; the larger of a window and 0.2 % of the genome by default.
        smaller: by which setting the user makes the window smaller, for the message.

    Raises:
        UserError: a split would hold no whole window.
    """
    total = int(sum(lengths))
    gap = max(window, round(GAP_FRACTION * total)) if gap is None else max(window, gap)
    stripes = int(np.clip(total * min(valid_fraction, test_fraction) / (_WINDOWS_A_STRIPE * window), 1, MAX_STRIPES))
    shares = (1 - valid_fraction - test_fraction, valid_fraction, test_fraction)
    edges = np.concatenate([[0.0], np.cumsum(np.tile(shares, stripes) / stripes)])
    edges = np.round(edges / edges[-1] * total).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sections = []
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        low = low + gap // 2 if i > 0 else low
        high = high - (gap - gap // 2) if i < len(edges) - 2 else high
        for record in range(len(lengths)):
            start, end = max(low, starts[record]), min(high, starts[record + 1])
            if end - start >= window:
                offset = starts[record]
                sections.append(Section(SPLITS[i % 3], record, int(start - offset), int(end - offset)))
    for split in SPLITS:
        if not any(section.split == split for section in sections):
            raise UserError(
                f"no whole window is left for the {split} split",
                found=f"{total:,} bases in {len(lengths):,} records, window {window:,}, gap {gap:,}",
                accepted="a genome of at least some 50 windows",
                fix=f"take a smaller window ({smaller}), hold out more (--set data.valid_fraction=0.2 "
                "--set data.test_fraction=0.2) or give more sequence",
            )
    return tuple(sections)
