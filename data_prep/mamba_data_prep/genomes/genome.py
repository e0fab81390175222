"""Random access to the bases of a FASTA file, through an index that cannot be stale.

A plain FASTA file with regular lines is read in place, and so is .2bit; gzip, bgzip, irregular files and other formats
are read from a flat copy in the cache, one byte a base. The index is trusted while the file's size, times and inode are
what they were; otherwise the file is hashed again, and indexed again if its content differs. Every read in place also
checks that line ends lie where the index says. A `.fai` beside the file is neither needed nor trusted: it does not say
which content it belongs to.
"""

from __future__ import annotations

import os
import re
import weakref
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import xxhash

from mamba_data_prep.atomic import atomic_write, clean_orphans
from mamba_data_prep.bytestream import BLOCK, is_regular, opened
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import alphabet
from mamba_data_prep.genomes.cache import cache_root, temporary_root, writable
from mamba_data_prep.genomes.index import FastaIndex, Progress, Signature, build_index
from mamba_data_prep.genomes.rna import tell_uracils
from mamba_data_prep.genomes.two_bit import unpacked
from mamba_data_prep.provenance import Fingerprint, fingerprint

_ACCESSION = re.compile(r"([A-Z][A-Z0-9]*_?\d{5,})\.\d+")
"""ENST00000371014.4, NC_000913.3: an accession with its version."""


class Record(NamedTuple):
    """A FASTA record: its id and its length in base pairs."""

    name: str
    length: int


