"""What a model has read in training, kept beside its weights, so that a test can be told from a memory.

Of a genome it is the file's fingerprint and the stretches that were open to training; of separate sequences, hashes of
them or of an even sample. What carries neither is unknown, and is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from mamba_data_prep.genomes.alphabet import reverse_complement
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.splits import covered, merged, union
from mamba_data_prep.genomes.windows import WindowTable

_MOST_HASHES = 4096
_WHOLE = 1 << 64
_FOLDED = np.full(256, ord("N"), np.uint8)
_FOLDED[np.frombuffer(b"ACGT", np.uint8)] = np.frombuffer(b"ACGT", np.uint8)


@dataclass(frozen=True)
class Overlap:
    """How much of some windows or sequences was read before.

    Attributes:
        windows: that were compared.
        read_windows: of which some base was read.
        bases: of the windows.
        read_bases: that were read.
    """

    windows: int = 0
    read_windows: int = 0
    bases: int = 0
    read_bases: int = 0

    def __add__(self, other: Overlap) -> Overlap:
        """Both together."""
        return Overlap(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def __str__(self) -> str:
        """`43 of 45 windows (96% of their bases)`."""
        share = self.read_bases / max(self.bases, 1)
        return f"{self.read_windows:,} of {self.windows:,} windows ({share:.0%} of their bases)"

    def _values(self) -> tuple[int, int, int, int]:
        return self.windows, self.read_windows, self.bases, self.read_bases

    def to_dict(self) -> dict[str, int]:
        """Gives plain values for JSON."""
        return dict(zip(("windows", "read_windows", "bases", "read_bases"), self._values(), strict=True))


@dataclass(frozen=True, eq=False)
class RegionsRead:
    """Stretches of one genome that were open to training.

    Attributes:
        file: the genome's name, for people.
        xxh3_128: the hash of the file's bytes, by which it is known again.
        regions: for each record's name its stretches, int64 (n, 2), 0-based half-open, ascending and apart.
    """

    file: str
    xxh3_128: str
    regions: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, genome: Genome, windows: WindowTable) -> RegionsRead:
        """The stretches that some windows of a genome cover."""
        covered = union(windows)
        regions = {}
        for number in np.unique(covered.record):
            own = covered.record == number
            regions[genome.records[int(number)].name] = np.stack([covered.start[own], covered.end[own]], axis=1)
        return cls(genome.path.name, genome.fingerprint.xxh3_128, regions)

    def overlap(self, record: str, start: np.ndarray, end: np.ndarray) -> Overlap:
        """How much of some windows of one record was read.

        Args:
            record: its name.
            start, end: int64 (n,), 0-based half-open.
        """
        stretches = self.regions.get(record, np.zeros((0, 2), np.int64))
        read = covered(stretches, end) - covered(stretches, start)
        return Overlap(len(start), int((read > 0).sum()), int((end - start).sum()), int(read.sum()))

    def overlap_of(self, genome: Genome, windows: WindowTable) -> Overlap:
        """How much of some windows of this genome was read."""
        parts = [(genome.records[int(one)].name, windows.record == one) for one in np.unique(windows.record)]
        return sum((self.overlap(name, windows.start[own], windows.end[own]) for name, own in parts), Overlap())

    def __or__(self, other: RegionsRead) -> RegionsRead:
        """What either of two has read of the same genome."""
        regions = dict(self.regions)
        for name, rows in other.regions.items():
            both = np.concatenate([regions.get(name, rows[:0]), rows])
            regions[name] = np.stack(merged(both[:, 0], both[:, 1]), axis=1)
        return RegionsRead(self.file, self.xxh3_128, regions)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        regions = {name: rows.tolist() for name, rows in self.regions.items()}
        return {"file": self.file, "xxh3_128": self.xxh3_128, "regions": regions}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RegionsRead:
        """Reads what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        regions = {str(k): np.asarray(rows, np.int64).reshape(-1, 2) for k, rows in values["regions"].items()}
        return cls(str(values["file"]), str(values["xxh3_128"]), regions)


@dataclass(frozen=True, eq=False)
class SequencesRead:
    """Separate sequences that were trained on: hashes of all of them, or of those whose hash lies below a limit.

    Attributes:
        limit: hashes below it are kept, from 1 to 2^64.
        hashes: those kept, ascending uint64.
    """

    limit: int
    hashes: np.ndarray

    @classmethod
    def of(cls, sequences: Iterable[np.ndarray]) -> SequencesRead:
        """Keeps at most 4,096 hashes, an even sample where there are more sequences."""
        found = np.unique(_hashes(sequences))
        limit = _WHOLE if len(found) <= _MOST_HASHES else int(found[_MOST_HASHES])
        return cls(limit, found[:_MOST_HASHES])

    def overlap(self, sequences: Sequence[np.ndarray]) -> Overlap:
        """How many of some sequences were trained on, on either strand, among those that can be told."""
        found = _hashes(sequences)
        told = np.array([int(one) < self.limit for one in found], dtype=np.bool_)
        lengths = np.array([len(one) for one in sequences], np.int64)[told]
        known = np.isin(found[told], self.hashes)
        return Overlap(int(told.sum()), int(known.sum()), int(lengths.sum()), int(lengths[known].sum()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; hashes as hexadecimal words, which every reader keeps exactly."""
        return {"limit": f"{self.limit:x}", "hashes": [f"{int(one):x}" for one in self.hashes]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SequencesRead:
        """Reads what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(int(values["limit"], 16), np.array([int(one, 16) for one in values["hashes"]], np.uint64))


def _hashes(sequences: Iterable[np.ndarray]) -> np.ndarray:
    """A hash of each sequence, upper-case ASCII, the same for both strands and for all unknown bases; uint64 (n,)."""
    folded = (_FOLDED[bases] for bases in sequences)
    both = ((bases.tobytes(), reverse_complement(bases).tobytes()) for bases in folded)
    return np.array([xxhash.xxh3_64_intdigest(min(pair)) for pair in both], np.uint64)
