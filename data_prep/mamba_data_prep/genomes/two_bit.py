"""UCSC's .2bit files, read from end to end in constant memory, or asked where each record's bases lie.

Source: the format as UCSC describes it (genome.ucsc.edu/FAQ/FAQformat, ".2bit format"): an index of names and offsets,
then of each record its length, the blocks of N, those of lower case, and four bases a byte, T C A G.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol, runtime_checkable

import numpy as np

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.header import Header, UniqueIds

_SIGNATURE: Final = 0x1A412743
_ORDERS: Final = {struct.pack("<I", _SIGNATURE): "<", struct.pack(">I", _SIGNATURE): ">"}
_PART: Final = 1 << 20
"""Bases that are unpacked at a time; a multiple of four."""
_LETTERS: Final = np.frombuffer(b"TCAG", np.uint8)
_LOWER: Final = 0x20


def is_two_bit(beginning: bytes) -> bool:
    """Tells whether a file with this beginning is .2bit, in either byte order."""
    return beginning[:4] in _ORDERS


def unpacked(packed: bytes) -> np.ndarray:
    """The bases of packed bytes, four each, as uint8 ASCII that may be written to."""
    codes = (np.frombuffer(packed, np.uint8)[:, None] >> np.array([6, 4, 2, 0], np.uint8)) & 3
    return _LETTERS[codes.ravel()]


class PackedRecord(NamedTuple):
    """A record of a .2bit file.

    Attributes:
        header: its id.
        length: its bases.
        offset: byte of the file in which its first four bases lie.
        unknown: starts and ends of its blocks of N, int64 (n, 2), ascending.
        lower: the same of lower case.
    """

    header: Header
    length: int
    offset: int
    unknown: np.ndarray
    lower: np.ndarray


class TwoBitFile:
    """A .2bit file as headers, each followed by its record's bases.

    Args:
        path: the file, for messages.
        upper: pass over the blocks of lower case.
        unique_ids: refuse an id that was seen before.
    """

    line = 1
    """A binary file has no lines; messages name records."""
    uracils = 0
    """The format has no U."""

    def __init__(self, path: str | Path, *, upper: bool = True, unique_ids: bool = True) -> None:
        self.path, self._upper = path, upper
        self._ids = UniqueIds(path) if unique_ids else None
        self._order = "<"

    def records(self, blocks: Iterable[bytes]) -> Iterator[Header | bytes]:
        """Gives headers, each followed by its record's bases in parts of at most a million.

        Args:
            blocks: the file, cut anywhere.

        Raises:
            UserError: the file is damaged, or no record has bases.
        """
        data = _Bytes(blocks)
        for record in self._records(data):
            yield record.header
            yield from self._bases(data, record)

    def places(self, stream: io.BufferedIOBase) -> list[PackedRecord]:
        """Where each record's bases lie; they themselves are not read.

        Args:
            stream: the file, open at its beginning.

        Raises:
            UserError: the file is damaged, or no record has bases.
        """
        data = _Seekable(stream)
        found = []
        for record in self._records(data):
            found.append(record)
            data.skip(-(-record.length // 4))
        if data.position > data.size:
            raise self._damaged("the file ends inside a record", found[-1].header.record)
        return found

    def _records(self, data: _Data) -> Iterator[PackedRecord]:
        """The records in the order in which they lie, each given when its packed bases are the next bytes."""
        any_bases = False
        for number, (offset, name) in enumerate(sorted(self._index(data))):
            header = Header(name, "", 1)
            if self._ids is not None:
                self._ids.add(header)
            if offset < data.position:
                raise self._damaged(f"record {number + 1:,} overlaps the one before it", name)
            data.skip(offset - data.position)
            (length,) = self._numbers(data, 1, name)
            unknown, lower = self._blocks(data, name, length), self._blocks(data, name, length)
            self._numbers(data, 1, name)
            any_bases = any_bases or length > 0
            yield PackedRecord(header, length, data.position, unknown, lower)
        if not any_bases:
            raise UserError("no record of this .2bit file has bases", path=self.path)

    def _index(self, data: _Data) -> list[tuple[int, str]]:
        self._order = _ORDERS[self._taken(data, 4, None)]
        version, count, _ = self._numbers(data, 3, None)
        if version not in (0, 1):
            raise self._damaged(f"this is version {version} of .2bit", None, "version 0 or 1")
        found = []
        for _ in range(count):
            (length,) = self._taken(data, 1, None)
            name = self._taken(data, length, None).decode("utf-8", "replace")
            if not name or not name.isprintable() or " " in name:
                raise self._damaged("the index holds what is no name", name)
            if version:
                (offset,) = struct.unpack(f"{self._order}Q", self._taken(data, 8, name))
            else:
                (offset,) = self._numbers(data, 1, name)
            found.append((offset, name))
        return found

    def _bases(self, data: _Data, record: PackedRecord) -> Iterator[bytes]:
        for start in range(0, record.length, _PART):
            count = min(_PART, record.length - start)
            bases = unpacked(self._taken(data, -(-count // 4), record.header.record))[:count]
            for first, last in _inside(record.unknown, start, start + count):
                bases[first - start : last - start] = ord("N")
            if not self._upper:
                for first, last in _inside(record.lower, start, start + count):
                    bases[first - start : last - start] |= _LOWER
            yield bases.tobytes()

    def _blocks(self, data: _Data, name: str, length: int) -> np.ndarray:
        """Starts and ends of blocks, (n, 2) int64, in order."""
        (count,) = self._numbers(data, 1, name)
        if count > length:
            raise self._damaged("a record has more blocks than bases", name)
        whole = np.frombuffer(self._taken(data, 8 * count, name), f"{self._order}u4").astype(np.int64).reshape(2, count)
        found = np.stack([whole[0], whole.sum(axis=0)], axis=1)
        if count and (found.max() > length or (np.diff(found[:, 0]) < 0).any()):
            raise self._damaged("a block of a record lies beyond its end, or out of order", name)
        return found

    def _numbers(self, data: _Data, count: int, name: str | None) -> tuple[int, ...]:
        return struct.unpack(f"{self._order}{count}I", self._taken(data, 4 * count, name))

    def _taken(self, data: _Data, count: int, name: str | None) -> bytes:
        taken = data.take(count)
        if len(taken) < count:
            raise self._damaged(
                "the file ends inside its index" if name is None else "the file ends inside a record", name
            )
        return taken

    def _damaged(self, problem: str, name: str | None, accepted: str = "a whole .2bit file") -> UserError:
        fix = "copy or download the file again"
        return UserError(problem, path=self.path, record=name, accepted=accepted, fix=fix)


def _inside(blocks: np.ndarray, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of blocks between two places."""
    first = int(np.searchsorted(np.maximum.accumulate(blocks[:, 1]), start, side="right")) if len(blocks) else 0
    for low, high in blocks[first:]:
        if low >= end:
            return
        if high > start:
            yield max(int(low), start), min(int(high), end)


@runtime_checkable
class _Data(Protocol):
    """Bytes that are taken in order."""

    @property
    def position(self) -> int: ...

    def take(self, count: int) -> bytes: ...

    def skip(self, count: int) -> None: ...


class _Seekable:
    """The bytes of an open file, of which those that are skipped are not read."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.size = stream.seek(0, 2)
        stream.seek(0)
        self.position = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes, fewer where the file ends."""
        taken = self._stream.read(count)
        self.position += len(taken)
        return taken

    def skip(self, count: int) -> None:
        """Passes over bytes."""
        self.position = self._stream.seek(self.position + count)


class _Bytes:
    """Bytes that are given in blocks, taken by count."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._held = bytearray()
        self.position = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes, fewer where the file ends."""
        while len(self._held) < count and (block := next(self._blocks, None)) is not None:
            self._held += block
        taken = bytes(self._held[:count])
        del self._held[:count]
        self.position += len(taken)
        return taken

    def skip(self, count: int) -> None:
        """Passes over bytes, in parts."""
        while count > 0:
            taken = len(self.take(min(count, _PART)))
            if not taken:
                return
            count -= taken