class Genome:
    """The records of a FASTA file, read at any position; made by `Genome.open`, safe in threads and workers."""

    def __init__(self, path: Path, folder: Path, index: FastaIndex) -> None:
        self.path = path
        self.records = tuple(map(Record, index.names, index.lengths.tolist()))
        self._folder, self._index = folder, index
        self._numbers = {name: number for number, name in enumerate(index.names)}
        self._descriptor = os.open(folder / index.flat if index.flat else path, os.O_RDONLY)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        self._unchanged = (index.signature.size, index.signature.modified_ns)
        self._lengths = index.lengths.tolist()
        self._offset = index.layout.offset.tolist()
        self._line_bases = index.layout.line_bases.tolist()
        self._line_bytes = index.layout.line_bytes.tolist()
        self._starts = np.cumsum(index.lengths) - index.lengths
        runs = index.unknown
        self._unknown_before = np.concatenate(([0], np.cumsum(runs[1] - runs[0])))

    @classmethod
    def open(cls, path: str | Path, cache_dir: str | Path | None = None, progress: Progress | None = None) -> Genome:
        """Opens a FASTA file, indexing it first if that was not done before or if it has changed since.

        Args:
            path: FASTA, FASTQ, GenBank, EMBL or .2bit, plain, gzip or bgzip; an ordinary file.
            cache_dir: where the index goes; by default `SEQMAMBA_CACHE` or the user's cache folder.
            progress: called with the bytes read and the bytes in all, while indexing.

        Raises:
            UserError: the file is missing or is not FASTA of DNA (with line and mend), or the cache is full.
        """
        genome = cls._open(Path(path).expanduser(), cache_dir, progress)
        tell_uracils(genome.path, genome._index.uracils)
        return genome

    @classmethod
    def _open(cls, path: Path, cache_dir: str | Path | None, progress: Progress | None = None) -> Genome:
        with opened(path):
            pass
        if not is_regular(path):
            raise UserError(
                "this is a pipe or device, which cannot be read at any position",
                path=path,
                fix="save it as a file first",
            )
        root = cache_root(cache_dir)
        name = _folder_name(path)
        genome = _open_trusted(path, root / name)
        if genome is not None:
            return genome
        if not writable(root):
            root = temporary_root()
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / "lock"):
            genome = _open_trusted(path, folder)
            if genome is None:
                genome = cls(path, folder, _up_to_date(path, folder, progress))
        return genome

    @property
    def fingerprint(self) -> Fingerprint:
        """Size and hash of the file as it lies on the disk."""
        return self._index.content

    @property
    def lengths(self) -> np.ndarray:
        """Base pairs in each record, int64."""
        return self._index.lengths

    def __len__(self) -> int:
        """Gives the number of records."""
        return len(self.records)

    def find(self, name: str) -> int | None:
        """The number of the record of this name; None if there is none.

        A name that differs only by `chr` in front is understood, and an accession without its version, where only one
        record has it.
        """
        found = next((self._numbers[n] for n in _spellings(name) if n in self._numbers), None)
        return self._unversioned.get(name) if found is None else found

    @cached_property
    def _unversioned(self) -> dict[str, int]:
        """Accession without its version -> number of the one record that has it."""
        versions = [
            (match[1], number) for name, number in self._numbers.items() if (match := _ACCESSION.fullmatch(name))
        ]
        counts = Counter(name for name, _ in versions)
        return {name: number for name, number in versions if counts[name] == 1}

    def some_names(self) -> str:
        """Gives the first records' names, for messages."""
        return ", ".join(r.name for r in self.records[:5]) + (", ..." if len(self.records) > 5 else "")

    def number_of(self, record: int | str) -> int:
        """Gives the 0-based number of a record given by name (or number).

        Raises:
            UserError: there is no such record.
        """
        number = self._numbers.get(record, -1) if isinstance(record, str) else int(record)
        if not 0 <= number < len(self.records):
            raise UserError("there is no such record", path=self.path, found=record, accepted=self.some_names())
        return number

    def fetch(self, record: int | str, start: int, end: int) -> np.ndarray:
        """Gives the bases from `start` to `end` (0-based half-open) as upper-case ASCII, uint8 (end - start,).

        Raises:
            UserError: there is no such record or it is shorter, or the file changed after it was opened.
        """
        number = record if type(record) is int and 0 <= record < len(self.records) else self.number_of(record)
        if not 0 <= start <= end <= self._lengths[number]:
            name, length = self.records[number]
            raise UserError(
                "there are no such bases", path=self.path, record=name, found=f"{start}-{end}", accepted=f"0-{length}"
            )
        if start == end:
            return np.zeros(0, dtype=np.uint8)
        if self._index.packed:
            return self._unpacked(number, start, end)
        line_bases, line_bytes, offset = self._line_bases[number], self._line_bytes[number], self._offset[number]
        first = offset + start // line_bases * line_bytes + start % line_bases
        last = offset + (end - 1) // line_bases * line_bytes + (end - 1) % line_bases + 1
        raw = _read_at(self._descriptor, first, last - first)
        if line_bases == line_bytes and len(raw) == end - start:
            return np.frombuffer(raw, dtype=np.uint8)
        bases = raw.replace(b"\n", b"")
        if line_bytes - line_bases == 2:
            bases = bases.replace(b"\r", b"")
        bases = bases.translate(alphabet.UPPER)
        line_ends = raw[line_bases - start % line_bases + (line_bytes - line_bases - 1) :: line_bytes]
        if len(bases) != end - start or alphabet.INVALID in bases or line_ends.strip(b"\n") or self.has_changed():
            raise self._changed()
        return np.frombuffer(bases, dtype=np.uint8)

    def _unpacked(self, number: int, start: int, end: int) -> np.ndarray:
        """Bases of a .2bit file."""
        first, last = start // 4, -(-end // 4)
        raw = _read_at(self._descriptor, self._offset[number] + first, last - first)
        if len(raw) != last - first or self.has_changed():
            raise self._changed()
        bases = unpacked(raw)[start - 4 * first :][: end - start]
        runs, place = self._index.unknown, int(self._starts[number]) + start
        for run in range(int(np.searchsorted(runs[1], place, side="right")), runs.shape[1]):
            low, high = int(runs[0, run]) - place, int(runs[1, run]) - place
            if low >= len(bases):
                break
            bases[max(low, 0) : high] = ord("N")
        return bases

    def _changed(self) -> UserError:
        fix = "leave it as it is while it is in use; run again"
        return UserError("this file changed after it was opened", path=self.path, fix=fix)

    def unknown_counts(self, record: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Tells how many bases of each interval are not A, C, G or T: (n,) to int64 (n,), without reading the file."""
        base = self._starts[record]
        return self._unknown_until(base + end) - self._unknown_until(base + start)

    def fai(self) -> str:
        """Gives the index of a file read in place as samtools writes it (.fai); of a flat copy, that copy's."""
        layout = self._index.layout
        columns: Sequence[list[int]] = [
            x.tolist() for x in (self.lengths, layout.offset, layout.line_bases, layout.line_bytes)
        ]
        rows = zip(self._index.names, *columns, strict=True)
        return "".join("\t".join(map(str, row)) + "\n" for row in rows)

    def has_been_replaced(self) -> bool:
        """Tells whether another file lies by now where the bases are read from."""
        try:
            return not os.path.samestat(os.stat(self.bases), os.fstat(self._descriptor))
        except OSError:
            return True

    @property
    def packed(self) -> bool:
        """Whether the file is .2bit, read in place; such a file has no index of samtools."""
        return self._index.packed

    @property
    def bases(self) -> Path:
        """The file that bases are read from: the genome's own, or its flat copy in the cache."""
        return self._folder / self._index.flat if self._index.flat else self.path

    def index_for_samtools(self) -> Path:
        """Gives a file in the cache that holds `fai()` of `bases`; its name is that of the content it was made from."""
        path = self._folder / f"{self._index.content.xxh3_128}.fai"
        if not path.exists():
            with atomic_write(path) as stream:
                stream.write(self.fai())
        return path

    def __reduce__(self) -> tuple[object, ...]:
        return _reopened, (self.path.absolute(), self._folder, self._index.content)

    def __repr__(self) -> str:
        return f"Genome({str(self.path)!r}, {len(self.records):,} records, {int(self.lengths.sum()):,} bases)"

    def _unknown_until(self, position: np.ndarray) -> np.ndarray:
        starts, ends = self._index.unknown
        run = np.searchsorted(starts, position, side="right")
        if not len(starts):
            return np.zeros_like(position)
        beyond = ends[run - 1] - np.minimum(position, ends[run - 1])
        return self._unknown_before[run] - np.where(run > 0, beyond, 0)

    def has_changed(self) -> bool:
        """Tells whether the open file holds other bytes by now; it is hashed again only if its size or time differs."""
        if self._index.flat:
            return False
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) == self._unchanged:
            return False
        hasher, position = xxhash.xxh3_128(), 0
        while block := os.pread(self._descriptor, BLOCK, position):
            hasher.update(block)
            position += len(block)
        if Fingerprint(position, hasher.hexdigest()) != self.fingerprint:
            return True
        self._unchanged = (now.st_size, now.st_mtime_ns)
        return False


