"""Where a result came from: hashes of the inputs, versions, command and seed, in a JSON file beside the result."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import xxhash

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.bytestream import BLOCK, opened
from mamba_data_prep.errors import UserError

_PACKAGES = ("seqmamba", "torch", "numpy", "numba", "lightning", "triton", "transformers")


@dataclass(frozen=True)
class Fingerprint:
    """A file's content, in two values.

    Attributes:
        size: bytes on the disk.
        xxh3_128: the 128-bit XXH3 hash of those bytes, in hexadecimal.
    """

    size: int
    xxh3_128: str

    def to_dict(self) -> dict[str, int | str]:
        """Gives the two values, ready for JSON."""
        return asdict(self)


def fingerprint(path: str | Path, on_raw: Callable[[bytes], object] | None = None) -> Fingerprint:
    """Reads the whole file (or every file below a folder, by name) and hashes it, at the disk's speed.

    Raises:
        UserError: the file cannot be read.
    """
    hasher, size = xxhash.xxh3_128(), 0
    root = Path(path)
    for part in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]:
        if part is not root:
            hasher.update(str(part.relative_to(root)).encode() + b"\0")
        with opened(part) as stream:
            while block := stream.read(BLOCK):
                hasher.update(block)
                size += len(block)
                if on_raw is not None:
                    on_raw(block)
    return Fingerprint(size, hasher.hexdigest())


def recorded_command(*more: str) -> str:
    """Gives what a user types to run this command again, as a shell reads it.

    Args:
        more: options to add where they are not there already.
    """
    program = Path(sys.argv[0])
    started = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    words = [*started, *sys.argv[1:]]
    return shlex.join([*words, *(word for word in more if word not in words)])


def write_sidecar(
    out_path: str | Path,
    *,
    command: Sequence[str] | str | None = None,
    inputs: Mapping[str, str | Path | Fingerprint] | Sequence[str | Path] = (),
    model: str | Path | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `out_path` + ".json": what made this file, from what, with which versions.

    Args:
        out_path: the result that the sidecar describes; hashed too if it exists.
        command: the command line; this process's own by default.
        inputs: files to hash, as paths, or as {path: Fingerprint} where the hash is already known.
        model: the model's file or folder, if one was used.
        seed: the random seed, if one was used.
        extra: anything else that JSON can hold.

    Raises:
        UserError: an input cannot be read, or the sidecar not be written.
    """
    out = Path(out_path)
    known = inputs if isinstance(inputs, Mapping) else {str(path): path for path in inputs}
    record = {
        "output": {"path": str(out), **(fingerprint(out).to_dict() if out.is_file() else {})},
        "command": _command_text(command),
        "inputs": [_described(name, value) for name, value in known.items()],
        "model": None if model is None else _described(str(model), Path(model)),
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "platform": platform.platform(),
        **(extra or {}),
    }
    sidecar = out.with_name(out.name + ".json")
    with atomic_write(sidecar) as stream:
        try:
            json.dump(record, stream, indent=2)
        except TypeError as error:
            raise TypeError(f"`extra` holds something that JSON cannot: {error}") from None
        stream.write("\n")
    return sidecar


def _command_text(command: Sequence[str] | str | None) -> str:
    if command is None:
        return recorded_command()
    return command if isinstance(command, str) else shlex.join(map(str, command))


def versions() -> dict[str, str]:
    """Gives Python's version and those of the packages that a result can depend on, without importing them."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _described(name: str, value: str | Path | Fingerprint) -> dict[str, Any]:
    if isinstance(value, Fingerprint):
        return {"path": name, **value.to_dict()}
    if str(value) == "-":
        return {"path": "-"}  # standard input is gone once it is read
    if not Path(value).exists():
        raise UserError("there is no such file", path=value, fix="check the spelling of the path")
    return {"path": str(value), **fingerprint(value).to_dict()}
