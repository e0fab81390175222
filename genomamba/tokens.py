"""DNA letters and their numbers: the vocabulary of HyenaDNA and Caduceus.

Twelve ids are in use and the embedding is padded to sixteen. Lower case (soft masking) is folded to upper case, every
IUPAC ambiguity code is read as N, and U (RNA) as T.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import UInt8

VOCAB: Final[dict[str, int]] = {
    "[CLS]": 0,
    "[SEP]": 1,
    "[BOS]": 2,
    "[MASK]": 3,
    "[PAD]": 4,
    "[RESERVED]": 5,
    "[UNK]": 6,
    "A": 7,
    "C": 8,
    "G": 9,
    "T": 10,
    "N": 11,
}
VOCAB_SIZE: Final = 16
"""Rows of the embedding: `VOCAB` padded to a power of two."""

PAD: Final = VOCAB["[PAD]"]
UNK: Final = VOCAB["[UNK]"]
MASK: Final = VOCAB["[MASK]"]
"""Stands where a base is hidden from a masked language model."""
N: Final = VOCAB["N"]
FIRST_BASE: Final = VOCAB["A"]
"""A, C, G, T are `FIRST_BASE` .. `FIRST_BASE + 3`, in alphabetical order."""

BASES: Final = "ACGT"
PAD_BYTE: Final = 0
"""The byte that stands for padding in a window of ASCII letters."""


def _encoding() -> UInt8[np.ndarray, 256]:
    table = np.full(256, UNK, dtype=np.uint8)
    for letter, token in [*((base, VOCAB[base]) for base in BASES), ("U", VOCAB["T"])]:
        table[[ord(letter), ord(letter.lower())]] = token
    for code in "NRYSWKMBDHV":
        table[[ord(code), ord(code.lower())]] = N
    table[PAD_BYTE] = PAD
    return table


def _letters() -> UInt8[np.ndarray, 16]:
    table = np.full(VOCAB_SIZE, ord("?"), dtype=np.uint8)
    for name, token in VOCAB.items():
        if len(name) == 1:
            table[token] = ord(name)
    return table


def _complement() -> UInt8[np.ndarray, 16]:
    table = np.arange(VOCAB_SIZE, dtype=np.uint8)
    table[FIRST_BASE : FIRST_BASE + 4] = table[FIRST_BASE : FIRST_BASE + 4][::-1].copy()
    return table


ENCODE: Final = _encoding()
"""ENCODE[byte] is the token id of an ASCII letter; the zero byte is padding."""
_LETTERS: Final = _letters()
COMPLEMENT: Final = _complement()
"""COMPLEMENT[id] is the id of the complementary base; every id that is no base maps to itself."""


def encode(sequence: UInt8[np.ndarray, "*shape"] | bytes | str) -> UInt8[np.ndarray, "*shape"]:
    """Turns letters into token ids.

    Args:
        sequence: ASCII codes of any shape, or text. Case does not matter; a zero byte is padding.

    Returns:
        Ids of the same shape: A 7, C 8, G 9, T and U 10, any IUPAC ambiguity code 11 (N), a zero byte 4 (PAD), and
        6 (UNK) for what is no nucleotide code.
    """
    if isinstance(sequence, str):
        sequence = sequence.encode("ascii", errors="replace")
    if isinstance(sequence, bytes):
        sequence = np.frombuffer(sequence, dtype=np.uint8)
    return ENCODE[sequence]


def decode(ids: UInt8[np.ndarray, " length"]) -> str:
    """Turns token ids back into letters: PAD disappears, and the ids that are no base are shown as `?`.

    Raises:
        ValueError: an id is outside the vocabulary.
    """
    if ids.size and int(ids.max()) >= VOCAB_SIZE:
        raise ValueError(f"token id {int(ids.max())} is outside the vocabulary of {VOCAB_SIZE}")
    return _LETTERS[ids[ids != PAD]].tobytes().decode("ascii")


def reverse_complement(ids: UInt8[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """The other strand, read in its own direction: the last axis reversed and each base complemented (N stays N)."""
    return COMPLEMENT[ids[..., ::-1]]