def records_without_bases(genome: Genome) -> str | None:
    """Says, in a sentence for the user, which records have no known base; None where all have one."""
    lengths = genome.lengths
    unknown = genome.unknown_counts(np.arange(len(genome)), np.zeros_like(lengths), lengths)
    names = [
        record.name for record, count in zip(genome.records, unknown.tolist(), strict=True) if count == record.length
    ]
    if not names:
        return None
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    which = "1 record has no known base" if len(names) == 1 else f"{len(names):,} records have no known base"
    return f"in {genome.path.name}, {which}, from which nothing is learnt: {shown}"


def _folder_name(path: Path) -> str:
    return f"{path.name[:60]}-{xxhash.xxh3_64_hexdigest(os.fsencode(path.resolve()))}"


def _open_trusted(path: Path, folder: Path) -> Genome | None:
    index = FastaIndex.load(folder / "index.npz")
    if index is None or not index.settled or index.signature != Signature.of(path):
        return None
    return _open_stored(path, folder, index)


def _open_stored(path: Path, folder: Path, index: FastaIndex) -> Genome | None:
    if index.flat:
        copy = folder / index.flat
        if not copy.is_file() or copy.stat().st_size != int(index.lengths.sum()):
            return None
    try:
        return Genome(path, folder, index)
    except FileNotFoundError:  # another process replaced the copy this very moment
        return None


def _up_to_date(path: Path, folder: Path, progress: Progress | None) -> FastaIndex:
    """Hashes the file where an index exists, and indexes it where its content is new; the folder is locked."""
    index = FastaIndex.load(folder / "index.npz")
    if index is not None:
        signature = Signature.of(path)
        same = signature.size == index.content.size and fingerprint(path) == index.content
        if same and signature == Signature.of(path) and _open_stored(path, folder, index) is not None:
            index = index.confirmed(signature)
            index.save(folder / "index.npz")
            return index
    clean_orphans(folder)
    index = build_index(path, folder, progress)
    index.save(folder / "index.npz")
    for old in folder.glob("bases-*"):
        if old.name != index.flat:
            old.unlink(missing_ok=True)
    return index


def _reopened(path: Path, folder: Path, content: Fingerprint) -> Genome:
    genome = Genome._open(path, folder.parent)  # in a worker: what there is to tell was told
    if genome.fingerprint != content:
        raise UserError("this file changed after it was opened", path=path, fix="leave it as it is while it is in use")
    return genome


def _read_at(descriptor: int, position: int, size: int) -> bytes:
    data = os.pread(descriptor, size, position)
    while 0 < len(data) < size:  # the system gives at most 2 GiB at a time
        more = os.pread(descriptor, size - len(data), position + len(data))
        if not more:
            break
        data += more
    return data


def _spellings(name: str) -> tuple[str, ...]:
    bare = name[3:] if name[:3].lower() == "chr" else name
    mitochondrion = ("chrM", "chrMT", "MT", "M") if bare.upper() in ("M", "MT") else ()
    return (name, bare, f"chr{bare}", f"Chr{bare}", *mitochondrion)
