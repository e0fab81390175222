"""The baseline every classifier is shown beside: logistic regression on k-mer frequencies.

`k`, the regularisation strength and whether words of the other strand count too are chosen on the validation split, on
which the probabilities are tempered as the model's are; the test split is scored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from genomamba.classifier.metrics import Metrics, fit_temperature, measure, negative_log_likelihood, softmax

_CODE = np.full(256, 4, np.uint8)
_CODE[np.frombuffer(b"ACGTacgt", np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]

KMER_SIZES = (3, 4, 5, 6)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)

_LOWEST_TEMPERATURE = 0.01
"""A strong penalty shrinks logits to hundredths; tempering must be able to undo that."""
_LEAST = 1e-12
"""The lowest probability that is tempered; a logarithm of zero could not be."""


@dataclass(frozen=True)
class KmerResult:
    """The chosen baseline and its scores.

    Attributes:
        k: word length chosen on validation.
        strength: scikit-learn's `C` chosen on validation.
        both_strands: whether a word and its reverse complement count as one, chosen on validation.
        temperature: divides the logits, fitted on validation.
        n_train: examples it was fitted on.
        probabilities: of the test examples, (M, C).
    """

    k: int
    strength: float
    both_strands: bool
    temperature: float
    n_train: int
    validation: Metrics
    test: Metrics
    probabilities: np.ndarray

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON (probabilities left out)."""
        return {
            "k": self.k,
            "C": self.strength,
            "both_strands": self.both_strands,
            "temperature": self.temperature,
            "n_train": self.n_train,
            "validation": self.validation.to_dict(),
            "test": self.test.to_dict(),
        }


def kmer_frequencies(bases: np.ndarray, k: int) -> np.ndarray:
    """Frequencies (4**k,) of the words of `k` bases in an ASCII sequence; words with other letters do not count."""
    n_words = len(bases) - k + 1
    if n_words < 1:
        return np.zeros(4**k, np.float32)
    codes = _CODE[bases].astype(np.int64)
    words, valid = np.zeros(n_words, np.int64), np.ones(n_words, bool)
    for offset in range(k):
        letter = codes[offset : offset + n_words]
        words = words * 4 + np.minimum(letter, 3)
        valid &= letter < 4
    counts = np.bincount(words[valid], minlength=4**k)
    return (counts / max(int(valid.sum()), 1)).astype(np.float32)


def kmer_table(sequences: Iterable[np.ndarray], k: int) -> np.ndarray:
    """K-mer frequencies of many sequences, (M, 4**k)."""
    return np.stack([kmer_frequencies(bases, k) for bases in sequences])


def merged_strands(frequencies: np.ndarray) -> np.ndarray:
    """Frequencies (M, 4**k) with each word and its reverse complement as one: (M, words that come first of the two)."""
    n_words = frequencies.shape[1]
    words = np.arange(n_words)
    other, rest = np.zeros(n_words, np.int64), words.copy()
    while n_words > 1:
        other, rest, n_words = other * 4 + 3 - rest % 4, rest // 4, n_words // 4
    first = words <= other
    twice = (words < other)[first].astype(np.float32)  # a word that is its own reverse complement counts once
    return frequencies[:, first] + twice * frequencies[:, other[first]]


def fit_logistic(features: np.ndarray, labels: np.ndarray, n_classes: int, strength: float) -> LogisticFit:
    """Standardises features (M, F) and fits a class-balanced logistic regression."""
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=200, tol=1e-3)
    model.fit(scaler.transform(features), labels)
    return LogisticFit(scaler, model, n_classes)


@dataclass(frozen=True)
class LogisticFit:
    """A fitted scaler and regression; probabilities cover all classes, also those absent from training."""

    scaler: StandardScaler
    model: LogisticRegression
    n_classes: int

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities (M, C) of features (M, F)."""
        full = np.zeros((len(features), self.n_classes))
        full[:, self.model.classes_] = self.model.predict_proba(self.scaler.transform(features))
        return full

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logarithms of the probabilities (M, C); a class that training lacks has a very low one."""
        return np.log(np.maximum(self.probabilities(features), _LEAST))


def kmer_baseline(
    train: tuple[Iterable[np.ndarray], np.ndarray],
    valid: tuple[Iterable[np.ndarray], np.ndarray],
    test: tuple[Iterable[np.ndarray], np.ndarray],
    n_classes: int,
    *,
    sizes: tuple[int, ...] = KMER_SIZES,
    strengths: tuple[float, ...] = STRENGTHS,
    progress: Callable[[str], None] | None = None,
) -> KmerResult:
    """Fits every (k, strands, C), keeps the one with the highest likelihood on validation, scores it on test.

    Each split is (re-iterable ASCII sequences, labels).
    """
    best: _Candidate | None = None
    for k in sizes:
        tables = kmer_table(train[0], k), kmer_table(valid[0], k)
        for both_strands in (False, True):
            fitted_on, judged_on = map(merged_strands, tables) if both_strands else tables
            for strength in strengths:
                fit = fit_logistic(fitted_on, train[1], n_classes, strength)
                found = _Candidate.judged(fit, judged_on, valid[1], k=k, strength=strength, both_strands=both_strands)
                if best is None or found.nll < best.nll:
                    best = found
        if progress is not None:
            progress(f"{k}-mer logistic regression fitted")
    if best is None:
        raise ValueError("at least one k and one strength are needed")
    probabilities = best.probabilities(kmer_table(test[0], best.k))
    return KmerResult(
        best.k,
        best.strength,
        best.both_strands,
        best.temperature,
        len(train[1]),
        measure(valid[1], best.probabilities(kmer_table(valid[0], best.k))),
        measure(test[1], probabilities),
        probabilities,
    )


@dataclass(frozen=True)
class _Candidate:
    """One of the regressions that are tried, tempered, with its validation likelihood (mean nats lost)."""

    fit: LogisticFit
    k: int
    strength: float
    both_strands: bool
    temperature: float
    nll: float

    @classmethod
    def judged(cls, fit: LogisticFit, features: np.ndarray, labels: np.ndarray, **how: Any) -> _Candidate:
        """Temper a regression on validation examples, and say how likely it makes their labels."""
        logits = fit.logits(features)
        temperature = fit_temperature(labels, logits, lowest=_LOWEST_TEMPERATURE)
        return cls(
            fit, temperature=temperature, nll=negative_log_likelihood(labels, softmax(logits, temperature)), **how
        )

    def probabilities(self, table: np.ndarray) -> np.ndarray:
        """Tempered class probabilities (M, C) of k-mer frequencies (M, 4**k)."""
        return softmax(self.fit.logits(merged_strands(table) if self.both_strands else table), self.temperature)
