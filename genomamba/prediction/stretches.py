"""What is read of a file, one sequence after another: whole records, or regions of them with what lies around.

A sequence is read from either end and in any order, so that a record of a stream waits for its end: in memory, and on
disk where it is long. Nothing here grows with a record.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genomamba import tokens
from mamba_data_prep.genomes.fasta import FastaPiece
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval
from mamba_data_prep.genomes.regions import region_reader

_HELD_IN_MEMORY = 2**24
"""Bases of one record that are held in memory; what is longer waits on disk for its end."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """A sequence to be read: a record, or a region of one with context on either side.

    Attributes:
        record: the record's id.
        start, end: of what is told of, 0-based half-open, base pairs in the record.
        strand: "+", "-", or "." where nothing is known.
        label: the region's name in a BED file, if it has one.
        before: bases of context before `start`.
        after: bases of context behind `end`.
        read: `(first, last)`, 0-based half-open in the sequence with its context, to uint8 token ids. Valid until the
            next stretch is asked for.
    """

    record: str
    start: int
    end: int
    strand: str
    label: str | None
    before: int
    after: int
    read: Callable[[int, int], np.ndarray]

    @property
    def length(self) -> int:
        """Bases of the sequence, context included."""
        return self.before + self.end - self.start + self.after

    @property
    def own(self) -> slice:
        """Where in the sequence the bases lie that are told of."""
        return slice(self.before, self.before + self.end - self.start)


def record_stretches(pieces: Iterable[FastaPiece]) -> Iterator[Stretch]:
    """The records of a stream, each as a whole."""
    with tempfile.SpooledTemporaryFile(max_size=_HELD_IN_MEMORY) as held:
        length = 0

        def read(first: int, last: int) -> np.ndarray:
            held.seek(first)
            return np.frombuffer(held.read(last - first), np.uint8)

        for piece in pieces:
            if piece.offset == 0:
                held.seek(0)
                held.truncate()
                length = 0
            held.write(tokens.encode(piece.sequence).tobytes())
            length += len(piece.sequence)
            if piece.is_last:
                yield Stretch(piece.record, 0, length, ".", None, 0, 0, read)
                held.seek(0)


def region_stretches(genome: Genome, regions: Sequence[Interval], context: int = 0) -> Iterator[Stretch]:
    """Regions of a genome, in the order given.

    Args:
        genome: an open genome.
        regions: of its records, under its own names; see `mamba_data_prep.genomes.intervals.within`.
        context: bases to read beside each region, as far as the record goes.

    Raises:
        UserError: the file changed after it was opened.
    """
    with region_reader(genome) as fetch:
        for region in regions:
            first = max(0, region.start - context)
            last = min(region.end + context, genome.records[genome.number_of(region.name)].length)

            def read(start: int, end: int, name: str = region.name, first: int = first) -> np.ndarray:
                return tokens.encode(fetch(name, first + start, first + end))

            around = region.start - first, last - region.end
            yield Stretch(region.name, region.start, region.end, region.strand, region.label, *around, read)
