"""Intervals of a genome, read from BED files: 0-based half-open, one a line."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mamba_data_prep.bytestream import CorruptCompression, read_blocks
from mamba_data_prep.errors import UserError

if TYPE_CHECKING:
    from mamba_data_prep.genomes.genome import Genome

_log = logging.getLogger(__name__)
_COLUMNS = "chromosome, start, end[, name[, score[, strand]]], separated by tabs, 0-based half-open"
_WHOLE = re.compile(r"[0-9]+")
_LONGEST_LINE = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A stretch of one record.

    Attributes:
        name: the record's id.
        start: first base, 0-based.
        end: one beyond the last base.
        strand: "+", "-" or "." where it is not known.
        label: the fourth column of a BED file (a split, a gene, ...), if there is one.
        path: the file it was read from, for messages.
        line: 1-based line in that file.
    """

    name: str
    start: int
    end: int
    strand: str = "."
    label: str | None = None
    path: str | None = None
    line: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise self.error("the chromosome's name is empty", self.name, _COLUMNS)
        if self.start < 0:
            raise self.error("the start is negative", self.start, "0 or more (BED counts from 0)")
        if self.end <= self.start:
            raise self.error("the end is not beyond the start", f"{self.start}-{self.end}", "start < end")
        if self.strand not in ("+", "-", "."):
            raise self.error("this is no strand", self.strand, "+, - or .")

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        """The interval as samtools writes it, 1-based with both ends inside, and a strand, if any, as bedtools does."""
        return f"{self.name}:{self.start + 1}-{self.end}" + (f"({self.strand})" if self.strand != "." else "")

    def check_within(self, length: int) -> None:
        """Refuses an interval that reaches beyond its record.

        Raises:
            UserError: the interval ends beyond `length`.
        """
        if self.end > length:
            fix = "use the annotation of this very genome version, or cut the interval at the record's end"
            raise self.error("this interval reaches beyond the record's end", self.end, f"up to {length:,}", fix)

    def error(self, problem: str, found: object, accepted: str | None, fix: str = "correct this line") -> UserError:
        """Gives a `UserError` that names this interval's place in its file."""
        return UserError(
            problem,
            path=self.path,
            line=self.line,
            record=self.name or None,
            found=found,
            accepted=accepted,
            fix=fix if self.line is not None else None,
        )


def read_bed(path: str | Path, genome: Genome | None = None) -> list[Interval]:
    """Gives the intervals of a BED file (plain, gzip or bgzip), in the file's order.

    Args:
        path: BED with three columns or more; `track`, `browser`, comment and blank lines are passed over.
        genome: if given, every interval must lie within one of its records, and takes that record's name.

    Raises:
        UserError: a line cannot be understood, or does not fit the genome; names the line and the mend.
    """
    intervals = []
    for number, text in text_lines(path):
        if not text.strip() or text.startswith(("#", "track ", "track\t", "browser ", "browser\t")) or text == "track":
            continue
        intervals.append(_bed_interval(path, number, text))
    if not intervals:
        raise UserError(
            "this file holds no interval", path=path, accepted=_COLUMNS, fix="check that this is the BED file"
        )
    return intervals if genome is None else within(genome, intervals)


def within(genome: Genome, intervals: Sequence[Interval], *, elsewhere: bool = False) -> list[Interval]:
    """Gives the intervals under the genome's own record names (`chr20` becomes `20` where that is how it is called).

    Args:
        genome: where they must lie.
        intervals: what to look up.
        elsewhere: pass over intervals on records that the genome does not have, with a message, unless all of them are.

    Raises:
        UserError: an interval's record does not exist, or is shorter.
    """
    here = [i for i in intervals if genome.find(i.name) is not None] if elsewhere else intervals
    if len(here) < len(intervals) and here:
        missing = len(intervals) - len(here)
        _log.warning("%d of %d intervals lie on records that %s has not", missing, len(intervals), genome.path.name)
    here = here or intervals
    found = []
    for number, interval in zip(records_of(genome, here), here, strict=True):
        name, length = genome.records[number]
        interval.check_within(length)
        found.append(interval if interval.name == name else replace(interval, name=name))
    return found


