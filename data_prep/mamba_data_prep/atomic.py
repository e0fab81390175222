"""Files and folders that are whole under their final name, or absent: whatever is killed, full or read-only.

A file is written under a temporary name in its own folder (so the last rename never crosses filesystems), flushed to
the disk, then renamed. What a killed process left under a temporary name is removed by `clean_orphans` at the next
start.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import psutil

from mamba_data_prep.errors import UserError

_FOREIGN_ORPHAN_AGE = 3600.0
"""Seconds after which a temporary file of another machine, on a shared disk, counts as abandoned."""

_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<born>\d+)-[0-9a-f]{8}\.(?P<kind>partial|replaced)"
)
_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, or write to another disk"),
    errno.EDQUOT: ("your disk quota is used up", "free some space, or write to another disk"),
    errno.EFBIG: ("the file is larger than this disk or account allows", "write to another disk"),
    errno.EROFS: ("this disk is read-only", "write to another place"),
    errno.EACCES: ("this folder may not be written to", "write to a folder of your own"),
    errno.EPERM: ("this folder may not be written to", "write to a folder of your own"),
    errno.ENOENT: ("there is no such folder", "make it, or check the spelling"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "check the spelling"),
    errno.EISDIR: ("there is a folder of this name", "give a file name"),
    errno.ENAMETOOLONG: ("this name is too long", "give a shorter name"),
}
_living: set[str] = set()


@contextmanager
def atomic_write(path: str | Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Gives a file that appears under `path`, whole, when the block ends without an error; text is UTF-8.

    Raises:
        UserError: the disk is full or read-only, or the folder is missing or not yours.
    """
    target = Path(path)
    temporary = _temporary_for(target, "partial")
    _living.add(temporary.name)
    try:
        with named_write_errors(target):
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a directory")
            encoding, newline = (None, None) if mode == "wb" else ("utf-8", "\n")
            with open(temporary, mode, encoding=encoding, newline=newline) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
            sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()
        _living.discard(temporary.name)


class AtomicDirectory:
    """A folder that appears under `path`, whole, when the block ends without an error; an older one is replaced.

    Example:
        with AtomicDirectory("runs/a/model") as folder:
            (folder / "config.json").write_text("{}")
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._temporary = _temporary_for(self.path, "partial")

    def __enter__(self) -> Path:
        _living.add(self._temporary.name)
        with named_write_errors(self.path):
            self._temporary.mkdir()
        return self._temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            with named_write_errors(self.path):
                if error is not None:
                    if isinstance(error, OSError):
                        raise error
                    return
                for folder, _, files in os.walk(self._temporary):
                    for name in files:
                        _sync_file(Path(folder) / name)
                    sync_folder(Path(folder))
                self._put_in_place()
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)
            _living.discard(self._temporary.name)

    def _put_in_place(self) -> None:
        older = _temporary_for(self.path, "replaced")
        if self.path.exists():
            os.rename(self.path, older)
        os.rename(self._temporary, self.path)
        sync_folder(self.path.parent)
        shutil.rmtree(older, ignore_errors=True)


def clean_orphans(folder: str | Path) -> list[Path]:
    """Removes what killed writers left in `folder` (not below it), and puts back a folder they were about to replace.

    Returns:
        the temporary files and folders that were dealt with.
    """
    done = []
    for path in sorted(Path(folder).glob(".*")) if Path(folder).is_dir() else []:
        found = _TEMPORARY.fullmatch(path.name)
        if found is None or not _abandoned(path, found):
            continue
        target = path.with_name(found["name"])
        if found["kind"] == "replaced" and not target.exists():
            os.rename(path, target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        done.append(path)
    return done


@contextmanager
def named_write_errors(path: str | Path) -> Iterator[None]:
    """Turns the system's refusals to write into a `UserError` of one line that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        reason, fix = _REASONS[error.errno]
        raise UserError(f"this cannot be written: {reason} ({fix})", path=path) from error


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` survive a power cut; does nothing where the system knows no such thing."""
    with suppress(PermissionError, NotImplementedError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_for(target: Path, kind: Literal["partial", "replaced"]) -> Path:
    token = f"{_host()}-{os.getpid()}-{_born(os.getpid())}-{secrets.token_hex(4)}"
    return target.with_name(f".{target.name}.{token}.{kind}")


@cache
def _host() -> str:
    import zlib

    return f"{zlib.crc32(platform.node().encode()):08x}"


def _born(pid: int) -> int:
    """When a process started, in milliseconds; with its pid this names it even where pids are used again."""
    return int(psutil.Process(pid).create_time() * 1000)


def _abandoned(path: Path, found: re.Match[str]) -> bool:
    if found["host"] != _host():
        with suppress(OSError):
            return time.time() - path.stat().st_mtime > _FOREIGN_ORPHAN_AGE
        return False
    pid = int(found["pid"])
    if pid == os.getpid() and path.name in _living:
        return False
    try:
        return pid == os.getpid() or _born(pid) != int(found["born"])
    except psutil.Error:
        return True
