"""What of a file is read: all its records in one go, or regions of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genomamba.prediction.stretches import Stretch, record_stretches, region_stretches
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import FastaPiece, stream_fasta
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval, read_bed
from mamba_data_prep.genomes.regions import parse_region

_PIECE = 2**16
"""Bases that are read at a time."""


@dataclass(frozen=True, eq=False)
class Source:
    """A file, and what of it is read.

    Attributes:
        fasta: the file; "-" is standard input.
        genome: the file as a genome where regions of it are read, otherwise None.
        regions: of the genome.
        context: bases to read beside each region.
    """

    fasta: Path
    genome: Genome | None = None
    regions: Sequence[Interval] = ()
    context: int = 0

    @classmethod
    def of(
        cls, fasta: Path, bed: Path | None, regions: Sequence[str], *, context: int = 0, in_order: bool = False
    ) -> Source:
        """Looks regions up.

        Args:
            fasta: the file.
            bed: a file of regions, or None.
            regions: named as samtools names them.
            context: bases to read beside each region.
            in_order: sort the regions as the file's records lie, for a track.

        Raises:
            UserError: a region does not fit the file, or two of a track overlap.
        """
        if bed is None and not regions:
            return cls(fasta)
        genome = Genome.open(fasta)
        found = [parse_region(region, genome) for region in regions] if bed is None else read_bed(bed, genome)
        if in_order:
            found = sorted(found, key=lambda region: (genome.number_of(region.name), region.start))
            _check_apart(found)
        return cls(fasta, genome, found, context)

    @property
    def total(self) -> int | None:
        """Bases to read, where that is known."""
        return None if self.genome is None else sum(len(region) + 2 * self.context for region in self.regions)

    @property
    def lengths(self) -> Mapping[str, int] | None:
        """Bases of each record, where that is known."""
        return None if self.genome is None else {record.name: record.length for record in self.genome.records}

    def stretches(
        self,
        *,
        unique_ids: bool = False,
        on_raw: Callable[[bytes], object] | None = None,
        on_pieces: Callable[[Iterable[FastaPiece]], Iterator[FastaPiece]] = iter,
    ) -> Iterator[Stretch]:
        """What is read, in order.

        Args:
            unique_ids: refuse two records of one id.
            on_raw: called with every piece of a whole file as it lies on the disk.
            on_pieces: lets the pieces of a whole file through, for counting them.

        Raises:
            UserError: the file is refused.
        """
        if self.genome is not None:
            return region_stretches(self.genome, self.regions, self.context)
        return record_stretches(on_pieces(stream_fasta(self.fasta, _PIECE, unique_ids=unique_ids, on_raw=on_raw)))


def _check_apart(regions: Sequence[Interval]) -> None:
    for one, other in itertools.pairwise(regions):
        if one.name == other.name and other.start < one.end:
            raise UserError(
                "two regions overlap, and a track has one value a base", path=other.path, line=other.line,
                record=other.name, found=f"{one.start}-{one.end}, {other.start}-{other.end}",
                fix="merge them (bedtools merge), or write a .tsv",
            )  # fmt: skip
