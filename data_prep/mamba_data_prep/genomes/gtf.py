"""Transcription start sites from GTF and GFF3 (1-based, inclusive) or BED (0-based, half-open) annotation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.intervals import Interval, read_bed, text_lines, within

if TYPE_CHECKING:
    from mamba_data_prep.genomes.genome import Genome

_COLUMNS = "nine columns separated by tabs: chromosome, source, feature, start, end, score, strand, frame, attributes"
_TRANSCRIPTS = frozenset({"transcript", "mRNA", "ncRNA", "lnc_RNA", "lncRNA", "rRNA", "tRNA", "primary_transcript"})
_GENES = frozenset({"gene", "ncRNA_gene", "pseudogene"})
_WHOLE = re.compile(r"[0-9]{1,18}")
_NAME = re.compile(r'(?:gene_name|gene_id|gene|Name|ID|Parent)[ =]"?([^";]+)"?')


def read_tss(
    path: str | Path, genome: Genome | None = None, strand: Literal["plus", "minus"] | None = None
) -> list[Interval]:
    """Gives the distinct transcription start sites of an annotation, one base each, in the file's order.

    A site is the first base of a transcript in its own direction: the start on the plus strand, the last base on the
    minus strand. Transcripts are read, or genes where there are none. A BED line has to name its strand,
    unless `strand` does.

    Args:
        path: GTF, GFF3 (recognised by name, .gtf or .gff) or BED; plain, gzip or bgzip.
        genome: if given, sites on other records than its own are passed over with a message, and names are its own.
        strand: the strand of all BED lines that name none.

    Raises:
        UserError: a line cannot be understood, names no strand, does not fit the genome, or no site was found.
    """
    name = Path(path).name.lower()
    if re.search(r"\.(gtf|gff|gff2|gff3)(\.|$)", name):
        features = list(_features(path))
        transcripts = [f for kind, f in features if kind in _TRANSCRIPTS]
        intervals = transcripts or [f for _, f in features]
    else:
        intervals = read_bed(path)
    sites: dict[tuple[str, int, str], Interval] = {}
    for interval in intervals if genome is None else within(genome, intervals, elsewhere=True):
        sign = _strand_of(interval, strand)
        start = interval.end - 1 if sign == "-" else interval.start
        site = Interval(interval.name, start, start + 1, sign, interval.label, interval.path, interval.line)
        sites.setdefault((site.name, site.start, site.strand), site)
    if not sites:
        raise UserError(
            "this file holds no transcript and no gene",
            path=path,
            accepted=_COLUMNS,
            fix="check that this is the annotation",
        )
    return list(sites.values())


def _strand_of(interval: Interval, otherwise: Literal["plus", "minus"] | None) -> str:
    if interval.strand in ("+", "-"):
        return interval.strand
    if otherwise is None:
        raise UserError(
            "the start site has no strand, and a promoter lies before it on the one strand and behind it on the other",
            path=interval.path, line=interval.line, found=interval.strand, accepted="+ or - in the sixth column",
            fix="give an annotation with strands (GTF, GFF3 or BED of six columns), or --strand plus or minus for all",
        )  # fmt: skip
    return "+" if otherwise == "plus" else "-"


def _features(path: str | Path) -> Iterator[tuple[str, Interval]]:
    for number, text in text_lines(path):
        if text.startswith("##FASTA"):
            return
        if not text.strip() or text.startswith(("#", "track ", "browser ")):
            continue
        fields = text.split("\t")
        if len(fields) < 8:
            fix = "separate the columns by tabs, not blanks" if len(text.split()) >= 8 else "give all columns"
            raise UserError(
                "this line has too few columns", path=path, line=number, found=text, accepted=_COLUMNS, fix=fix
            )
        if fields[2] in _TRANSCRIPTS or fields[2] in _GENES:
            yield fields[2], _interval(path, number, fields)


def _interval(path: str | Path, number: int, fields: list[str]) -> Interval:
    for column, value in (("start", fields[3]), ("end", fields[4])):
        if not _WHOLE.fullmatch(value) or int(value) < 1:
            problem, accepted = f"the {column} is no position", "1 or a larger whole number (GTF counts from 1)"
            fix = "write it as digits alone, without separators"
            raise UserError(problem, path=path, line=number, found=value, accepted=accepted, fix=fix)
    if fields[6] not in ("+", "-"):
        raise UserError(
            "a start site needs a strand",
            path=path,
            line=number,
            found=fields[6],
            accepted="+ or -",
            fix="write + or - in the seventh column, or remove the line",
        )
    named = _NAME.search(fields[8]) if len(fields) > 8 else None
    label = named[1].strip() if named else None
    return Interval(fields[0], int(fields[3]) - 1, int(fields[4]), fields[6], label, str(path), number)
