"""What a classifier is compared with on the same splits: k-mers, length and gaps alone, and the majority class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.kmers import KmerResult, fit_logistic, kmer_baseline
from genomamba.classifier.metrics import Metrics, majority, measure

MAX_EXAMPLES = 100_000
"""So that a table of the frequencies of all 6-mers stays within 2 GB."""


@dataclass(frozen=True, eq=False)
class Baselines:
    """Scores on the test split.

    Attributes:
        kmer: logistic regression on k-mers, k and C chosen on validation.
        shortcut: logistic regression on length and share of unknown bases alone; above chance means the data give
            the classes away without their sequence.
        majority: the training split's class frequencies as the answer.
    """

    kmer: KmerResult
    shortcut: Metrics
    majority: Metrics

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON."""
        return {
            "kmer": self.kmer.to_dict(),
            "shortcut": self.shortcut.to_dict(),
            "majority": self.majority.to_dict(),
        }


def fit_baselines(data: LabelledData, progress: Callable[[str], None] | None = None) -> Baselines:
    """Fits every baseline on train, chooses on validation, scores on test.

    Training and validation splits are used whole up to `MAX_EXAMPLES`, and thinned evenly to that; the test split is
    scored whole.
    """
    n = len(data.classes)
    train, valid, test = _limited(data.train), _limited(data.valid), data.test
    kmer = kmer_baseline((train, train.labels), (valid, valid.labels), (test, test.labels), n, progress=progress)
    fit = fit_logistic(_outside(train), train.labels, n, 1.0)
    return Baselines(
        kmer, measure(test.labels, fit.probabilities(_outside(test))), majority(data.train.labels, test.labels, n)
    )


def paired_difference(labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> tuple[int, int, float]:
    """Test examples that only we, and only they, get right, and the two-sided p of such a difference by chance.

    This is the exact form of McNemar's test (1947).
    """
    we, they = ours.argmax(1) == labels, theirs.argmax(1) == labels
    only_we, only_they = int((we & ~they).sum()), int((they & ~we).sum())
    total = only_we + only_they
    return only_we, only_they, float(binomtest(only_we, total).pvalue) if total else 1.0


def _limited(examples: Examples) -> Examples:
    return examples.thinned(MAX_EXAMPLES)


def _outside(examples: Examples) -> np.ndarray:
    """Length and share of unknown bases of each example, (M, 2)."""
    known = [np.isin(bases, np.frombuffer(b"ACGT", np.uint8)).mean() if len(bases) else 0.0 for bases in examples]
    return np.stack([examples.lengths().astype(np.float64), 1 - np.array(known)], 1)
