"""Single regions of a genome, named as samtools names them, read by pyfaidx.

pyfaidx believes any `.fai` that is newer than its FASTA file, whatever the file holds by now. Here it is given an index
that was made from the very bytes of the file: `Genome.open` makes it, kept by the file's content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import alphabet
from mamba_data_prep.genomes.fasta import PIECE, FastaPiece
from mamba_data_prep.genomes.genome import Genome

_PLACE = re.compile(r"(?P<name>.+):(?P<first>[\d,]+)(?:-(?P<last>[\d,]+))?")


class Region(NamedTuple):
    """A stretch of a record: its name, and its bases from `start` to `end`, 0-based half-open."""

    record: str
    start: int
    end: int

    def __str__(self) -> str:
        """The region as samtools writes it: 1-based, both ends inside."""
        return f"{self.record}:{self.start + 1}-{self.end}"


def parse_region(text: str, genome: Genome) -> Region:
    """Tells what `NAME`, `NAME:FIRST` or `NAME:FIRST-LAST` means in a genome.

    Args:
        text: 1-based with both ends inside, thousands separated by commas or not; without LAST, to the record's end.
        genome: where the record is looked up, with or without `chr` in front.

    Raises:
        UserError: there is no such record, or the region doesn't lie inside it.
    """
    number = genome.find(text)
    if number is not None:
        return Region(genome.records[number].name, 0, genome.records[number].length)
    place = _PLACE.fullmatch(text)
    number = None if place is None else genome.find(place["name"])
    if place is None or number is None:
        accepted = f"NAME or NAME:FIRST-LAST, of the records {genome.some_names()}"
        raise UserError("this region names no record of the file", path=genome.path, found=text, accepted=accepted)
    name, length = genome.records[number]
    first = int(place["first"].replace(",", "") or 0)
    last = int((place["last"] or str(length)).replace(",", "") or 0)
    if not 1 <= first <= last <= length:
        accepted = f"1 <= FIRST <= LAST <= {length:,}"
        problem = "this region doesn't lie inside its record"
        raise UserError(problem, path=genome.path, record=name, found=text, accepted=accepted)
    return Region(name, first - 1, last)


def stream_regions(genome: Genome, regions: Sequence[Region], piece: int = PIECE) -> Iterator[FastaPiece]:
    """Gives the bases of regions, in the order given, as records named `NAME:FIRST-LAST`.

    Args:
        genome: an open genome.
        regions: stretches of its records.
        piece: bases in a piece; only a region's last piece may be shorter.

    Raises:
        UserError: the file changed after it was opened.
    """
    import pyfaidx

    with pyfaidx.Faidx(str(genome.bases), indexname=str(genome.index_for_samtools()), rebuild=False) as reader:
        for index, region in enumerate(regions):
            for start in range(region.start, region.end, piece):
                end = min(start + piece, region.end)
                try:
                    text = str(reader.fetch(region.record, start + 1, end)).encode("latin-1")
                except pyfaidx.FetchError as error:
                    raise _changed(genome.path) from error
                bases = text.translate(alphabet.UPPER)
                if len(bases) != end - start or alphabet.INVALID in bases:
                    raise _changed(genome.path)
                if genome.has_been_replaced() or genome.has_changed():
                    raise _changed(genome.path)
                sequence = np.frombuffer(bases, dtype=np.uint8)
                yield FastaPiece(str(region), "", index, start - region.start, sequence, end == region.end, 1)


def _changed(path: Path) -> UserError:
    fix = "leave it as it is while it is in use; run again"
    return UserError("this file changed after it was opened", path=path, fix=fix)
