"""FASTA read from end to end in constant memory, every byte checked; other formats record by record.

A file's beginning tells its format: FASTA, FASTQ, GenBank, EMBL or .2bit.

What is read: any line length, ragged lines, CRLF and CR line ends, lower case, IUPAC codes, RNA's U (as T), blank
lines, spaces inside sequence lines, `;` comment lines, a UTF-8 byte order mark, a missing last newline, gzip and bgzip;
headers with blanks before the id, with several entries joined by Ctrl-A, and in Latin-1; records without bases, as long
as one has some. What is refused, with file, line and mend: everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from mamba_data_prep.bytestream import CorruptCompression, read_blocks
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import alphabet
from mamba_data_prep.genomes.fasta_errors import broken_header, no_base, no_record, not_a_base, not_fasta
from mamba_data_prep.genomes.fastq import FastqFile, is_fastq
from mamba_data_prep.genomes.flat_files import FlatFile, flat_file_format
from mamba_data_prep.genomes.header import Header, UniqueIds
from mamba_data_prep.genomes.rna import count_uracils, tell_uracils
from mamba_data_prep.genomes.two_bit import TwoBitFile, is_two_bit

PIECE = 1 << 20
_LONGEST_HEADER = 1 << 20
_BLANK = b"\n \t"
_BOM = b"\xef\xbb\xbf"
_BETWEEN_WORDS = str.maketrans({"\t": " ", "\x01": " ", "\xa0": " "})
"""What separates words of a header like a blank: tabs, NCBI's Ctrl-A between joined headers, Latin-1's hard blank."""


@dataclass(frozen=True, slots=True)
class FastaPiece:
    """Consecutive bases of one record.

    Attributes:
        record: the record's id, the header's first word.
        description: the rest of the header.
        index: 0-based number of the record in the file.
        offset: 0-based position of the piece's first base in the record, base pairs.
        sequence: uint8 ASCII (L,), upper case unless asked otherwise.
        is_last: whether the record ends with this piece.
        line: 1-based line of the record's header.
    """

    record: str
    description: str
    index: int
    offset: int
    sequence: np.ndarray
    is_last: bool
    line: int


def stream_fasta(
    path: str | Path,
    piece: int = PIECE,
    *,
    upper: bool = True,
    unique_ids: bool = True,
    on_raw: Callable[[bytes], object] | None = None,
) -> Iterator[FastaPiece]:
    """Gives the file's records in order, cut into pieces.

    Memory does not grow with the file, nor with the records of a FASTA or .2bit file; of others one record is held. A
    record without bases gives one empty piece.

    Args:
        path: FASTA, FASTQ, GenBank, EMBL or .2bit, plain, gzip or bgzip; "-" is standard input.
        piece: bases in a piece; only a record's last piece may be shorter.
        upper: fold lower case (soft-masked repeats) to upper case.
        unique_ids: refuse an id that was seen before (costs about 70 bytes a record).
        on_raw: called with every piece of the file as it lies on the disk.

    Raises:
        UserError: the file is not FASTA of DNA; names the file, the line and the mend.
    """
    if piece < 1:
        raise ValueError(f"piece must be at least 1 base, not {piece}")
    header, index, offset, waiting = None, -1, 0, bytearray()
    for event in scan_fasta(path, upper=upper, unique_ids=unique_ids, on_raw=on_raw):
        if isinstance(event, Header):
            if header is not None:
                yield _piece(header, index, offset, waiting, True)
            header, index, offset, waiting = event, index + 1, 0, bytearray()
        elif header is not None:
            waiting += event
            while len(waiting) > piece:
                yield _piece(header, index, offset, waiting[:piece], False)
                offset += piece
                del waiting[:piece]
    if header is not None:
        yield _piece(header, index, offset, waiting, True)


def _piece(header: Header, index: int, offset: int, bases: bytearray, is_last: bool) -> FastaPiece:
    sequence = np.frombuffer(bytes(bases), dtype=np.uint8)
    return FastaPiece(header.record, header.description, index, offset, sequence, is_last, header.line)


def scan_fasta(
    path: str | Path,
    *,
    upper: bool = True,
    unique_ids: bool = True,
    on_raw: Callable[[bytes], object] | None = None,
    on_text: Callable[[bytes], object] | None = None,
    on_uracils: Callable[[int], object] | None = None,
) -> Iterator[Header | bytes]:
    """Gives headers, each followed by its record's bases in one or more non-empty `bytes`.

    Args:
        path: FASTA, FASTQ, GenBank, EMBL or .2bit, plain, gzip or bgzip; "-" is standard input.
        upper: fold lower case to upper case.
        unique_ids: refuse an id that was seen before.
        on_raw: called with every piece of the file as it lies on the disk.
        on_text: called with every piece of a FASTA file's decompressed text, never with that of another format.
        on_uracils: called at the end with the number of U that were read as T; by default it is told.

    Raises:
        UserError: the file is in none of these formats, or is damaged.
    """
    blocks = read_blocks(path, on_raw)
    fasta = FastaScanner(path, upper=upper, unique_ids=unique_ids)
    scanner: FastaScanner | FlatFile | FastqFile | TwoBitFile = fasta
    try:
        first = next(blocks, b"")
        if other := _other_reader(path, first, upper=upper, unique_ids=unique_ids):
            scanner = other
            yield from other.records(chain([first], blocks))
        else:
            for block in chain([first], blocks):
                if on_text is not None:
                    on_text(block)
                yield from fasta.feed(block)
    except CorruptCompression as error:
        fix = "download or copy the file again, and compare its checksum or size with the source's"
        raise UserError(str(error), path=path, line=scanner.line, fix=fix) from None
    if scanner is fasta:
        yield from fasta.finish()
    (on_uracils or partial(tell_uracils, path))(scanner.uracils)


def _other_reader(
    path: str | Path, beginning: bytes, *, upper: bool, unique_ids: bool
) -> FlatFile | FastqFile | TwoBitFile | None:
    """What reads a file with this beginning if it is no FASTA."""
    if is_two_bit(beginning):
        return TwoBitFile(path, upper=upper, unique_ids=unique_ids)
    if is_fastq(beginning):
        return FastqFile(path, upper=upper, unique_ids=unique_ids)
    written = flat_file_format(beginning)
    return None if written is None else FlatFile(path, written, upper=upper, unique_ids=unique_ids)


class FastaScanner:
    """Turns blocks of text, cut anywhere, into headers and bases."""

    def __init__(self, path: str | Path, *, upper: bool = True, unique_ids: bool = True) -> None:
        self.path = path
        self.line = 1
        self._table = alphabet.UPPER if upper else alphabet.AS_WRITTEN
        self._ids = UniqueIds(path) if unique_ids else None
        self._start = b""  # the first bytes, until there are enough to know a byte order mark
        self._started = False
        self._at_line_start = True
        self._open_header: bytearray | None = None
        self._in_comment = False
        self._carriage_return = False
        self._record: Header | None = None
        self._any_bases = False
        self.uracils = 0
        """How many U were read as T."""

    def feed(self, block: bytes) -> Iterator[Header | bytes]:
        """Gives what the next block of the file holds."""
        block = self._without_mark(block)
        if self._carriage_return or b"\r" in block:
            block = self._with_newlines(block)
        position = 0
        while position < len(block):
            if self._open_header is not None:
                position = self._read_header(block, position)
                if self._open_header is None and self._record is not None:
                    yield self._record
            elif self._in_comment:
                position = self._skip_comment(block, position)
            elif self._at_line_start and block[position] == ord(">"):
                self._begin_record()
                position += 1
            else:
                end = _next_header(block, position)
                yield from self._read_bases(block[position:end])
                position = end

    def finish(self) -> Iterator[Header | bytes]:
        """Gives what is left when the file has ended.

        Raises:
            UserError: the file holds no record, or no record with a base.
        """
        if self._carriage_return:
            self._carriage_return = False
            yield from self.feed(b"\n")
        if not self._started:
            self._started = True
            yield from self.feed(self._start)
        if self._open_header is not None:
            yield from self.feed(b"\n")
        if self._record is None:
            raise no_record(self.path, self.line)
        if not self._any_bases:
            raise no_base(self.path, self._record)

    def _without_mark(self, block: bytes) -> bytes:
        if self._started:
            return block
        self._start += block
        if len(self._start) < len(_BOM):
            return b""
        self._started = True
        return self._start.removeprefix(_BOM)

    def _with_newlines(self, block: bytes) -> bytes:
        """CRLF and CR as LF; a CR at the block's end waits for the next block, which may begin with its LF."""
        if self._carriage_return:
            block = b"\r" + block
        self._carriage_return = block.endswith(b"\r")
        if self._carriage_return:
            block = block[:-1]
        return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _begin_record(self) -> None:
        self._open_header = bytearray()
        self._at_line_start = False

    def _read_header(self, block: bytes, position: int) -> int:
        assert self._open_header is not None
        end = block.find(b"\n", position)
        self._open_header += block[position : len(block) if end < 0 else end]
        if len(self._open_header) > _LONGEST_HEADER:
            raise broken_header(
                self.path, self.line, bytes(self._open_header), "this header is longer than a million bytes"
            )
        if end < 0:
            return len(block)
        self._record = self._parsed(bytes(self._open_header))
        self._open_header = None
        self._at_line_start = True
        self.line += 1
        return end + 1

    def _parsed(self, text: bytes) -> Header:
        try:
            header = text.decode("utf-8")
        except UnicodeDecodeError:
            header = text.decode("latin-1")
        header = header.translate(_BETWEEN_WORDS).strip()
        if not header.isprintable():
            raise broken_header(self.path, self.line, text, "this header holds control characters")
        name, _, description = header.partition(" ")
        if not name:
            raise broken_header(self.path, self.line, text, "this header has no id")
        found = Header(name, description.strip(), self.line)
        if self._ids is not None:
            self._ids.add(found)
        return found

    def _skip_comment(self, block: bytes, position: int) -> int:
        end = block.find(b"\n", position)
        if end < 0:
            return len(block)
        self._in_comment = False
        self._at_line_start = True
        self.line += 1
        return end + 1

    def _read_bases(self, text: bytes) -> Iterator[bytes]:
        bases = text.replace(b"\n", b"")  # far faster than letting translate delete them
        blanks = _BLANK if b" " in bases or b"\t" in bases else b""
        bases = bases.translate(self._table, blanks)
        if bases and (self._record is None or alphabet.INVALID in bases):
            yield from self._read_lines(text)
            return
        self.line += text.count(b"\n")
        self._at_line_start = text.endswith(b"\n")
        if bases:
            self._any_bases = True
            self.uracils += count_uracils(text)
            yield bases

    def _read_lines(self, text: bytes) -> Iterator[bytes]:
        """Goes line by line: skips comments, and finds the line and column of what is wrong."""
        read = []
        for line in text.splitlines(keepends=True):
            ends = line.endswith(b"\n")
            bases = b""
            if self._at_line_start and line.startswith(b";"):
                self._in_comment = not ends
            else:
                bases = line.translate(self._table, _BLANK)
                if bases and self._record is None:
                    raise not_fasta(self.path, self.line, line)
                if alphabet.INVALID in bases:
                    record = None if self._record is None else self._record.record
                    raise not_a_base(self.path, self.line, record, line, self._table)
                self.uracils += count_uracils(line)
            self.line += ends
            self._at_line_start = ends
            read.append(bases)
        if any(read):
            self._any_bases = True
            yield b"".join(read)


def _next_header(block: bytes, position: int) -> int:
    """Where the next header begins, at a line's start after `position`; the block's end if nowhere."""
    found = block.find(b">", position + 1)
    while found >= 0 and block[found - 1] != ord("\n"):
        found = block.find(b">", found + 1)
    return len(block) if found < 0 else found
