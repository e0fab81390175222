"""A proof that a split does not leak: shared bases by interval arithmetic, copies by comparing k-mers of both strands.

Sharing a base is an error. Copies of one stretch at two places are a fact of real genomes (repeats, duplications), so
they are counted and reported: an evaluation window whose sampled 32-mers nearly all occur in training windows was seen
in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.splits import Split, near, union
from mamba_data_prep.genomes.windows import WindowTable
from mamba_data_prep.sampler import mix

K = 32
_SAMPLES = 64
"""k-mers of a window that are compared, about; the others are passed over by a rule that depends on the k-mer alone."""
_CHUNK = 1 << 15
_PAIRS = (("train", "valid"), ("train", "test"), ("valid", "test"))
_CODE = np.full(256, 255, dtype=np.uint8)
_CODE[np.frombuffer(b"ACGT", dtype=np.uint8)] = np.arange(4)


@dataclass(frozen=True)
class Copies:
    """How many windows of one evaluation split occur in training windows, on either strand.

    Attributes:
        compared: windows with at least one 32-mer without N.
        exact: windows of which every sampled 32-mer occurs in training.
        near: windows of which at least `threshold` of them do (exact ones included).
        mean_containment: the mean over windows of the fraction that does.
    """

    compared: int
    exact: int
    near: int
    mean_containment: float


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        shared_windows: for each pair of splits, windows of the second that share a base with the first.
        closest: for each pair, the least distance between their windows in one record, in base pairs; None if no record
            has both.
        overlapping_evaluation: evaluation windows that share a base with another window of their own split.
        copies: for each evaluation split.
        threshold: containment from which a window counts as nearly a copy.
    """

    shared_windows: dict[str, int]
    closest: dict[str, int | None]
    overlapping_evaluation: dict[str, int]
    copies: dict[str, Copies]
    threshold: float

    @property
    def ok(self) -> bool:
        """True if no base is shared by two splits."""
        return not any(self.shared_windows.values())

    def to_dict(self) -> dict[str, Any]:
        """Gives everything as plain values."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        lines = ["No base is shared by two splits." if self.ok else "LEAK: bases are shared by two splits."]
        for pair, count in self.shared_windows.items():
            distance = self.closest[pair]
            apart = "in different records" if distance is None else f"at least {distance:,} bp apart"
            lines.append(f"  {pair}: {f'{count:,} windows share bases' if count else apart}")
        for name, c in self.copies.items():
            part = f"{c.near:,} of {c.compared:,} windows ({c.near / max(1, c.compared):.2%})"
            lines.append(
                f"  {name}: {part} have at least {self.threshold:.0%} of their sequence in training windows too,"
                f" on either strand, {c.exact:,} of them all of it; mean {c.mean_containment:.2%}"
            )
        return "\n".join(lines)


def audit(genome: Genome, split: Split, threshold: float = 0.8) -> AuditReport:
    """Checks a split for shared bases and for copies; reads every window once (about 50 MB of bases a second).

    Args:
        genome: what was split.
        split: the tables to compare.
        threshold: fraction of a window's 32-mers that makes it nearly a copy.
    """
    tables = split.tables()
    shared, closest = {}, {}
    for first, second in _PAIRS:
        shared[f"{first}-{second}"] = int(near(tables[second], [tables[first]]).sum())
        closest[f"{first}-{second}"] = _distance(tables[first], tables[second])
    overlapping = {name: _overlapping(tables[name]) for name in ("valid", "test")}
    copies = _count_copies(genome, split, threshold)
    return AuditReport(shared, closest, overlapping, copies, threshold)


def canonical_kmers(bases: np.ndarray, k: int = K) -> np.ndarray:
    """The k-mers of upper-case ASCII bases (L,) as uint64 (L - k + 1,) or fewer, k a power of two up to 32.

    They are the same for a sequence and its reverse complement: two bits a base, and of each k-mer and its reverse
    complement the smaller number is given; those with unknown bases are left out.
    """
    if len(bases) < k:
        return np.zeros(0, dtype=np.uint64)
    code = _CODE[bases]
    unknown = code == 255
    forward = (code & 3).astype(np.uint64)
    backward = np.uint64(3) - forward
    width = 1
    while width < k:
        shift = np.uint64(2 * width)
        forward = (forward[:-width] << shift) | forward[width:]
        backward = (backward[width:] << shift) | backward[:-width]
        width *= 2
    kmers = np.minimum(forward, backward)
    if unknown.any():
        before = np.concatenate(([0], np.cumsum(unknown)))
        kmers = kmers[before[k:] == before[:-k]]
    return kmers


def _count_copies(genome: Genome, split: Split, threshold: float) -> dict[str, Copies]:
    limit = np.uint64(((1 << 64) - 1) // max(1, split.train.window // _SAMPLES))
    sketches = {
        name: [_sampled(genome, table, i, limit) for i in range(len(table))]
        for name, table in (("valid", split.valid), ("test", split.test))
    }
    wanted = np.unique(np.concatenate([np.zeros(0, np.uint64), *(s for rows in sketches.values() for s in rows)]))
    seen = np.zeros(len(wanted), dtype=bool)
    for kmers in _kmers_of(genome, union(split.train)):
        kmers = mix(kmers)
        kmers = kmers[kmers <= limit]
        if len(wanted):
            place = np.searchsorted(wanted, kmers).clip(max=len(wanted) - 1)
            seen[place[wanted[place] == kmers]] = True
    return {name: _copies(rows, wanted, seen, threshold) for name, rows in sketches.items()}


def _sampled(genome: Genome, table: WindowTable, row: int, limit: np.uint64) -> np.ndarray:
    kmers = np.unique(mix(np.concatenate(list(_kmers_of(genome, table.select(np.array([row])))))))
    below = kmers[kmers <= limit]
    return below if len(below) else kmers[:1]  # a window of few k-mers is not passed over


def _kmers_of(genome: Genome, table: WindowTable) -> Iterator[np.ndarray]:
    rows = zip(table.record.tolist(), table.start.tolist(), table.end.tolist(), strict=True)
    for record, start, end in rows:
        for first in range(start, end, _CHUNK):
            yield canonical_kmers(genome.fetch(record, first, min(end, first + _CHUNK + K - 1)))


def _copies(rows: list[np.ndarray], wanted: np.ndarray, seen: np.ndarray, threshold: float) -> Copies:
    contained = np.array([seen[np.searchsorted(wanted, row)].mean() for row in rows if len(row)])
    mean = float(contained.mean()) if len(contained) else 0.0
    return Copies(len(contained), int((contained == 1).sum()), int((contained >= threshold).sum()), mean)


def _distance(first: WindowTable, second: WindowTable) -> int | None:
    best = None
    for number in np.intersect1d(first.record, second.record).tolist():
        mine, theirs = first.select(first.record == number), second.select(second.record == number)
        starts, ends = np.sort(mine.start), np.maximum.accumulate(mine.end[np.argsort(mine.start, kind="stable")])
        after = np.searchsorted(starts, theirs.end, side="left")
        gaps = [(starts[after[after < len(starts)]] - theirs.end[after < len(starts)])]
        gaps.append(theirs.start[after > 0] - ends[after[after > 0] - 1])
        least = max(0, int(np.concatenate(gaps).min()))
        best = least if best is None else min(best, least)
    return best


def _overlapping(table: WindowTable) -> int:
    if len(table) < 2:
        return 0
    place = np.lexsort((table.start, table.record))
    record, start, end = table.record[place], table.start[place], table.end[place]
    return int(((record[1:] == record[:-1]) & (start[1:] < end[:-1])).sum())
