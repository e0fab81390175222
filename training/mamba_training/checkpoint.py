"""Checkpoint files that are whole or not loaded, and the folder that keeps the newest, the one before and the best.

A file is what `torch.save` writes, followed by a trailer: a tag with the format's version, and the SHA-256 of
everything before it. `torch.load(path, weights_only=True)` reads such a file as it is; `read_checkpoint` also
notices any damage.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from mamba_data_prep.atomic import atomic_write, clean_orphans, named_write_errors, sync_folder

FORMAT = 1
_TAG = b"seqmamba-checkpoint"
_TRAILER_BYTES = len(_TAG) + 4 + 32
_BLOCK = 1 << 20
_LINK = ".link"


class DamagedCheckpoint(Exception):
    """A checkpoint file that must not be loaded; the message says what is wrong with it, in one line."""


def write_checkpoint(path: str | Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint under a temporary name in its own folder, flush it to the disk, then rename it.

    Args:
        path: the final name.
        payload: tensors, numbers, strings, None, lists, tuples and dicts of these; nothing that needs code to load.

    Raises:
        UserError: the disk is full, read-only or not ours; an older file of this name is untouched.
    """
    with atomic_write(Path(path), "wb") as file:
        hashing = _HashingWriter(file)
        try:
            torch.save(payload, cast(IO[bytes], hashing))
        except RuntimeError:
            if hashing.refused is None:
                raise
            raise hashing.refused from None  # torch hides why the system refused to write
        file.write(_TAG + FORMAT.to_bytes(4, "little") + hashing.digest())


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint after its length, its version and its hash were found right; no code of it is run.

    Tensors are on the CPU.

    Raises:
        DamagedCheckpoint: it is missing, cut, changed, of another version, or not a checkpoint of ours.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            _check_trailer(file)
        _check_archive(path)
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedCheckpoint:
        raise
    except FileNotFoundError:
        raise DamagedCheckpoint("there is no such file") from None
    except Exception as error:  # whatever a forged archive makes the reader stumble over, it is not a checkpoint
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedCheckpoint(f"it cannot be read ({reason[:120]})") from None
    if not isinstance(payload, dict):
        raise DamagedCheckpoint(f"it holds a {type(payload).__name__} instead of a dict")
    return payload


def _check_trailer(file: IO[bytes]) -> None:
    size = os.fstat(file.fileno()).st_size
    if size <= _TRAILER_BYTES:
        raise DamagedCheckpoint(f"it is cut ({size:,} bytes)")
    file.seek(size - _TRAILER_BYTES)
    trailer = file.read(_TRAILER_BYTES)
    if not trailer.startswith(_TAG):
        raise DamagedCheckpoint("it is cut, or no checkpoint of this program")
    version = int.from_bytes(trailer[len(_TAG) : len(_TAG) + 4], "little")
    if version != FORMAT:
        raise DamagedCheckpoint(f"its format is version {version}, and this program reads version {FORMAT}")
    file.seek(0)
    digest, left = hashlib.sha256(), size - _TRAILER_BYTES
    while left:
        block = file.read(min(_BLOCK, left))
        if not block:
            raise DamagedCheckpoint("it was cut while it was read")
        digest.update(block)
        left -= len(block)
    if digest.digest() != trailer[-32:]:
        raise DamagedCheckpoint("its content does not match its checksum")


def _check_archive(path: Path) -> None:
    """Refuse archives that unpack to more than they hold: torch itself never compresses."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise DamagedCheckpoint("it is a compressed archive, which this program never writes")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise DamagedCheckpoint("its parts claim to be larger than the whole file")


def check_weights(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Raise `DamagedCheckpoint` unless both hold the same names, with tensors of the same shapes and types."""
    if not isinstance(found, Mapping):
        raise DamagedCheckpoint("its weights are not a table of tensors")
    for name in [*expected, *(name for name in found if name not in expected)]:
        if name not in found:
            raise DamagedCheckpoint(f"it lacks the weight {name}")
        if name not in expected:
            raise DamagedCheckpoint(f"it has a weight {name} that the model has not")
        ours, theirs = expected[name], found[name]
        if not isinstance(ours, Tensor):
            continue
        if not isinstance(theirs, Tensor):
            raise DamagedCheckpoint(f"its weight {name} is no tensor")
        if (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype):
            raise DamagedCheckpoint(
                f"its weight {name} is {tuple(theirs.shape)} of {theirs.dtype}, "
                f"and the model's is {tuple(ours.shape)} of {ours.dtype}"
            )


