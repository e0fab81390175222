"""Asked before the work: whether its result can be written where it shall go, and whether that replaces anything.

One rule for every command: nothing that exists is replaced without `--overwrite`, an input and a folder of other
things not even then; and a place that can't be written to is refused before anything is computed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from mamba_data_prep.atomic import named_write_errors
from mamba_data_prep.errors import UserError

__all__ = ["check_input", "check_output", "check_output_folder"]


def check_input(path: Path | None, *, option: str | None = None) -> None:
    """Refuses a file to read that isn't there; `-` is standard input, and None is no file at all.

    Raises:
        UserError: there is no such file, or it is a folder.
    """
    if path is None or str(path) == "-":
        return
    if path.is_dir():
        raise UserError(f"{option or 'the input'} is a folder", path=path, accepted="a file")
    if not path.exists():
        raise UserError("there is no such file", path=path, fix="check the spelling of the path")


def check_output(
    path: Path | None,
    *,
    endings: Sequence[str] = (),
    inputs: Iterable[Path | None] = (),
    overwrite: bool = False,
    option: str = "--out",
) -> None:
    """Refuses a file that can't be written, or would replace something.

    Args:
        path: the file; None is no output at all.
        endings: those that are known, such as `.csv` and `.csv.gz`; nothing accepts any.
        inputs: files that are read; none of them may be replaced.
        overwrite: replace a file that exists.
        option: by which the user named the file.

    Raises:
        UserError: the ending is unknown, the folder is missing or may not be written to, a folder has this name, the
            output is an input, or it exists.
    """
    if path is None:
        return
    if endings and not path.name.lower().endswith(tuple(endings)):
        name = Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem
        raise UserError(
            "the output's name has an unknown ending", path=path, found=path.suffix or "no ending",
            accepted=" ".join(endings), fix=f"name it, for example, {name or 'result'}{endings[0]}",
        )  # fmt: skip
    with named_write_errors(path):
        is_folder = path.is_dir()  # a name that is too long is refused by the system here
    if is_folder:
        raise UserError("this cannot be written: there is a folder of this name", path=path, fix="give a file name")
    _check_place(path, path.parent)
    if path.exists():
        _check_not_read(path, inputs, option)
        if not overwrite:
            raise _exists(path, option)


def check_output_folder(
    path: Path | None,
    *,
    marks: Sequence[str],
    inputs: Iterable[Path | None] = (),
    overwrite: bool = False,
    option: str = "--out",
) -> None:
    """Refuses a folder that can't be written, or would replace something.

    Args:
        path: the folder, made where it is missing; None is no output at all.
        marks: files by which an earlier result of the kind is known; a folder without one is never replaced.
        inputs: files and folders that are read; they may not lie inside.
        overwrite: replace an earlier result.
        option: by which the user named the folder.

    Raises:
        UserError: it is a file, may not be written to, holds an input, an earlier result, or other things.
    """
    if path is None:
        return
    with named_write_errors(path):
        is_file = path.exists() and not path.is_dir()
    if is_file:
        raise UserError("this cannot be written: there is a file of this name", path=path, fix="give a folder's name")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    _check_place(path, above)
    if not path.is_dir() or not any(path.iterdir()):
        return
    _check_not_read(path, inputs, option)
    if not any((path / mark).is_file() for mark in marks):
        raise UserError(
            "this folder holds other things, and is not replaced", path=path,
            found=", ".join(sorted(entry.name for entry in path.iterdir())[:5]), fix=f"choose another {option}",
        )  # fmt: skip
    if not overwrite:
        raise _exists(path, option)


def _exists(path: Path, option: str) -> UserError:
    return UserError("this exists already", path=path, fix=f"add --overwrite to replace it, or choose another {option}")


def _check_not_read(path: Path, inputs: Iterable[Path | None], option: str) -> None:
    own = path.resolve()
    for source in inputs:
        if source is not None and source.exists() and own in (source.resolve(), *source.resolve().parents):
            raise UserError("the output is the input, or holds it", path=path, fix=f"choose another {option}")


def _check_place(path: Path, folder: Path) -> None:
    """Prove that a file can be made in a folder by making one: rights, quotas and read-only disks are all asked so."""
    trial = folder / f".{path.name}.{secrets.token_hex(4)}.trial"
    with named_write_errors(path):
        try:
            os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        finally:
            with suppress(OSError):
                trial.unlink()
