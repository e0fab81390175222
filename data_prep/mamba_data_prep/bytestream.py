"""Bytes of a file, gzip, bgzip, pipe or standard input, in blocks of bounded size."""

from __future__ import annotations

import errno
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mamba_data_prep.errors import UserError

BLOCK = 1 << 20
"""Bytes a block holds at most; also the most that one step of decompression may give, so a zip bomb stays small."""

BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that ends every whole bgzip file (SAM specification, section 4.1.2)."""

_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"BZh", "it is compressed with bzip2", "bunzip2 it, or recompress it with bgzip"),
    (b"\xfd7zXZ\x00", "it is compressed with xz", "unxz it, or recompress it with bgzip"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd", "unzstd it, or recompress it with bgzip"),
    (b"PK\x03\x04", "it is a zip archive", "unzip it and give the file inside"),
    (b"CRAM", "it is CRAM", "convert it: samtools fasta in.cram > out.fa"),
    (b"%PDF", "it is a PDF", "download the text file instead"),
    (b"\x89HDF", "it is HDF5", "export its sequences as text"),
    (b"\xff\xfe", "it is text in UTF-16", "save it as plain text (UTF-8 or ASCII)"),
    (b"\xfe\xff", "it is text in UTF-16", "save it as plain text (UTF-8 or ASCII)"),
)


class CorruptCompression(Exception):
    """The compressed bytes are broken or end too early."""


def read_blocks(path: str | Path, on_raw: Callable[[bytes], object] | None = None) -> Iterator[bytes]:
    """Gives the file's bytes, decompressed where it is gzip or bgzip, in blocks of at most `BLOCK` bytes.

    Args:
        path: a file or pipe; "-" is standard input.
        on_raw: called with every piece as it lies on the disk (for hashing and progress).

    Raises:
        UserError: the file is missing, a folder, unreadable, or of a foreign binary kind.
        CorruptCompression: gzip data is broken or truncated.
    """
    with opened(path) as stream:
        first = stream.read(BLOCK)
        for magic, what, fix in _FOREIGN:
            if first.startswith(magic):
                raise UserError(f"this file cannot be read: {what}", path=path, line=1, accepted=_ACCEPTED, fix=fix)
        raw = _raw_blocks(stream, first, on_raw)
        yield from _gunzip(raw) if first[:2] == b"\x1f\x8b" else raw


_ACCEPTED = "text, plain or compressed with gzip or bgzip"


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Gives the file open for reading bytes; "-" is standard input, which stays open.

    Raises:
        UserError: there is no such file, it is a folder, or it may not be read.
    """
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        with open(path, "rb") as stream:
            yield stream
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: str | Path, error: OSError) -> UserError:
    """Says to a person why the system refuses to read a file."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        folder = Path(path).parent
        nearby = "" if folder.is_dir() else f"; there is no folder {folder} either"
        return UserError("there is no such file", path=path, fix=f"check the spelling of the path{nearby}")
    if isinstance(error, IsADirectoryError):
        return UserError("this is a folder, not a file", path=path, fix="give a file inside it")
    if isinstance(error, PermissionError):
        return UserError("this file may not be read", path=path, fix=f"make it readable: chmod +r {path}")
    reason = error.strerror or errno.errorcode.get(error.errno or 0, "unknown")
    return UserError(f"the system cannot read this file: {reason}", path=path, fix="check the disk, or copy the file")


def is_regular(path: str | Path) -> bool:
    """Tells whether `path` is an ordinary file (not a pipe, device or folder), which can be read at any position."""
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return False


def _raw_blocks(stream: BinaryIO, first: bytes, on_raw: Callable[[bytes], object] | None) -> Iterator[bytes]:
    block = first
    while block:
        if on_raw is not None:
            on_raw(block)
        yield block
        block = stream.read(BLOCK)


def _gunzip(raw: Iterator[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    first, tail, bgzip = True, b"", False
    try:
        for data in raw:
            bgzip = bgzip or (first and _is_bgzip(data))
            first, tail = False, (tail + data[-len(BGZIP_END) :])[-len(BGZIP_END) :]
            while data:
                if member.eof:
                    data = data.lstrip(b"\0")  # gzip files may be padded with zeros, on tapes for instance
                    if not data:
                        break
                    member = zlib.decompressobj(wbits=31)
                block = member.decompress(data, BLOCK)
                if block:
                    yield block
                data = member.unused_data if member.eof else member.unconsumed_tail
    except zlib.error as error:
        raise CorruptCompression(f"the compressed data is broken ({error})") from None
    if not member.eof:
        raise CorruptCompression("the compressed data ends too early")
    if bgzip and tail != BGZIP_END:
        raise CorruptCompression("the bgzip data ends too early: its end marker is missing")


def _is_bgzip(data: bytes) -> bool:
    return len(data) >= 18 and bool(data[3] & 4) and data[12:14] == b"BC"