class _HashingWriter:
    """Passes bytes on to a file and hashes them on the way, so that a checkpoint is never held in memory twice."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.refused: OSError | None = None

    def write(self, data: Any) -> int:
        """Hash and write one buffer; returns its length in bytes."""
        self._hash.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.refused = error
            raise

    def flush(self) -> None:
        """Nothing to do before the file is closed; torch calls it."""

    def digest(self) -> bytes:
        """The hash of everything written so far, 32 bytes."""
        return self._hash.digest()


class CheckpointStore:
    """The `checkpoints/` of a run: `last.ckpt`, `previous.ckpt` (the one before) and `best.ckpt`.

    At every moment one of `last` and `previous` is whole, whatever is killed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.last, self.previous, self.best = (self.folder / f"{name}.ckpt" for name in ("last", "previous", "best"))

    def clean(self) -> list[Path]:
        """Remove what killed writers left behind; returns the removed paths."""
        links = list(self.folder.glob(f".*{_LINK}"))
        for path in links:
            path.unlink(missing_ok=True)
        return clean_orphans(self.folder) + links

    def save(self, payload: dict[str, Any], *, is_best: bool = False) -> None:
        """Write `last.ckpt`, keeping the former one as `previous.ckpt`; with `is_best` also as `best.ckpt`.

        Raises:
            UserError: it cannot be written; the checkpoints on the disk stay as they were.
        """
        with named_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if self.last.exists():
            self._link(self.last, self.previous)
        write_checkpoint(self.last, payload)
        if is_best:
            self.keep_as_best()

    def keep_as_best(self) -> None:
        """Make the last checkpoint the best one."""
        self._link(self.last, self.best)

    def candidates(self) -> Iterator[Path]:
        """The files to resume from, best choice first."""
        yield from (path for path in (self.last, self.previous, self.best) if path.exists())

    def load_latest(
        self, note: Callable[[str], object], accept: Callable[[dict[str, Any]], object] = lambda payload: None
    ) -> dict[str, Any] | None:
        """The newest checkpoint that is whole and acceptable.

        Args:
            note: told, in one line, about each file that had to be passed over.
            accept: raises `DamagedCheckpoint` for a payload that does not fit the model.

        Returns:
            The payload, or None if there is no checkpoint at all.

        Raises:
            DamagedCheckpoint: there are checkpoints, and none can be used.
        """
        problems = []
        for path in self.candidates():
            try:
                payload = read_checkpoint(path)
                accept(payload)
            except DamagedCheckpoint as error:
                problems.append(f"{path.name}: {error}")
                note(f"{path} is not used: {error}")
                continue
            return payload
        if problems:
            raise DamagedCheckpoint("; ".join(problems))
        return None

    def _link(self, source: Path, target: Path) -> None:
        """Make `target` a second name of `source`, in one step; `source` itself stays where it is."""
        temporary = target.with_name(f".{target.name}{_LINK}")
        with named_write_errors(target):
            try:
                temporary.unlink(missing_ok=True)
                os.link(source, temporary)
                os.replace(temporary, target)
            except OSError:
                if not os.access(self.folder, os.W_OK):
                    raise
                self._copy(source, target)  # this filesystem has no second names
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)  # it stays where both names were the same file already
            sync_folder(self.folder)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        with source.open("rb") as old, atomic_write(target, "wb") as new:
            while block := old.read(_BLOCK):
                new.write(block)
