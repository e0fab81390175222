"""VCF 4.x from end to end in bounded memory: each record as it is written, byte for byte, and what it says.

What is read: plain, gzip, bgzip, a pipe or standard input, LF or CRLF line ends, a missing last newline, any number of
alternative alleles, symbolic alleles and breakends among them. BCF is read where pysam is installed. What is refused,
with line and mend: another format or version, a header without its `#CHROM` line, and records with a wrong number of
columns, no position or no reference. Empty lines are no records.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from mamba_data_prep.bytestream import CorruptCompression, read_blocks
from mamba_data_prep.errors import UserError

COLUMNS: Final = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
"""The eight columns that every file has."""
_LONGEST_LINE: Final = 1 << 28
_CONTIG = re.compile(rb"##contig=<(?:.*,)?ID=([^,>]+)")
_LENGTH = re.compile(rb"[<,]length=(\d{1,15})[,>]")
_POSITION = re.compile(rb"[0-9]{1,15}")


class VcfHeader(NamedTuple):
    """What stands before the records.

    Attributes:
        lines: as they are written, without line ends; the last one is that of the columns.
        end: the line end, `\\n` or `\\r\\n`.
        contigs: length in base pairs by name; 0 where the header doesn't say.
    """

    lines: tuple[bytes, ...]
    end: bytes
    contigs: dict[str, int]


class VcfRecord(NamedTuple):
    """A record.

    Attributes:
        line: 1-based line of the file.
        text: as it is written, without its line end.
        chrom: the contig's name.
        position: POS, 1-based; 0 is the place before the first base.
        identifier: the field ID.
        reference: the field REF.
        alternatives: the alleles of ALT, none where it is `.`.
    """

    line: int
    text: bytes
    chrom: str
    position: int
    identifier: str
    reference: str
    alternatives: tuple[str, ...]

    def __str__(self) -> str:
        """The record's place and alleles, for messages."""
        alternatives = ",".join(self.alternatives) or "."
        return f"{self.chrom}:{self.position} {_short(self.reference)}>{_short(alternatives)}"


def read_vcf(
    path: str | Path, on_raw: Callable[[bytes], object] | None = None
) -> tuple[VcfHeader, Iterator[VcfRecord]]:
    """Gives the header of a VCF or BCF file, and its records in order.

    Args:
        path: VCF, plain, gzip or bgzip, or BCF; "-" is standard input.
        on_raw: called with every piece of a VCF file as it lies on the disk.

    Raises:
        UserError: the file is no VCF 4.x; the iterator raises it where a record is broken.
    """
    lines = _lines(path, on_raw)
    first = next(lines, None)
    if first is not None and first[1].startswith(b"BCF"):
        lines = _lines_of_bcf(path)
        first = next(lines, None)
    if first is None:
        raise UserError("this file is empty", path=path, accepted=_ACCEPTED)
    _check_format(path, first[1])
    header = _header(path, chain([first], lines))
    n_columns = header.lines[-1].count(b"\t") + 1
    return header, (_record(path, number, text, n_columns) for number, text in lines if text.strip())


_ACCEPTED = "VCF 4.0 to 4.5, plain, gzip or bgzip"


def _lines(path: str | Path, on_raw: Callable[[bytes], object] | None) -> Iterator[tuple[int, bytes]]:
    """Number and text of each line, a carriage return at its end included."""
    number, held, size = 1, [], 0
    try:
        for block in read_blocks(path, on_raw):
            first, *others = block.split(b"\n")
            held.append(first)
            size += len(first)
            if size > _LONGEST_LINE:
                raise UserError("this line is longer than 256 MB", path=path, line=number, accepted=_ACCEPTED)
            if others:
                yield number, b"".join(held)
                yield from enumerate(others[:-1], number + 1)
                number, held, size = number + len(others), [others[-1]], len(others[-1])
    except CorruptCompression as error:
        fix = "download or copy the file again, and compare its checksum or size with the source's"
        raise UserError(str(error), path=path, line=number, fix=fix) from None
    if size:
        yield number, b"".join(held)


