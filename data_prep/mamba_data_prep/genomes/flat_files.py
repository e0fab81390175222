"""GenBank and EMBL files, read record by record with Biopython; annotation is passed over, bases are checked.

A record's id is its accession with version, as in the FASTA file of the same entry that NCBI and ENA give. One record
at a time is held in memory.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import alphabet
from mamba_data_prep.genomes.header import Header, UniqueIds
from mamba_data_prep.genomes.rna import count_uracils

if TYPE_CHECKING:
    from Bio.SeqRecord import SeqRecord

FlatFileFormat = Literal["GenBank", "EMBL"]

_BEGINNINGS: tuple[tuple[re.Pattern[bytes], FlatFileFormat], ...] = (
    (re.compile(rb"(\xef\xbb\xbf)?\s*LOCUS[ \t]"), "GenBank"),
    (re.compile(rb"\s*[^\n]*Genetic Sequence Data Bank\s"), "GenBank"),  # the title of NCBI's release files
    (re.compile(rb"(\xef\xbb\xbf)?\s*ID {3}\S"), "EMBL"),
)
_PART = 1 << 20
_NOT_WHOLE = (ValueError, AssertionError, LookupError, AttributeError, TypeError)
"""What Biopython's scanners raise on text that breaks off or is something else."""
_OF_THE_SEQUENCE = ("Expected sequence length", "Premature end")
"""How its warnings begin that tell of missing bases; the others tell of annotation, which is not used."""
_MARK = "\xef\xbb\xbf"  # the byte order mark of UTF-8, read as Latin-1


def flat_file_format(beginning: bytes) -> FlatFileFormat | None:
    """Tells which of the two formats a file with this beginning is in; None if it is in neither."""
    return next((name for pattern, name in _BEGINNINGS if pattern.match(beginning[:4096])), None)


class FlatFile:
    """A GenBank or EMBL file as headers, each followed by its record's bases.

    Args:
        path: the file, for messages.
        written: its format.
        upper: fold lower case (in which both formats write bases) to upper case.
        unique_ids: refuse an id that was seen before.
    """

    def __init__(
        self, path: str | Path, written: FlatFileFormat, *, upper: bool = True, unique_ids: bool = True
    ) -> None:
        self.path, self.written = path, written
        self._table = alphabet.UPPER if upper else alphabet.AS_WRITTEN
        self._ids = UniqueIds(path) if unique_ids else None
        self._lines = _Lines()
        self.uracils = 0
        """How many U were read as T."""

    @property
    def line(self) -> int:
        """The 1-based line that is read now."""
        return self._lines.number

    def records(self, blocks: Iterable[bytes]) -> Iterator[Header | bytes]:
        """Gives headers, each followed by its record's bases in parts of at most a million.

        Args:
            blocks: the decompressed text, cut anywhere.

        Raises:
            UserError: the file is damaged, a record holds what is no base, or no record has bases.
        """
        any_record = any_bases = False
        for line, record in self._parsed(blocks):
            any_record = True
            header = Header(_name(record), record.description.strip(), line)
            if header.record in ("", "<unknown id>"):
                raise self._damaged("this record has no accession", line)
            if self._ids is not None:
                self._ids.add(header)
            yield header
            bases = self._bases(record, header)
            any_bases = any_bases or bool(bases)
            yield from (bases[start : start + _PART] for start in range(0, len(bases), _PART))
        if not any_record:
            raise self._damaged("this file ends before its first record does", self.line)
        if not any_bases:
            problem = f"no record of this {self.written} file has bases"
            fix = "download it with its sequence ('GenBank (full)' at NCBI), or as FASTA"
            raise UserError(problem, path=self.path, fix=fix)

    def _parsed(self, blocks: Iterable[bytes]) -> Iterator[tuple[int, SeqRecord]]:
        """Each record with the line where it begins."""
        from Bio.GenBank.Scanner import EmblScanner, GenBankScanner

        scanner = GenBankScanner() if self.written == "GenBank" else EmblScanner()
        self._lines = _Lines(blocks)
        found = scanner.parse_records(self._lines, do_features=False)
        while True:
            begins = self.line + 1
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    record = next(found, None)
            except _NOT_WHOLE as error:
                raise self._damaged(f"this is not whole {self.written}: {error}".rstrip(": "), self.line) from None
            for message in (str(warning.message) for warning in caught):
                if message.startswith(_OF_THE_SEQUENCE):
                    raise self._damaged(f"this record is not whole: {message}", self.line)
            if record is None:
                if self._lines.last not in ("//", ""):
                    raise self._damaged("this file ends inside a record, without '//'", self.line)
                return
            yield begins, record

    def _bases(self, record: SeqRecord, header: Header) -> bytes:
        from Bio.Seq import UndefinedSequenceError

        try:
            written = bytes(record.seq or b"")
        except UndefinedSequenceError:  # the entry names a length or other entries, and holds no sequence itself
            return b""
        self.uracils += count_uracils(written)
        bases = written.translate(self._table)
        wrong = bases.find(alphabet.INVALID)
        if wrong >= 0:
            raise UserError(
                f"{chr(written[wrong])!a} is not a base, at position {wrong + 1:,}",
                path=self.path,
                line=header.line,
                record=header.record,
                found=written[max(0, wrong - 20) : wrong + 20].decode("ascii", "backslashreplace"),
                accepted="DNA or RNA: A C G T U and the IUPAC codes",
                fix="give the nucleotide record; protein cannot be read",
            )
        return bases

    def _damaged(self, problem: str, line: int) -> UserError:
        fix = "download the file again, or download it as FASTA"
        return UserError(problem, path=self.path, line=max(line, 1), accepted=f"whole {self.written} records", fix=fix)


def _name(record: SeqRecord) -> str:
    """The accession with version, which is the first word of the record's header in FASTA."""
    return next(iter((record.id or "").split()), "")


class _Lines:
    """The lines of a text that is given in blocks, counted as they are read."""

    def __init__(self, blocks: Iterable[bytes] = ()) -> None:
        self.number = 0
        self.last = ""
        """The last line that wasn't blank, without its end."""
        self._text = io.TextIOWrapper(io.BufferedReader(_Blocks(iter(blocks)), 1 << 20), encoding="latin-1")

    def readline(self) -> str:
        """Gives the next line with its end; empty where the text is over."""
        line = self._text.readline()
        self.number += bool(line)
        self.last = line.strip() or self.last
        return line.removeprefix(_MARK) if self.number == 1 else line

    def __iter__(self) -> Iterator[str]:
        return iter(self.readline, "")


class _Blocks(io.RawIOBase):
    """Blocks of bytes as a readable stream."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = block
        part = self._rest[: len(view)]
        view[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)
