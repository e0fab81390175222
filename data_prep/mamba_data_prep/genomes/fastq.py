"""FASTQ read from end to end, read by read: sequences are checked, qualities passed over once their length is right.

A sequence and its qualities may stand in several lines each, as in capillary reads; the qualities end when there are as
many of them as bases, since `@` and `+` may begin a line of theirs (Cock et al. 2010, doi 10.1093/nar/gkp1137).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import alphabet
from mamba_data_prep.genomes.fasta_errors import not_a_base
from mamba_data_prep.genomes.header import Header, UniqueIds
from mamba_data_prep.genomes.rna import count_uracils

_BEGINNING = re.compile(rb"(\xef\xbb\xbf)?\s*@")
_SAM = re.compile(rb"@(HD|SQ|RG|PG|CO)\t")
_QUALITIES = bytes(range(33, 127))
_LONGEST = 1 << 28
"""Bytes of a line beyond which it is no read's."""


def is_fastq(beginning: bytes) -> bool:
    """Tells whether a file with this beginning is FASTQ (or SAM, which is refused when it is read)."""
    return _BEGINNING.match(beginning) is not None


class FastqFile:
    """A FASTQ file as headers, each followed by its read's bases.

    Args:
        path: the file, for messages.
        upper: fold lower case to upper case.
        unique_ids: refuse an id that was seen before.
    """

    def __init__(self, path: str | Path, *, upper: bool = True, unique_ids: bool = True) -> None:
        self.path = path
        self.line = 0
        """The 1-based line that was read last."""
        self.uracils = 0
        """How many U were read as T."""
        self._table = alphabet.UPPER if upper else alphabet.AS_WRITTEN
        self._ids = UniqueIds(path) if unique_ids else None

    def records(self, blocks: Iterable[bytes]) -> Iterator[Header | bytes]:
        """Gives headers, each followed by its read's bases if it has any.

        Args:
            blocks: the decompressed text, cut anywhere.

        Raises:
            UserError: the file is damaged, a read holds what is no base, or no read has bases.
        """
        lines, any_bases = self._lines(blocks), False
        for text in lines:
            if not text.strip():
                continue
            header = self._header(text)
            yield header
            bases = self._bases(lines, header)
            self._pass_qualities(lines, header, len(bases))
            if bases:
                any_bases = True
                yield bases
        if not any_bases:
            raise UserError("no read of this FASTQ file has bases", path=self.path)

    def _lines(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Lines without their ends."""
        rest = b""
        for block in blocks:
            *whole, rest = (rest + block).split(b"\n")
            for text in whole:
                self.line += 1
                yield text.removesuffix(b"\r")
            if len(rest) > _LONGEST:
                raise self._damaged("a line of this file does not end", None)
        if rest:
            self.line += 1
            yield rest.removesuffix(b"\r")

    def _header(self, text: bytes) -> Header:
        if self.line == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        text = text.strip()
        if _SAM.match(text):
            raise UserError(
                "this is SAM, not FASTQ", path=self.path, line=self.line,
                fix="samtools fastq FILE | genomamba ... --fasta -",
            )  # fmt: skip
        if not text.startswith(b"@"):
            raise self._damaged("a read has to begin with '@'", None, text)
        try:
            words = text[1:].decode("utf-8").split(None, 1)
        except UnicodeDecodeError:
            words = text[1:].decode("latin-1").split(None, 1)
        if not words or not "".join(words).isprintable():
            raise self._damaged("this read has no id" if not words else "this id holds control characters", None, text)
        header = Header(words[0], words[1].strip() if len(words) > 1 else "", self.line)
        if self._ids is not None:
            self._ids.add(header)
        return header

    def _bases(self, lines: Iterator[bytes], header: Header) -> bytes:
        """The bases up to the line that begins with `+`."""
        found: list[bytes] = []
        for text in lines:
            if text.startswith(b"+"):
                return b"".join(found)
            bases = text.translate(self._table, b" \t")
            if alphabet.INVALID in bases:
                raise not_a_base(self.path, self.line, header.record, text, self._table)
            self.uracils += count_uracils(text)
            found.append(bases)
        raise self._damaged("the file ends inside a read, before its '+' line", header)

    def _pass_qualities(self, lines: Iterator[bytes], header: Header, count: int) -> None:
        have = 0
        while have < count:
            text = next(lines, None)
            if text is None:
                raise self._damaged("the file ends inside a read's qualities", header)
            text = text.rstrip(b" \t")
            if text.translate(None, _QUALITIES):
                raise self._damaged("a quality is none of '!' to '~'", header, text)
            have += len(text)
        if count == 0 and (text := next(lines, b"")).strip():
            have = len(text)
        if have != count:
            raise self._damaged(f"a read of {count:,} bases has {have:,} qualities", header)

    def _damaged(self, problem: str, header: Header | None, found: bytes | None = None) -> UserError:
        shown = None if found is None else found[:40].decode("ascii", "backslashreplace")
        return UserError(
            problem, path=self.path, line=max(self.line, 1), record=None if header is None else header.record,
            found=shown, accepted="@id, bases, +, as many qualities as bases", fix="copy or download the file again",
        )  # fmt: skip
