"""K-mer frequencies against counting by hand, and the baseline where there is and is not something to learn."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.classifier.kmers import kmer_baseline, kmer_frequencies, merged_strands


@settings(deadline=None, max_examples=30)
@given(text=st.text(alphabet="ACGTN", max_size=40), k=st.integers(1, 3))
def test_frequencies_are_those_of_counting(text: str, k: int) -> None:
    words = [text[i : i + k] for i in range(len(text) - k + 1)]
    whole = [word for word in words if "N" not in word]
    expected = [whole.count("".join(w)) / max(len(whole), 1) for w in product("ACGT", repeat=k)]
    assert kmer_frequencies(np.frombuffer(text.encode(), np.uint8), k) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_merged_strands_are_those_of_both_readings(k: int) -> None:
    text = "".join(np.random.default_rng(k).choice(list("ACGT"), 300))
    other = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
    one, two = (kmer_frequencies(np.frombuffer(t.encode(), np.uint8), k)[None] for t in (text, other))
    merged = merged_strands(one)
    assert merged.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(merged, merged_strands(two), atol=1e-7)
    palindromes = 0 if k % 2 else 4 ** (k // 2)
    assert merged.shape == (1, (4**k + palindromes) // 2)


def test_probabilities_are_tempered_and_the_best_on_validation() -> None:
    rng = np.random.default_rng(3)
    train, valid, test = (_split(rng, n, (0.6, 0.4)) for n in (300, 200, 200))
    found = kmer_baseline(train, valid, test, 2, sizes=(2, 3), strengths=(1e-4, 1e-1))
    for strength in (1e-4, 1e-1):
        alone = kmer_baseline(train, valid, test, 2, sizes=(3,), strengths=(strength,))
        assert alone.temperature != pytest.approx(1.0, abs=1e-3)
        assert found.validation.nll <= alone.validation.nll + 1e-9
    sure = kmer_baseline(train, valid, test, 2, sizes=(3,), strengths=(1e-4,))
    assert sure.temperature < 0.7  # so strongly held back, its untempered probabilities are far too unsure
    assert sure.validation.ece < 0.1


@pytest.mark.parametrize("nothing", [{"sizes": ()}, {"strengths": ()}])
def test_a_baseline_of_nothing_is_refused(nothing: dict[str, tuple[()]]) -> None:
    split = _split(np.random.default_rng(0), 4, (0.6, 0.4))
    with pytest.raises(ValueError, match="at least one k and one strength"):
        kmer_baseline(split, split, split, 2, **nothing)


def _split(rng: np.random.Generator, n: int, shares: tuple[float, float]) -> tuple[list[np.ndarray], np.ndarray]:
    labels = np.arange(n) % 2
    made = [
        rng.choice(np.frombuffer(b"ACGT", np.uint8), 80, p=[s / 2, (1 - s) / 2, (1 - s) / 2, s / 2])
        for s in (shares[label] for label in labels)
    ]
    return made, labels


def test_composition_is_learnt_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    real = [_split(rng, n, (0.65, 0.35)) for n in (120, 60, 100)]
    noise = [_split(rng, n, (0.5, 0.5)) for n in (120, 60, 100)]
    found = kmer_baseline(*real, 2, sizes=(1, 2), strengths=(0.01, 0.1))
    assert found.test.accuracy > 0.95
    assert found.probabilities.sum(1) == pytest.approx(np.ones(100))
    assert abs(kmer_baseline(*noise, 2, sizes=(1, 2), strengths=(0.01, 0.1)).test.accuracy - 0.5) < 0.2
