"""The baseline every classifier is shown beside: logistic regression on k-mer frequencies.

`k` and the regularisation strength are chosen on the validation split; the test split is scored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from genomamba.classifier.metrics import Metrics, negative_log_likelihood, score

_CODE = np.full(256, 4, np.uint8)
_CODE[np.frombuffer(b"ACGTacgt", np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]

KMER_SIZES = (3, 4, 5, 6)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class KmerResult:
    """The chosen baseline and its scores.

    Attributes:
        k: word length chosen on validation.
        strength: scikit-learn's `C` chosen on validation.
        n_train: examples it was fitted on (large training sets are thinned evenly).
        probabilities: of the test examples, (M, C).
    """

    k: int
    strength: float
    n_train: int
    validation: Metrics
    test: Metrics
    probabilities: np.ndarray

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON (probabilities left out)."""
        return {
            "k": self.k,
            "C": self.strength,
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
    """Fits every (k, C), keeps the one with the highest validation MCC (then likelihood), scores it on test.

    Each split is (re-iterable ASCII sequences, labels).
    """
    best: tuple[tuple[float, float], int, float, LogisticFit, Metrics] | None = None
    for k in sizes:
        fitted_on, judged_on = kmer_table(train[0], k), kmer_table(valid[0], k)
        for strength in strengths:
            fit = fit_logistic(fitted_on, train[1], n_classes, strength)
            probabilities = fit.probabilities(judged_on)
            metrics = score(valid[1], probabilities)
            rank = (round(metrics.mcc, 6), -negative_log_likelihood(valid[1], probabilities))
            if best is None or rank > best[0]:
                best = (rank, k, strength, fit, metrics)
        if progress is not None:
            progress(f"{k}-mer logistic regression fitted")
    if best is None:
        raise ValueError("at least one k and one strength are needed")
    _, k, strength, fit, metrics = best
    probabilities = fit.probabilities(kmer_table(test[0], k))
    return KmerResult(k, strength, len(train[1]), metrics, score(test[1], probabilities), probabilities)
