"""Labelled sequences, split: the one value that every fine-tuning task produces and training consumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mamba_data_prep.genomes.alphabet import reverse_complement
from mamba_data_prep.genomes.genome import Genome

SPLITS = ("train", "valid", "test")
LONGEST_WITH_PLACES = 8192
"""Windows beyond so many bases aren't looked at place by place."""
_ALIGNED_SHARE = 0.9
"""Sequences count as aligned when more than this share of them is as long as the window."""


@runtime_checkable
class SequenceSource(Protocol):
    """Anything that gives its i-th sequence as upper-case ASCII bytes."""

    def __len__(self) -> int: ...

    def fetch(self, index: int) -> np.ndarray:
        """Sequence `index` as uint8 ASCII."""
        ...

    def lengths(self) -> np.ndarray:
        """Length in bases of each sequence, int64."""
        ...


@dataclass(frozen=True, eq=False)
class PackedSequences:
    """Sequences held in memory end to end, so that a million of them cost their bases and one offset each.

    Attributes:
        bases: uint8 ASCII of all sequences, joined.
        offsets: int64 of length n + 1; sequence i is `bases[offsets[i]:offsets[i + 1]]`.
    """

    bases: np.ndarray
    offsets: np.ndarray

    @classmethod
    def pack(cls, sequences: list[np.ndarray]) -> PackedSequences:
        """Joins sequences (uint8 ASCII each)."""
        offsets = np.zeros(len(sequences) + 1, np.int64)
        np.cumsum([len(s) for s in sequences], out=offsets[1:])
        return cls(np.concatenate(sequences) if sequences else np.zeros(0, np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def fetch(self, index: int) -> np.ndarray:
        """Sequence `index` as uint8 ASCII."""
        return self.bases[self.offsets[index] : self.offsets[index + 1]]

    def lengths(self) -> np.ndarray:
        """Length in bases of each sequence."""
        return np.diff(self.offsets)


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled sequences of one split.

    Attributes:
        source: where the sequences come from; shared between splits.
        rows: int64 indexes into `source`.
        labels: int64 class index of each row.
    """

    source: SequenceSource
    rows: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, index: int) -> np.ndarray:
        """Example `index` as uint8 ASCII, upper case."""
        return self.source.fetch(int(self.rows[index]))

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.fetch(i) for i in range(len(self)))

    def lengths(self) -> np.ndarray:
        """Length in bases of each example."""
        return self.source.lengths()[self.rows]

    def select(self, chosen: np.ndarray) -> Examples:
        """The examples at these positions (indexes or a mask)."""
        return Examples(self.source, self.rows[chosen], self.labels[chosen])

    def thinned(self, limit: int) -> Examples:
        """At most `limit` examples, taken at even distances, so that every class and region stays represented."""
        if len(self) <= limit:
            return self
        return self.select(np.linspace(0, len(self) - 1, limit).round().astype(np.int64))


@dataclass(frozen=True, eq=False)
class LabelledData:
    """What a task hands to training.

    Attributes:
        classes: names, in the order of the label indexes.
        train, valid, test: disjoint examples.
        window: longest sequence, bases.
        stranded: True when the strand carries meaning, so reverse complements must not be mixed in.
        description: how the data was made and split, for the report and the model card.
        warnings: sentences a person should read (duplicates dropped, classes missing from a split).
        genomes: indexed files the examples are cut from, if they are; the report names their fingerprints.
    """

    classes: tuple[str, ...]
    train: Examples
    valid: Examples
    test: Examples
    window: int
    stranded: bool
    description: dict[str, object]
    warnings: tuple[str, ...] = ()
    genomes: tuple[Genome, ...] = ()

    @property
    def aligned(self) -> bool:
        """Whether places may matter: strand carries meaning, and nearly all sequences are as long as the window."""
        whole = float((self.train.lengths() == self.window).mean())
        return self.stranded and self.window <= LONGEST_WITH_PLACES and whole > _ALIGNED_SHARE

    def splits(self) -> dict[str, Examples]:
        """The three splits by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def counts(self) -> dict[str, dict[str, int]]:
        """Examples of each class in each split."""
        return {
            split: dict(zip(self.classes, np.bincount(e.labels, minlength=len(self.classes)).tolist(), strict=True))
            for split, e in self.splits().items()
        }


def canonical(bases: np.ndarray) -> bytes:
    """The alphabetically smaller of a sequence and its reverse complement: the same for both strands."""
    return min(bases.tobytes(), reverse_complement(bases).tobytes())
