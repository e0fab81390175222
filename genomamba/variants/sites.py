"""From a record of a VCF file to the sequences that are compared: each allele between the same bases of the genome.

A site is a place in the genome with its alleles. Around it stand `window // 2` bases before and
`window - window // 2 - 1` bases after the reference allele, fewer where the contig ends, so that an SNV's window holds
`window` bases in all; every allele of a record has the same flanks. What cannot be scored has a reason instead.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import UInt8

from genomamba import tokens
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.vcf import VcfHeader, VcfRecord

REASONS: Final = {
    "no_alternative": "the record has no alternative allele",
    "overlapping_deletion": "the allele is *, removed by a deletion further up",
    "symbolic": "the allele is symbolic, such as <DEL>",
    "breakend": "the allele is a breakend",
    "not_dna": "an allele is no sequence of A, C, G and T",
    "same_as_reference": "the allele is the reference",
    "too_long": "an allele is longer than the window",
    "no_contig": "the genome has no contig of this name",
    "off_contig": "the reference allele lies beyond the contig's ends",
    "reference_mismatch": "REF is not what the genome has there",
    "unknown_reference": "the genome is not known there",
    "no_context": "the contig holds nothing but the allele",
}
"""Why an allele is not scored."""
_DNA = re.compile("[ACGTacgt]+")
_OF_EVERY_ALLELE: Final = ("no_contig", "off_contig", "reference_mismatch")
"""Reasons of a record that come before those of single alleles."""
_MOST_MISMATCHES: Final = 5


class Sequences(NamedTuple):
    """Alleles between their flanks, as token ids read from one strand.

    Attributes:
        before: (P,) bases before the alleles.
        after: (Q,) bases after them.
        alleles: the reference first, each of at least one base.
    """

    before: UInt8[np.ndarray, " P"]
    after: UInt8[np.ndarray, " Q"]
    alleles: tuple[UInt8[np.ndarray, " A"], ...]

    def other_strand(self) -> Sequences:
        """The same, read from the other strand."""
        turned = tokens.reverse_complement
        return Sequences(turned(self.after), turned(self.before), tuple(turned(allele) for allele in self.alleles))

    def length(self) -> int:
        """Bases of the longest allele with its flanks."""
        return len(self.before) + len(self.after) + max(map(len, self.alleles))


class Place(NamedTuple):
    """Where an allele is: the genome's number of the contig, 0-based position, and the reference allele."""

    contig: int
    start: int
    reference: str


class Variant(NamedTuple):
    """What is asked of a record.

    Attributes:
        record: as it was read.
        place: where it is in the genome; None where nothing of it can be scored.
        reasons: of each alternative allele, why it is not scored; None where it is.
    """

    record: VcfRecord
    place: Place | None
    reasons: tuple[str | None, ...]


@dataclass
class Placing:
    """Finds records in a genome, and keeps count.

    Args:
        genome: where REF is compared and flanks are read.
        window: bases around an SNV, its own among them.

    Attributes:
        contigs: the genome's name of each contig that was asked for; None where it has none.
        reasons: alleles (or records without any) by the reason that they are not scored.
        mismatches: the first records whose REF is not the genome's, in words.
        records, alleles: that were read, and alleles that can be scored.
    """

    genome: Genome
    window: int
    contigs: dict[str, str | None] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)
    records: int = 0
    alleles: int = 0

    def variant(self, record: VcfRecord) -> Variant:
        """Says where a record is, or why it is not scored.

        Raises:
            UserError: the genome changed after it was opened.
        """
        place, problem = self._place(record)
        certain = problem if problem in _OF_EVERY_ALLELE else None
        found = tuple(certain or self._problem(record, allele) or problem for allele in record.alternatives)
        self.records += 1
        self.alleles += found.count(None)
        self.reasons.update([reason for reason in found if reason] or ([] if found else ["no_alternative"]))
        return Variant(record, place if None in found else None, found)

    def sequences(self, place: Place, alternatives: tuple[str, ...]) -> Sequences:
        """The flanks of a place and its alleles, the reference first.

        Raises:
            UserError: the genome changed after it was opened.
        """
        number, start, reference = place
        left = self.window // 2
        end = start + len(reference)
        last = min(end + self.window - left - 1, self.genome.records[number].length)
        before = tokens.encode(self.genome.fetch(number, max(start - left, 0), start))
        after = tokens.encode(self.genome.fetch(number, end, last))
        return Sequences(before, after, tuple(map(tokens.encode, (reference, *alternatives))))

    def _place(self, record: VcfRecord) -> tuple[Place | None, str | None]:
        number = self.genome.find(record.chrom)
        if record.chrom not in self.contigs:
            self.contigs[record.chrom] = None if number is None else self.genome.records[number].name
        if number is None:
            return None, "no_contig"
        reference = record.reference.upper()
        start, end = record.position - 1, record.position - 1 + len(reference)
        length = self.genome.records[number].length
        if start < 0 or end > length:
            return None, "off_contig"
        if len(reference) > self.window:
            return None, "too_long"
        found = self.genome.fetch(number, start, end).tobytes().decode("ascii")
        if any(one != other for one, other in zip(reference, found, strict=True) if {one, other} <= set(tokens.BASES)):
            if len(self.mismatches) < _MOST_MISMATCHES:
                shown = f"line {record.line}: {record}, where the genome has {found[:20]}"
                self.mismatches.append(shown)
            return None, "reference_mismatch"
        if not _DNA.fullmatch(found):
            return None, "unknown_reference"
        if not _DNA.fullmatch(reference):
            return None, "not_dna"
        return (None, "no_context") if end - start == length else (Place(number, start, reference), None)

    def _problem(self, record: VcfRecord, allele: str) -> str | None:
        if allele == "*":
            return "overlapping_deletion"
        if len(allele) > 1 and any(mark in allele for mark in "[]."):
            return "breakend"
        if "<" in allele:
            return "symbolic"
        if not _DNA.fullmatch(allele):
            return "not_dna"
        if allele.upper() == record.reference.upper():
            return "same_as_reference"
        return "too_long" if len(allele) > self.window else None


def contig_notes(placing: Placing, header: VcfHeader) -> list[str]:
    """What is to be said of contigs: names that differ, that are missing, and lengths that differ from the header's."""
    notes = []
    renamed = {name: own for name, own in placing.contigs.items() if own not in (None, name)}
    if renamed:
        shown = ", ".join(f"{name} as {own}" for name, own in list(renamed.items())[:3])
        notes.append(f"contigs of other names are read from the genome: {shown}{', ...' if len(renamed) > 3 else ''}")
    missing = [name for name, own in placing.contigs.items() if own is None]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        notes.append(f"the genome has no contig {shown}; it has {placing.genome.some_names()}")
    lengths = {record.name: record.length for record in placing.genome.records}
    for name, own in placing.contigs.items():
        told = header.contigs.get(name, 0)
        if own is not None and told and told != lengths[own]:
            known = f"{told:,} bases in the header and {lengths[own]:,} in the genome"
            notes.append(f"{name} has {known}: another assembly?")
    return notes
