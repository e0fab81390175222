"""Writing bgzip and its tabix index, so that what is written can be asked for by region.

Formats: BGZF in section 4.1 of the SAM specification, the index in the tabix specification; bins and linear index as in
section 5 of the SAM specification.
"""

from __future__ import annotations

import struct
import zlib
from typing import IO, Final

from mamba_data_prep.bytestream import BGZIP_END

_BLOCK: Final = 0xFF00
"""Bytes of text in a block, as bgzip has it: even text that cannot be compressed then fits a block."""
_BLOCK_HEAD: Final = bytes.fromhex("1f8b08040000000000ff060042430200")
_LINEAR: Final = 14
_HIGHEST: Final = 1 << 29
_SUMMARY_BIN: Final = 37_450


class BgzipWriter:
    """Compresses what is written into blocks that can be reached singly.

    Args:
        stream: where the blocks go; it stays open.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._waiting = bytearray()
        self._written = 0

    def write(self, data: bytes) -> None:
        """Takes bytes of the text."""
        self._waiting += data
        while len(self._waiting) >= _BLOCK:
            self._flush(_BLOCK)

    def tell(self) -> int:
        """The virtual offset of the next byte: its block's place in the file, and its own in the block's text."""
        return self._written << 16 | len(self._waiting)

    def close(self) -> None:
        """Writes what is held back and the empty block at the end."""
        if self._waiting:
            self._flush(len(self._waiting))
        self._stream.write(BGZIP_END)

    def _flush(self, size: int) -> None:
        text = bytes(self._waiting[:size])
        del self._waiting[:size]
        squeeze = zlib.compressobj(6, zlib.DEFLATED, -15)
        data = squeeze.compress(text) + squeeze.flush()
        block = _BLOCK_HEAD + struct.pack("<H", len(data) + 25) + data + struct.pack("<2I", zlib.crc32(text), len(text))
        self._stream.write(block)
        self._written += len(block)


class _Contig:
    """Where the records of one contig lie."""

    def __init__(self) -> None:
        self.bins: dict[int, list[list[int]]] = {}
        self.linear: list[int] = []
        self.first = self.last = self.n_records = 0

    def add(self, start: int, end: int, first: int, last: int) -> None:
        chunks = self.bins.setdefault(_bin(start, end), [])
        if chunks and chunks[-1][1] == first:
            chunks[-1][1] = last
        else:
            chunks.append([first, last])
        before = len(self.linear)
        reached = (end - 1 >> _LINEAR) + 1
        if reached > before:
            gap = (start >> _LINEAR) - before  # windows in which nothing begins: what follows is found from before
            self.linear += [self.linear[-1] if self.linear else first] * max(gap, 0)
            self.linear += [first] * (reached - len(self.linear))
        self.first = first if not self.n_records else self.first
        self.last, self.n_records = last, self.n_records + 1

    def packed(self) -> bytes:
        parts = [struct.pack("<i", len(self.bins) + 1)]
        summary = [[self.first, self.last], [self.n_records, 0]]
        for number, chunks in [*self.bins.items(), (_SUMMARY_BIN, summary)]:
            parts.append(struct.pack("<Ii", number, len(chunks)))
            parts += [struct.pack("<2Q", *chunk) for chunk in chunks]
        parts.append(struct.pack(f"<i{len(self.linear)}Q", len(self.linear), *self.linear))
        return b"".join(parts)


class TabixIndex:
    """The index of a VCF file that is written by a `BgzipWriter`.

    Attributes:
        problem: why there can be no index, such as records that are not sorted; None if there can.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self._contigs: dict[bytes, _Contig] = {}
        self._at: tuple[bytes, int] = (b"", -1)

    def add(self, chrom: bytes, start: int, end: int, first: int, last: int) -> None:
        """Takes a record.

        Args:
            chrom: the contig's name.
            start, end: 0-based half-open, base pairs.
            first, last: virtual offsets of the record's first byte and of that after its last.
        """
        start = max(start, 0)
        end = max(end, start + 1)
        if self.problem is not None:
            return
        if end > _HIGHEST:
            self.problem = f"a tabix index reaches to base {_HIGHEST:,} only"
        elif chrom != self._at[0] and chrom in self._contigs:
            self.problem = "the records of a contig do not stand together"
        elif chrom == self._at[0] and start < self._at[1]:
            self.problem = "the records are not sorted by position"
        else:
            self._at = chrom, start
            self._contigs.setdefault(chrom, _Contig()).add(start, end, first, last)

    def write(self, stream: IO[bytes]) -> None:
        """Writes the index, compressed as tabix compresses it."""
        names = b"".join(name + b"\0" for name in self._contigs)
        head = struct.pack("<4s8i", b"TBI\1", len(self._contigs), 2, 1, 2, 0, ord("#"), 0, len(names))
        writer = BgzipWriter(stream)
        writer.write(head + names)
        for contig in self._contigs.values():
            writer.write(contig.packed())
        writer.write(struct.pack("<Q", 0))
        writer.close()


def _bin(start: int, end: int) -> int:
    """The smallest bin that holds an interval (SAM specification, section 5.3, `reg2bin`)."""
    end -= 1
    for shift, offset in ((14, 4681), (17, 585), (20, 73), (23, 9), (26, 1)):
        if start >> shift == end >> shift:
            return offset + (start >> shift)
    return 0