def records_of(genome: Genome, wanted: Sequence[str | Interval]) -> list[int]:
    """The number of each name's or interval's record; a name that `Genome.find` understands is taken, with a message.

    Raises:
        UserError: there is no such record.
    """
    numbers: dict[str, int] = {}
    renamed: list[tuple[str, str]] = []
    for item in wanted:
        name = item.name if isinstance(item, Interval) else item
        if name in numbers:
            continue
        number = genome.find(name)
        if number is None:
            place = {"path": item.path, "line": item.line} if isinstance(item, Interval) else {}
            fix = f"use the names of {genome.path.name}, or the genome that this belongs to"
            problem = "the genome has no record of this name"
            raise UserError(problem, found=name, accepted=genome.some_names(), fix=fix, **place)
        if genome.records[number].name != name:
            renamed.append((name, genome.records[number].name))
        numbers[name] = number
    if renamed:
        others = "the two" if len(renamed) == 1 else f"the two, and {len(renamed) - 1:,} more names alike,"
        _log.warning("%s is called %s in %s: %s are taken for the same", *renamed[0], genome.path.name, others)
    return [numbers[item.name if isinstance(item, Interval) else item] for item in wanted]


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Gives line numbers (from 1) and lines of a text file, plain, gzip or bgzip, without their line ends.

    Raises:
        UserError: the file cannot be read, or is not text.
    """
    rest, number = b"", 0
    blocks = read_blocks(path)
    while True:
        try:
            block = next(blocks, None)
        except CorruptCompression as error:
            fix = "download or copy the file again, and compare its size with the source's"
            raise UserError(str(error), path=path, line=number + 1, fix=fix) from None
        lines = (rest + (block or b"")).replace(b"\r\n", b"\n").split(b"\n")
        rest = lines.pop() if block is not None else b""
        for line in lines:
            number += 1
            yield number, _text(path, number, line)
        if block is None:
            return
        if len(rest) > _LONGEST_LINE:
            raise UserError(
                "this line is longer than 4 MB", path=path, line=number + 1, fix="check that this is the file"
            )


def _text(path: str | Path, number: int, line: bytes) -> str:
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(
            "this is not text in UTF-8", path=path, line=number,
            fix="save it in UTF-8 (iconv -f latin1 -t utf-8 FILE > NEW), or give the text file",
        )  # fmt: skip
    return text.rstrip("\r")


def _bed_interval(path: str | Path, number: int, text: str) -> Interval:
    fields = text.split("\t")
    if len(fields) < 3:
        fix = "separate the columns by tabs, not blanks" if len(text.split()) >= 3 else "give at least three columns"
        raise UserError(
            "this line has fewer than three columns", path=path, line=number, found=text, accepted=_COLUMNS, fix=fix
        )
    start, end = (position(path, number, *one) for one in zip(("start", "end"), fields[1:3], strict=True))
    label = fields[3].strip() or None if len(fields) > 3 else None
    strand = fields[5].strip() if len(fields) > 5 else "."
    return Interval(fields[0].strip(), start, end, strand or ".", label, str(path), number)


def position(path: str | Path, line: int, column: str, text: str) -> int:
    """A coordinate as a table writes it, 0 or more.

    Args:
        path: the table, for messages.
        line: 1-based, in it.
        column: its name.
        text: what stands there.

    Raises:
        UserError: it is no whole number, or negative.
    """
    value = text.strip()
    if not _WHOLE.fullmatch(value) or len(value) > 18:
        problem = f"the {column} is negative" if value.startswith("-") else f"the {column} is no whole number"
        fix = "write it as digits alone, without separators"
        raise UserError(problem, path=path, line=line, found=value, accepted="0 or a positive whole number", fix=fix)
    return int(value)
