"""The index of a FASTA file: its records, where their bases lie, which are unknown, and the state it was read in."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import xxhash

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import alphabet
from mamba_data_prep.genomes.fasta import scan_fasta
from mamba_data_prep.genomes.header import Header
from mamba_data_prep.genomes.layout import Layout, LayoutFinder
from mamba_data_prep.genomes.two_bit import TwoBitFile, is_two_bit
from mamba_data_prep.provenance import Fingerprint, fingerprint

FORMAT = 3
_CLOCK_GRAIN = 2_000_000_000
"""Nanoseconds within which two changes of a file may carry the same time, on the coarsest filesystems."""

Progress = Callable[[int, int], object]
"""Called with the bytes read so far and the bytes in all."""


@dataclass(frozen=True)
class Signature:
    """What the system says about a file without reading it; equal signatures mean an unchanged file.

    `changed_ns` (ctime) cannot be set by hand, so restoring an older modification time is noticed.
    """

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Signature:
        """Gives the signature of the file as it is now."""
        status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@dataclass(frozen=True)
class FastaIndex:
    """Everything about a FASTA file that random access needs.

    Attributes:
        names: the records' ids, in file order.
        lengths: bases in each record, int64.
        layout: where those bases lie, in the file itself or in its flat copy.
        unknown: runs of bases that are not A, C, G or T, int64 (2, runs): starts and ends, 0-based half-open, counted
            over all records laid end to end.
        content: the hash of the file as it lies on the disk.
        signature: what the system said about the file then.
        settled: whether any later change must show in the signature; False if the file had changed a moment before.
        flat: name of the flat copy beside the index (one byte a base), or "" where the file itself is read.
        uracils: how many U are read as T.
        packed: whether the file itself is read and is .2bit: four bases a byte, `layout.offset` being the byte of a
            record's first four.
    """

    names: tuple[str, ...]
    lengths: np.ndarray
    layout: Layout
    unknown: np.ndarray
    content: Fingerprint
    signature: Signature
    settled: bool
    flat: str
    uracils: int = 0
    packed: bool = False

    def confirmed(self, signature: Signature) -> FastaIndex:
        """Gives the same index after the file was found to hold the same bytes."""
        return replace(self, signature=signature, settled=_settled(signature))

    def save(self, path: Path) -> None:
        """Writes the index, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        about = {
            "format": FORMAT,
            "content": self.content.to_dict(),
            "signature": asdict(self.signature),
            "settled": self.settled,
            "flat": self.flat,
            "uracils": self.uracils,
            "packed": self.packed,
        }
        with atomic_write(path, "wb") as stream:
            np.savez(
                stream,
                about=_packed(json.dumps(about)),
                names=_packed("\n".join(self.names)),
                records=np.stack([self.lengths, self.layout.offset, self.layout.line_bases, self.layout.line_bytes]),
                unknown=self.unknown,
            )

    @classmethod
    def load(cls, path: Path) -> FastaIndex | None:
        """Gives the index written there; None where there is none, or it is damaged or of another version."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                about = json.loads(stored["about"].tobytes())
                if about["format"] != FORMAT:
                    return None
                lengths, offset, line_bases, line_bytes = stored["records"]
                return cls(
                    names=tuple(stored["names"].tobytes().decode().split("\n")),
                    lengths=lengths,
                    layout=Layout(offset, line_bases, line_bytes),
                    unknown=stored["unknown"],
                    content=Fingerprint(**about["content"]),
                    signature=Signature(**about["signature"]),
                    settled=about["settled"],
                    flat=about["flat"],
                    uracils=about["uracils"],
                    packed=about["packed"],
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None


def build_index(path: Path, folder: Path, progress: Progress | None = None) -> FastaIndex:
    """Reads the whole file once (twice if its lines are irregular), checks it, and writes a flat copy where one is
    needed; of a .2bit file only what stands before each record's bases is looked at.

    Args:
        path: in any format that is read, plain, gzip or bgzip; an ordinary file.
        folder: where a flat copy goes.
        progress: called now and then.

    Raises:
        UserError: the file is no FASTA of DNA, changed while it was read, or the copy cannot be written.
    """
    signature = Signature.of(path)
    with open(path, "rb") as stream:
        beginning = stream.read(4)
    if is_two_bit(beginning):
        return _packed_index(path, signature)
    compressed = beginning.startswith(b"\x1f\x8b")
    reading = None if compressed else _Reading(path, signature.size, progress, with_layout=True)
    layout = reading.read() if reading is not None else None
    flat = ""
    if reading is None or layout is None:
        reading = _Reading(path, signature.size, progress, with_layout=False)
        with atomic_write(folder / "bases", "wb") as copy:
            reading.read(copy.write)
        flat = f"bases-{reading.hasher.hexdigest()}"
        os.replace(folder / "bases", folder / flat)
        lengths = np.array(reading.lengths, dtype=np.int64)
        layout = Layout(np.cumsum(lengths) - lengths, lengths, lengths)
    _check_unchanged(path, signature)
    return FastaIndex(
        names=tuple(reading.names),
        lengths=np.array(reading.lengths, dtype=np.int64),
        layout=layout,
        unknown=reading.unknown.runs(),
        content=Fingerprint(signature.size, reading.hasher.hexdigest()),
        signature=signature,
        settled=_settled(signature),
        flat=flat,
        uracils=reading.uracils,
    )


def _packed_index(path: Path, signature: Signature) -> FastaIndex:
    """The index of a .2bit file: its bases stay where they are, four a byte."""
    with open(path, "rb") as stream:
        records = TwoBitFile(path).places(stream)
    lengths = np.array([record.length for record in records], dtype=np.int64)
    before = np.cumsum(lengths) - lengths
    blocks = np.concatenate([record.unknown + start for record, start in zip(records, before.tolist(), strict=True)])
    content = fingerprint(path)
    _check_unchanged(path, signature)
    return FastaIndex(
        names=tuple(record.header.record for record in records),
        lengths=lengths,
        layout=Layout(np.array([record.offset for record in records], dtype=np.int64), lengths, lengths),
        unknown=_joined(blocks[blocks[:, 1] > blocks[:, 0]]).T,
        content=content,
        signature=signature,
        settled=_settled(signature),
        flat="",
        packed=True,
    )


def _joined(blocks: np.ndarray) -> np.ndarray:
    """Blocks (n, 2) in the order of their starts, those that overlap or touch as one."""
    if not len(blocks):
        return blocks
    reach = np.maximum.accumulate(blocks[:, 1])
    begins = np.concatenate(([True], blocks[1:, 0] > reach[:-1]))
    return np.stack([blocks[begins, 0], reach[np.concatenate((begins[1:], [True]))]], axis=1)


def _check_unchanged(path: Path, signature: Signature) -> None:
    if Signature.of(path) != signature:
        raise UserError(
            "this file changed while it was read", path=path, fix="wait until it is complete, then try again"
        )


class _Reading:
    """One pass over a FASTA file: hash, records, lines, unknown bases."""

    def __init__(self, path: Path, size: int, progress: Progress | None, *, with_layout: bool) -> None:
        self.path, self.size, self.progress = path, size, progress
        self.hasher = xxhash.xxh3_128()
        self.names: list[str] = []
        self.lengths: list[int] = []
        self.unknown = UnknownFinder()
        self.uracils = 0
        self._layout = LayoutFinder() if with_layout else None
        self._seen = 0

    def read(self, write: Callable[[bytes], object] | None = None) -> Layout | None:
        """Reads the file; hands its bases to `write`. Returns the layout where it was asked for and is regular."""
        on_text = self._layout.feed if self._layout is not None else None
        for event in scan_fasta(self.path, on_raw=self._on_raw, on_text=on_text, on_uracils=self._on_uracils):
            if isinstance(event, Header):
                self.names.append(event.record)
                self.lengths.append(0)
                continue
            self.lengths[-1] += len(event)
            self.unknown.feed(event)
            if write is not None:
                write(event)
        return self._layout.finish(np.array(self.lengths, dtype=np.int64)) if self._layout is not None else None

    def _on_raw(self, block: bytes) -> None:
        self.hasher.update(block)
        self._seen += len(block)
        if self.progress is not None:
            self.progress(self._seen, self.size)

    def _on_uracils(self, count: int) -> None:
        self.uracils = count


class UnknownFinder:
    """Collects runs of bases that are not A, C, G or T."""

    def __init__(self) -> None:
        self._position = 0
        self._runs: list[np.ndarray] = []

    def feed(self, bases: bytes) -> None:
        """Takes the next upper-case bases."""
        unknown = alphabet.is_unknown(np.frombuffer(bases, dtype=np.uint8))
        if unknown.any():
            edges = np.flatnonzero(np.diff(unknown, prepend=False, append=False))
            self._runs.append(edges.reshape(-1, 2).T + self._position)
        self._position += len(bases)

    def runs(self) -> np.ndarray:
        """int64 (2, runs): starts and ends, with runs that were cut by a block's end joined."""
        if not self._runs:
            return np.zeros((2, 0), dtype=np.int64)
        starts, ends = np.concatenate(self._runs, axis=1).astype(np.int64)
        apart = np.concatenate(([True], starts[1:] != ends[:-1]))
        return np.stack([starts[apart], ends[np.concatenate((apart[1:], [True]))]])


def _settled(signature: Signature) -> bool:
    return time.time_ns() - max(signature.modified_ns, signature.changed_ns) > _CLOCK_GRAIN


def _packed(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)
