"""RNA's U, which every reader takes for T: counted, and told once for each file."""

from __future__ import annotations

import logging
from pathlib import Path

_log = logging.getLogger(__name__)
_told: set[str] = set()


def count_uracils(text: bytes) -> int:
    """The number of U and u in a text; as fast as searching for them where there are none."""
    return sum(text.count(letter) for letter in (b"U", b"u") if letter in text)


def tell_uracils(source: str | Path, count: int) -> None:
    """Says on standard error that a file's U were read as T, once in the life of the process.

    Args:
        source: the file, or a word for what was read.
        count: how many there are; of 0 nothing is said.
    """
    if count and str(source) not in _told:
        _told.add(str(source))
        _log.warning("%s: %s bases are U (RNA) and are read as T", source, f"{count:,}")
