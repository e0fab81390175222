"""The baselines every classifier is shown beside: logistic regression on k-mer frequencies, and on aligned letters.

`k`, the regularisation strength and whether words of the other strand count too are chosen on the validation split, on
which the probabilities are tempered as the model's are; the test split is scored once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genomamba import tokens
from genomamba.classifier.config import LinearShape
from genomamba.classifier.metrics import Metrics, fit_temperature, measure, negative_log_likelihood, softmax

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

_CODE = np.full(256, 4, np.uint8)
_CODE[np.frombuffer(b"ACGTacgt", np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]

KMER_SIZES = (3, 4, 5, 6)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
LETTER_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)

_LOWEST_TEMPERATURE = 0.01
"""A strong penalty shrinks logits to hundredths; tempering must be able to undo that."""
_LEAST = 1e-12
"""The lowest probability that is tempered; a logarithm of zero could not be."""


@dataclass(frozen=True)
class Regression:
    """A chosen regression and its scores.

    Attributes:
        shape: its features; word length and strands are chosen on validation.
        fit: the regression itself.
        strength: scikit-learn's `C` chosen on validation.
        temperature: divides the logits, fitted on validation.
        n_train: examples it was fitted on.
        probabilities: of the test examples, (M, C).
    """

    shape: LinearShape
    fit: LogisticFit
    strength: float
    temperature: float
    n_train: int
    validation: Metrics
    test: Metrics
    probabilities: np.ndarray

    @property
    def k(self) -> int:
        """Bases of a word."""
        return self.shape.k

    @property
    def both_strands(self) -> bool:
        """Whether a word and its reverse complement count as one."""
        return self.shape.both_strands

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON (fit and probabilities left out)."""
        words = {"k": self.k, "both_strands": self.both_strands} if self.shape.features == "kmers" else {}
        return {
            **words,
            "C": self.strength,
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
        words = words * 4 + letter
        valid &= letter < 4
    counts = np.bincount(words[valid], minlength=4**k)
    return (counts / max(int(valid.sum()), 1)).astype(np.float32)


def kmer_table(sequences: Iterable[np.ndarray], k: int) -> np.ndarray:
    """K-mer frequencies of many sequences, (M, 4**k)."""
    return np.stack([kmer_frequencies(bases, k) for bases in sequences])


def merged_words(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Words as one with their reverse complements.

    Returns:
        The reverse complement of each word (4**k,), and the place of each word among those that come first of the two,
        (4**k,).
    """
    words = np.arange(4**k)
    other, rest = np.zeros(4**k, np.int64), words.copy()
    for _ in range(k):
        other, rest = other * 4 + 3 - rest % 4, rest // 4
    place = np.cumsum(words <= other) - 1
    return other, place[np.minimum(words, other)]


def merged_strands(frequencies: np.ndarray) -> np.ndarray:
    """Frequencies (M, 4**k) with each word and its reverse complement as one: (M, words that come first of the two)."""
    n_words = frequencies.shape[1]
    other, _ = merged_words(round(math.log(n_words, 4)))
    words = np.arange(n_words)
    first = words <= other
    twice = (words < other)[first].astype(np.float32)  # a word that is its own reverse complement counts once
    return frequencies[:, first] + twice * frequencies[:, other[first]]


def letter_table(sequences: list[np.ndarray], places: int) -> np.ndarray:
    """The letters of ASCII sequences as `LinearPart` reads them, float32 (M, 4 places)."""
    ids = np.full((len(sequences), places), tokens.PAD, np.uint8)
    for row, bases in zip(ids, sequences, strict=True):
        row[: min(len(bases), places)] = tokens.encode(bases[:places])
    return (ids[..., None] == np.arange(4, dtype=np.uint8) + tokens.FIRST_BASE).reshape(len(ids), -1).astype(np.float32)


def fit_logistic(features: np.ndarray, labels: np.ndarray, n_classes: int, strength: float) -> LogisticFit:
    """Standardises features (M, F) and fits a class-balanced logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

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

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (C, F) and biases (C,) that give the logits from plain features, up to a number a row shares."""
        coefficients, intercepts = self.model.coef_, self.model.intercept_
        if len(self.model.classes_) == 2:  # scikit-learn keeps the second class's logit over the first's
            coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
            intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
        mean, scale = np.asarray(self.scaler.mean_), np.asarray(self.scaler.scale_)
        scaled = coefficients / scale
        weight, bias = np.zeros((self.n_classes, scaled.shape[1])), np.full(self.n_classes, math.log(_LEAST))
        weight[self.model.classes_], bias[self.model.classes_] = scaled, intercepts - scaled @ mean
        return weight.astype(np.float32), bias.astype(np.float32)


def kmer_baseline(
    train: tuple[Iterable[np.ndarray], np.ndarray],
    valid: tuple[Iterable[np.ndarray], np.ndarray],
    test: tuple[Iterable[np.ndarray], np.ndarray],
    n_classes: int,
    *,
    sizes: tuple[int, ...] = KMER_SIZES,
    strengths: tuple[float, ...] = STRENGTHS,
    stranded: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Regression:
    """Fits every (k, strands, C), keeps the one with the highest likelihood on validation, scores it on test.

    Each split is (re-iterable ASCII sequences, labels). Where strand means nothing (`stranded` false), a word and its
    reverse complement always count as one, so that both strands get the same answer.
    """
    best: _Candidate | None = None
    for k in sizes:
        tables = kmer_table(train[0], k), kmer_table(valid[0], k)
        for both_strands in (False, True) if stranded else (True,):
            fitted_on, judged_on = map(merged_strands, tables) if both_strands else tables
            for strength in strengths:
                fit = fit_logistic(fitted_on, train[1], n_classes, strength)
                shape = LinearShape(k=k, both_strands=both_strands)
                best = _Candidate.judged(fit, judged_on, valid[1], shape, strength).better(best)
        if progress is not None:
            progress(f"{k}-mer logistic regression fitted")
    if best is None:
        raise ValueError("at least one k and one strength are needed")
    on_valid, on_test = (kmer_table(split[0], best.shape.k) for split in (valid, test))
    if best.shape.both_strands:
        on_valid, on_test = merged_strands(on_valid), merged_strands(on_test)
    return best.scored(len(train[1]), on_valid, on_test, valid[1], test[1])


def letters_baseline(
    train: tuple[Iterable[np.ndarray], np.ndarray],
    valid: tuple[Iterable[np.ndarray], np.ndarray],
    test: tuple[Iterable[np.ndarray], np.ndarray],
    n_classes: int,
    places: int,
    *,
    strengths: tuple[float, ...] = LETTER_STRENGTHS,
) -> Regression:
    """As `kmer_baseline`, on the letter at each of `places` places of aligned sequences (one-hot)."""
    shape = LinearShape(features="letters", places=places)
    tables = [letter_table(list(split[0]), places) for split in (train, valid, test)]
    best: _Candidate | None = None
    for strength in strengths:
        fit = fit_logistic(tables[0], train[1], n_classes, strength)
        best = _Candidate.judged(fit, tables[1], valid[1], shape, strength).better(best)
    if best is None:
        raise ValueError("at least one strength is needed")
    return best.scored(len(train[1]), tables[1], tables[2], valid[1], test[1])


@dataclass(frozen=True)
class _Candidate:
    """One of the regressions that are tried, tempered, with its validation likelihood (mean nats lost)."""

    fit: LogisticFit
    shape: LinearShape
    strength: float
    temperature: float
    nll: float

    @classmethod
    def judged(
        cls, fit: LogisticFit, features: np.ndarray, labels: np.ndarray, shape: LinearShape, strength: float
    ) -> _Candidate:
        """Temper a regression on validation examples, and say how likely it makes their labels."""
        logits = fit.logits(features)
        temperature = fit_temperature(labels, logits, lowest=_LOWEST_TEMPERATURE)
        return cls(fit, shape, strength, temperature, negative_log_likelihood(labels, softmax(logits, temperature)))

    def better(self, other: _Candidate | None) -> _Candidate:
        """The one of two under which validation is likelier, the other where they are alike."""
        return self if other is None or self.nll < other.nll else other

    def scored(
        self, n_train: int, valid: np.ndarray, test: np.ndarray, valid_labels: np.ndarray, test_labels: np.ndarray
    ) -> Regression:
        """The regression with its scores, from features of both held-out splits."""
        on_valid, on_test = (softmax(self.fit.logits(features), self.temperature) for features in (valid, test))
        return Regression(
            self.shape, self.fit, self.strength, self.temperature, n_train, measure(valid_labels, on_valid),
            measure(test_labels, on_test), on_test,
        )  # fmt: skip
