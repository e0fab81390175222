"""The letters of DNA as bytes: which are read, how case is folded, what is complementary to what.

IUPAC codes are kept as they are; RNA's U is read as T. Tables have 256 entries, one for every byte.
"""

from __future__ import annotations

import numpy as np

IUPAC = b"ACGTRYSWKMBDHVN"
_COMPLEMENT_OF = b"TGCAYRSWMKVHDBN"

INVALID = 0
"""What a byte that is no base becomes in `UPPER` and `AS_WRITTEN`; no base is 0, so one `in` test finds it."""

PAD = 0
"""Fills a window beyond its record's or region's end; it is no base, so it cannot be taken for an N."""


def _table(pairs: dict[int, int], default: int | None = None) -> bytes:
    table = bytearray(range(256)) if default is None else bytearray([default] * 256)
    for byte, becomes in pairs.items():
        table[byte] = becomes
    return bytes(table)


_LOWER = IUPAC.lower()
_upper = dict(zip(IUPAC + _LOWER + b"Uu", IUPAC + IUPAC + b"TT", strict=True))
_as_written = dict(zip(IUPAC + _LOWER + b"Uu", IUPAC + _LOWER + b"Tt", strict=True))

UPPER = _table(_upper, INVALID)
"""bytes.translate table: a base to its upper case, everything else to `INVALID`."""

AS_WRITTEN = _table(_as_written, INVALID)
"""bytes.translate table: like `UPPER`, but lower case (soft-masked repeats) is kept."""

COMPLEMENT = _table(dict(zip(IUPAC + _LOWER, _COMPLEMENT_OF + _COMPLEMENT_OF.lower(), strict=True)))
"""bytes.translate table: a base to its complement; bytes that are no base stay as they are."""


def translate(values: np.ndarray, table: bytes) -> np.ndarray:
    """Every byte looked up in a table of 256, uint8 of any shape to the same; twice as fast as indexing."""
    return np.frombuffer(bytearray(np.ascontiguousarray(values)).translate(table), dtype=np.uint8).reshape(values.shape)


def reverse_complement(bases: np.ndarray) -> np.ndarray:
    """Gives the other strand, read 5' to 3': uint8 ASCII (L,) to uint8 ASCII (L,)."""
    return translate(bases[::-1], COMPLEMENT)


def is_unknown(bases: np.ndarray) -> np.ndarray:
    """Is true where an upper-case base is N or another IUPAC code, not A, C, G or T: uint8 (L,) to bool (L,)."""
    known = bases == ord("A")
    for letter in b"CGT":
        known |= bases == letter
    return ~known
