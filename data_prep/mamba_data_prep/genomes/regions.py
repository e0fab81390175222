"""Single regions of a genome, named as samtools and bedtools name them, read by pyfaidx.

pyfaidx believes any `.fai` that is newer than its FASTA file, whatever the file holds by now. Here it is given an index
that was made from the very bytes of the file: `Genome.open` makes it, kept by the file's content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import alphabet
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval

_PLACE = re.compile(r"(?P<name>.+):(?P<first>[\d,]+)(?:-(?P<last>[\d,]+))?")
_STRAND = re.compile(r"(?P<place>.+?)(?::(?P<behind>[+-])|\((?P<within>[+-])\)|/(?P<reversed>rc))")

Fetch = Callable[[str, int, int], np.ndarray]
"""(record, start, end), 0-based half-open, to upper-case ASCII, uint8 (end - start,), of the plus strand."""


def parse_region(text: str, genome: Genome) -> Interval:
    """Tells what `NAME`, `NAME:FIRST` or `NAME:FIRST-LAST` means in a genome, and on which strand.

    Args:
        text: 1-based with both ends inside, thousands separated by commas or not; without LAST, to the record's end.
            The strand, if any, follows as `:-`, as `(-)` or, as samtools writes the minus strand, as `/rc`.
        genome: where the record is looked up, with or without `chr` in front.

    Raises:
        UserError: there is no such record, or the region doesn't lie inside it.
    """
    found = _place(text, genome)
    strand = "."
    if found is None and (written := _STRAND.fullmatch(text)):
        found = _place(written["place"], genome)
        strand = "-" if written["reversed"] else written["behind"] or written["within"]
    if found is None:
        accepted = f"NAME or NAME:FIRST-LAST, also with a strand (NAME:FIRST-LAST:-), of {genome.some_names()}"
        raise UserError("this region names no record of the file", path=genome.path, found=text, accepted=accepted)
    number, first, last = found
    name, length = genome.records[number]
    if not 1 <= first <= last <= length:
        accepted = f"1 <= FIRST <= LAST <= {length:,}"
        problem = "this region doesn't lie inside its record"
        raise UserError(problem, path=genome.path, record=name, found=text, accepted=accepted)
    return Interval(name, first - 1, last, strand)


def _place(text: str, genome: Genome) -> tuple[int, int, int] | None:
    """Number of the record, and the first and last base that are named, from 1; None where no record has this name."""
    number = genome.find(text)
    if number is not None:
        return number, 1, genome.records[number].length
    place = _PLACE.fullmatch(text)
    number = None if place is None else genome.find(place["name"])
    if place is None or number is None:
        return None
    last = place["last"] or str(genome.records[number].length)
    return number, int(place["first"].replace(",", "") or 0), int(last.replace(",", "") or 0)


@contextmanager
def region_reader(genome: Genome) -> Iterator[Fetch]:
    """Gives what reads regions of a genome, by pyfaidx where its bases lie in text; it closes with the block.

    What it gives raises a `UserError` where the file changed after it was opened.
    """
    if genome.packed:
        yield genome.fetch
        return
    import pyfaidx

    with pyfaidx.Faidx(str(genome.bases), indexname=str(genome.index_for_samtools()), rebuild=False) as reader:

        def fetch(record: str, start: int, end: int) -> np.ndarray:
            try:
                text = str(reader.fetch(record, start + 1, end)).encode("latin-1") if end > start else b""
            except pyfaidx.FetchError as error:
                raise _changed(genome.path) from error
            bases = text.translate(alphabet.UPPER)
            wrong = len(bases) != end - start or alphabet.INVALID in bases
            if wrong or genome.has_been_replaced() or genome.has_changed():
                raise _changed(genome.path)
            return np.frombuffer(bases, dtype=np.uint8)

        yield fetch


def _changed(path: Path) -> UserError:
    fix = "leave it as it is while it is in use; run again"
    return UserError("this file changed after it was opened", path=path, fix=fix)
