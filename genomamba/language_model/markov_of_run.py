"""The Markov baseline of a run: fitted on exactly the windows and strands that the model has seen so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from genomamba.language_model.data import GenomeWindows
from genomamba.language_model.markov import MAX_ORDER, STRENGTHS, MarkovCounts, MarkovScore, score
from mamba_data_prep.sampler import ResumableBatchSampler

_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class MarkovResult:
    """The best Markov model, chosen on validation.

    Attributes:
        order: bases of context.
        strength: m, the weight of the shorter context.
        valid_bits: bits per base on the validation windows.
        test_bits: bits per base on the test windows, if these were scored.
        bases_seen: bases it was fitted on.
        by_order: order, best strength and validation bits per base of every order.
    """

    order: int
    strength: float
    valid_bits: float
    test_bits: float | None
    bases_seen: int
    by_order: list[tuple[int, float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "by_order": [list(row) for row in self.by_order]}


class SeenMarkov:
    """Markov counts that follow a training run.

    The order of windows and their strands depend on the seed alone, so the windows behind any number of samples can be
    read again; nothing about the baseline has to be kept in checkpoints. A window that comes again on the same strand
    is counted once.

    Args:
        train: the training windows, with the run's augmentation.
        seed: of the run's order.
        max_order: longest context; by default 12, or less where the genome is so small that longer contexts than two
            more than log4(bases) would hardly ever come twice.
    """

    def __init__(self, train: GenomeWindows, *, seed: int, max_order: int | None = None) -> None:
        self._train, self._order = train, ResumableBatchSampler(len(train), 1, seed)
        if max_order is None:
            max_order = min(MAX_ORDER, math.ceil(math.log(max(4, train.windows.bases), 4)) + 2)
        self._counts = MarkovCounts(max_order)
        self._samples = 0
        self._seen = np.zeros((2, len(train)), dtype=bool)

    def follow(self, samples: int) -> None:
        """Adds what the run has seen up to `samples` windows since its start."""
        rows = max(1, _AT_A_TIME // self._train.windows.window)
        while self._samples < samples and not self._seen.all():
            last = min(samples, self._samples + rows)
            self._add(np.array([self._order.batch(place)[0] for place in range(self._samples, last)]))
            self._samples = last

    def to_come(self, samples: int) -> int:
        """Bases that `follow(samples)` would read, at most."""
        return (samples - self._samples) * self._train.windows.window

    def result(self, valid: GenomeWindows, test: GenomeWindows | None = None) -> MarkovResult:
        """Chooses order and strength on validation windows, and scores that model on test windows."""
        tables = self._counts.tables()
        chosen = _score(tables, valid, STRENGTHS)
        order, strength, bits = chosen.best
        test_bits = None
        if test is not None:
            test_bits = _score(tables[: order + 1], test, (strength,)).at(order, strength)
        return MarkovResult(order, strength, bits, test_bits, self._counts.n_bases, chosen.by_order())

    def _add(self, keys: np.ndarray) -> None:
        strands = self._train.dataset.is_reversed(*keys.T).astype(np.int64)
        _, first = np.unique(np.stack([strands, keys[:, 1]]), axis=1, return_index=True)
        fresh = first[~self._seen[strands[first], keys[first, 1]]]
        self._seen[strands[fresh], keys[fresh, 1]] = True
        if len(fresh):
            self._counts.add(self._train.dataset.__getitems__([tuple(key) for key in keys[fresh].tolist()]))


def _score(tables: list[np.ndarray], windows: GenomeWindows, strengths: tuple[float, ...]) -> MarkovScore:
    total, n_targets = np.zeros((len(tables), len(strengths))), 0
    for ids in windows.blocks():
        part = score(tables, ids, strengths)
        if part.n_targets:
            total += part.bits * part.n_targets
            n_targets += part.n_targets
    return MarkovScore(total / max(1, n_targets), strengths, n_targets)
