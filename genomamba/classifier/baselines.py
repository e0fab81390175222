"""What a classifier is compared with on the same splits: regressions, a small CNN, length and gaps, the majority."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.kmers import Regression, fit_logistic, kmer_baseline, letter_table, letters_baseline
from genomamba.classifier.metrics import Metrics, majority, measure
from genomamba.classifier.small_cnn import CnnResult, cnn_baseline

MAX_EXAMPLES = 100_000
"""So that a table of the frequencies of all 6-mers stays within 2 GB."""
_MOST_PLACES = 2048
_TABLE_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Baselines:
    """Scores on the test split.

    Attributes:
        kmer: logistic regression on k-mers, k and C chosen on validation.
        letters: logistic regression on the letter at each place, where sequences are aligned, or None.
        cnn: a small convolutional network there, or None.
        shortcut: logistic regression on length and share of unknown bases alone; above chance means the data give
            the classes away without their sequence.
        majority: the training split's class frequencies as the answer.
        shortcuts: the same with one of them alone, and with the share of G and C, by name.
    """

    kmer: Regression
    shortcut: Metrics
    majority: Metrics
    letters: Regression | None = None
    cnn: CnnResult | None = None
    shortcuts: Mapping[str, Metrics] = field(default_factory=dict)

    @property
    def regression(self) -> Regression:
        """The regression under which validation is likelier: the one that becomes a part of the classifier."""
        if self.letters is not None and self.letters.validation.nll < self.kmer.validation.nll:
            return self.letters
        return self.kmer

    @property
    def strongest(self) -> tuple[str, Metrics, np.ndarray]:
        """The baseline under which validation is likeliest: its name, its test scores and its test probabilities."""
        named: dict[str, Regression | CnnResult] = {f"{self.kmer.k}-mer logistic regression": self.kmer}
        if self.letters is not None:
            named["one-hot logistic regression"] = self.letters
        if self.cnn is not None:
            named["small CNN"] = self.cnn
        name = min(named, key=lambda one: named[one].validation.nll)
        return name, named[name].test, named[name].probabilities

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON."""
        return {
            "kmer": self.kmer.to_dict(),
            **({} if self.letters is None else {"letters": self.letters.to_dict()}),
            **({} if self.cnn is None else {"cnn": self.cnn.to_dict()}),
            "shortcut": self.shortcut.to_dict(),
            "shortcuts": {name: metrics.to_dict() for name, metrics in self.shortcuts.items()},
            "majority": self.majority.to_dict(),
        }


def fit_baselines(data: LabelledData, progress: Callable[[str], None] | None = None) -> Baselines:
    """Fits every baseline on train, chooses on validation, scores on test.

    Training and validation splits are used whole up to `MAX_EXAMPLES`, and thinned evenly to that; the test split is
    scored whole.
    """
    n = len(data.classes)
    train, valid, test = _limited(data.train), _limited(data.valid), data.test
    pairs = ((train, train.labels), (valid, valid.labels), (test, test.labels))
    kmer = kmer_baseline(*pairs, n, stranded=data.stranded, progress=progress)
    seen, held_out = _outside(train), _outside(test)

    def reached(columns: list[int]) -> Metrics:
        fit = fit_logistic(seen[:, columns], train.labels, n, 1.0)
        return measure(test.labels, fit.probabilities(held_out[:, columns]))

    letters, cnn = _of_places(data, n, progress)
    shortcuts = {name: reached([column]) for column, name in enumerate(_OUTSIDE)}
    return Baselines(kmer, reached([0, 1]), majority(data.train.labels, test.labels, n), letters, cnn, shortcuts)


def _of_places(
    data: LabelledData, n_classes: int, progress: Callable[[str], None] | None
) -> tuple[Regression | None, CnnResult | None]:
    """The baselines that look at places, where sequences are aligned and no longer than a table of letters allows."""
    places = data.window
    if not data.aligned or places > _MOST_PLACES:
        return None, None
    limit = min(MAX_EXAMPLES, _TABLE_BYTES // (16 * places))
    splits = [data.train.thinned(limit), data.valid.thinned(limit), data.test]
    pairs = [(split, split.labels) for split in splits]
    letters = letters_baseline(pairs[0], pairs[1], pairs[2], n_classes, places)
    if progress is not None:
        progress("one-hot logistic regression fitted")
    tables = [(letter_table(list(split), places), split.labels) for split in splits]
    cnn = cnn_baseline(tables[0], tables[1], tables[2], n_classes)
    if progress is not None:
        progress(f"small CNN trained, {cnn.epochs} epochs")
    return letters, cnn


def paired_difference(labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> tuple[int, int, float]:
    """Test examples that only we, and only they, get right, and the two-sided p of such a difference by chance.

    This is the exact form of McNemar's test (1947).
    """
    from scipy.stats import binomtest

    we, they = ours.argmax(1) == labels, theirs.argmax(1) == labels
    only_we, only_they = int((we & ~they).sum()), int((they & ~we).sum())
    total = only_we + only_they
    return only_we, only_they, float(binomtest(only_we, total).pvalue) if total else 1.0


def _limited(examples: Examples) -> Examples:
    return examples.thinned(MAX_EXAMPLES)


_OUTSIDE: Final = ("length", "unknown bases", "G and C")


def _outside(examples: Examples) -> np.ndarray:
    """Length, share of unknown bases, and share of G and C among the known ones of each example, (M, 3)."""
    counts = np.stack([np.bincount(bases, minlength=256)[list(b"ACGT")] for bases in examples])
    lengths, known = examples.lengths().astype(np.float64), counts.sum(axis=1)
    return np.stack(
        [lengths, 1 - known / np.maximum(lengths, 1), counts[:, 1:3].sum(axis=1) / np.maximum(known, 1)], axis=1
    )
