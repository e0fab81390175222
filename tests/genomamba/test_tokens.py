"""The vocabulary, which other people's checkpoints share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genomamba import tokens

dna = st.text(alphabet="ACGTN", max_size=50)


def test_ids_are_those_of_hyenadna_and_caduceus() -> None:
    assert list(tokens.VOCAB.values()) == list(range(12))
    assert [tokens.VOCAB[base] for base in "ACGTN"] == [7, 8, 9, 10, 11]
    assert tokens.encode("ACGTN").tolist() == [7, 8, 9, 10, 11]
    assert tokens.VOCAB_SIZE == 16


@given(dna)
def test_decode_undoes_encode_whatever_the_case(text: str) -> None:
    assert tokens.decode(tokens.encode(text)) == text
    assert tokens.decode(tokens.encode(text.lower())) == text


@pytest.mark.parametrize("code", "RYSWKMBDHVNryswkmbdhvn")
def test_ambiguity_codes_are_n(code: str) -> None:
    assert tokens.encode(code).tolist() == [tokens.N]


@pytest.mark.parametrize(("letter", "token"), [("U", 10), ("u", 10), ("-", 6), ("E", 6), ("\x00", 4), ("é", 6)])
def test_other_letters(letter: str, token: int) -> None:
    assert tokens.encode(letter).tolist() == [token]


def test_arrays_keep_their_shape_and_type() -> None:
    windows = np.frombuffer(b"ACGTacgt", dtype=np.uint8).reshape(2, 4)
    ids = tokens.encode(windows)
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[7, 8, 9, 10]] * 2


@given(dna)
def test_reverse_complement(text: str) -> None:
    ids = tokens.encode(text)
    expected = text[::-1].translate(str.maketrans("ACGTN", "TGCAN"))
    assert tokens.decode(tokens.reverse_complement(ids)) == expected
    assert np.array_equal(tokens.reverse_complement(tokens.reverse_complement(ids)), ids)


def test_reverse_complement_works_on_the_last_axis() -> None:
    ids = np.stack([tokens.encode("AAC"), tokens.encode("GNT")])
    assert [tokens.decode(row) for row in tokens.reverse_complement(ids)] == ["GTT", "ANC"]


def test_decode_refuses_ids_outside_the_vocabulary() -> None:
    with pytest.raises(ValueError, match="token id 16"):
        tokens.decode(np.array([7, 16], dtype=np.uint8))
    assert tokens.decode(np.array([7, 4, 4], dtype=np.uint8)) == "A"
