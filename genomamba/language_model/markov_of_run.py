"""The Markov models that a run is judged by: of exactly what the model has seen, and of all training bases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from genomamba.language_model.data import GenomeWindows
from genomamba.language_model.markov import (
    HIGHEST_ORDER,
    MAX_ORDER,
    MarkovCounts,
    score,
    score_blocks,
    table_bytes,
)
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
        test_nats: of each test window, if these were scored.
    """

    order: int
    strength: float
    valid_bits: float
    test_bits: float | None
    bases_seen: int
    by_order: list[tuple[int, float, float]]
    test_nats: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without those of single windows."""
        plain = {key: value for key, value in vars(self).items() if key != "test_nats"}
        return {**plain, "by_order": [list(row) for row in self.by_order]}


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
        return _judged(self._counts, valid, test)

    def _add(self, keys: np.ndarray) -> None:
        strands = self._train.dataset.is_reversed(*keys.T).astype(np.int64)
        _, first = np.unique(np.stack([strands, keys[:, 1]]), axis=1, return_index=True)
        fresh = first[~self._seen[strands[first], keys[first, 1]]]
        self._seen[strands[fresh], keys[fresh, 1]] = True
        if len(fresh):
            self._counts.add(self._train.dataset.__getitems__([tuple(key) for key in keys[fresh].tolist()]))


def markov_of_all(
    train: GenomeWindows, valid: GenomeWindows, test: GenomeWindows, *, max_order: int | None = None
) -> MarkovResult:
    """The best Markov model of all training windows on both strands, of contexts up to `max_order` bases.

    By default the contexts are as long as memory and bases permit. Counting takes a second or two for each hundred
    million bases; nothing that a network does is as cheap.
    """
    counts = MarkovCounts(affordable_order(2 * train.windows.bases) if max_order is None else max_order)
    for ids in GenomeWindows(train.dataset.genome, train.windows).blocks():
        counts.add(ids, both_strands=True)
    return _judged(counts, valid, test)


def affordable_order(bases: int) -> int:
    """The longest context worth counting for so many bases: seen once each at most, within a third of free memory."""
    order = min(HIGHEST_ORDER, math.ceil(math.log(max(4, bases), 4)))
    free = psutil.virtual_memory().available
    while order > 0 and table_bytes(order) > free // 3:
        order -= 1
    return order


def _judged(counts: MarkovCounts, valid: GenomeWindows, test: GenomeWindows | None) -> MarkovResult:
    """Chooses order and strength on validation windows, and scores that model on test windows."""
    tables = counts.tables()
    chosen = score_blocks(tables, valid.blocks())
    order, strength, bits = chosen.best
    if test is None:
        return MarkovResult(order, strength, bits, None, counts.n_bases, chosen.by_order())
    nats, n_targets = [], 0
    for ids in test.blocks(test.windows.window):
        scored = score(tables[: order + 1], ids, (strength,))
        nats.append(scored.at(order, strength) * math.log(2) * scored.n_targets if scored.n_targets else 0.0)
        n_targets += scored.n_targets
    test_bits = sum(nats) / math.log(2) / max(1, n_targets)
    return MarkovResult(order, strength, bits, test_bits, counts.n_bases, chosen.by_order(), np.array(nats))
