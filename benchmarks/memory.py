"""Resident memory, read without importing what would fill it."""

from __future__ import annotations

from pathlib import Path


def peak_mebibytes(pid: int | str = "self") -> float:
    """The most memory that a process has had resident since its program began (Linux).

    `getrusage` would count what the parent had before it started the program.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