def _lines_of_bcf(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """The lines of the VCF file that a BCF file stands for."""
    fix = "install it (pip install pysam), or convert the file: bcftools view FILE.bcf -Oz -o FILE.vcf.gz"
    if str(path) == "-":
        raise UserError("standard input cannot be BCF", fix="pipe it through bcftools view first")
    try:
        pysam = importlib.import_module("pysam")
    except ImportError:
        raise UserError("this is BCF, which is read by pysam, and that is not installed", path=path, fix=fix) from None
    try:
        with pysam.VariantFile(str(path)) as file:
            records = (str(record).rstrip("\n").encode() for record in file)
            yield from enumerate(chain(str(file.header).encode().splitlines(), records), 1)
    except (OSError, ValueError) as error:
        raise UserError(f"pysam cannot read this BCF file: {error}", path=path) from None


def _check_format(path: str | Path, first: bytes) -> None:
    if first.startswith(b"##fileformat=VCFv4"):
        return
    found = _short(first.decode("utf-8", "replace"))
    if first.startswith(b"##fileformat=VCF"):
        fix = "convert it, for example with vcf-convert"
        raise UserError("this version of VCF is not read", path=path, line=1, found=found, accepted=_ACCEPTED, fix=fix)
    fix = "a VCF file begins with ##fileformat=VCFv4.2; add that line if it is missing"
    raise UserError("this is no VCF file", path=path, line=1, found=found, accepted=_ACCEPTED, fix=fix)


def _header(path: str | Path, lines: Iterator[tuple[int, bytes]]) -> VcfHeader:
    kept: list[bytes] = []
    end, contigs = b"\n", {}
    for number, text in lines:
        if text.endswith(b"\r"):
            end, text = b"\r\n", text[:-1]
        kept.append(text)
        if found := _CONTIG.match(text):
            length = _LENGTH.search(text)
            contigs[_text(found[1])] = int(length[1]) if length else 0
        if text.startswith(b"##"):
            continue
        if text == COLUMNS or text.startswith(COLUMNS + b"\t"):
            return VcfHeader(tuple(kept), end, contigs)
        expected = COLUMNS.decode().replace("\t", " ")
        raise UserError(
            "the line of the columns is missing or damaged", path=path, line=number, found=_short(_text(text)),
            accepted=f"{expected}, separated by tabs", fix="take the header from the file that this one was made from",
        )  # fmt: skip
    raise UserError(
        "the header ends without its line of columns", path=path, line=len(kept),
        fix="the file was cut off; copy it again",
    )  # fmt: skip


def _record(path: str | Path, line: int, text: bytes, n_columns: int) -> VcfRecord:
    text = text.removesuffix(b"\r")
    found = text.count(b"\t") + 1
    if found != n_columns:
        fix = "the line was cut off or edited: copy the file again"
        if found == 1:
            fix = "columns are separated by tabs; an editor may have turned them into blanks"
        raise UserError(
            "this record has a wrong number of columns", path=path, line=line, found=f"{found:,}",
            accepted=f"{n_columns:,}, as the header says", fix=fix,
        )  # fmt: skip
    chrom, position, identifier, reference, alternatives, _ = text.split(b"\t", 5)
    if not _POSITION.fullmatch(position):
        raise UserError(
            "the position (POS) is no whole number", path=path, line=line, found=_short(_text(position)),
            accepted="1 or more", fix="check the second column of this line",
        )  # fmt: skip
    if not chrom or not reference or not alternatives:
        raise UserError(
            "one of CHROM, REF and ALT is empty", path=path, line=line, found=_short(_text(text)),
            fix="write . for a missing ALT; the others cannot be missing",
        )  # fmt: skip
    alleles = () if alternatives == b"." else tuple(_text(alternatives).split(","))
    return VcfRecord(line, text, _text(chrom), int(position), _text(identifier), _text(reference), alleles)


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _short(text: str) -> str:
    shown = text.encode("utf-8", "replace").decode()
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
