"""Counts of a base between its neighbours: the baseline that a masked language model has to beat.

The probability of a base between k bases on either side is mixed with that between fewer of them,

    p_k(b | l, r) = (n_k(l, b, r) + m p_{k-1}(b | l', r')) / (n_k(l, r) + m),        p_{-1} = 1/4,

as in `genomamba.language_model.markov`, where k and m are chosen on validation windows too. It is asked exactly what
the network is: neighbours that are hidden, unknown or beyond the window's end shorten the context on both sides.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float64, Int, Integer

from genomamba import tokens
from genomamba.language_model.data import GenomeWindows
from genomamba.language_model.markov import STRENGTHS
from genomamba.language_model.objectives import Objective

MOST_NEIGHBOURS: Final = 5
"""On either side; the counts of all contexts then take 34 MB."""


class BothSides:
    """Counts of every base between up to `most` neighbours on either side, on both strands.

    Args:
        train: the training windows, read from the strand of the file.
        most: neighbours of the longest context.
    """

    def __init__(self, train: GenomeWindows, most: int | None = None) -> None:
        if most is None:
            most = min(MOST_NEIGHBOURS, max(0, round(math.log(max(4, train.windows.bases), 16))))
        self.n_bases = 0
        self.tables = [np.zeros((16**k, 4), np.int64) for k in range(most + 1)]
        for ids in train.blocks():
            for strand in (ids, tokens.reverse_complement(ids)):
                self._add(np.ascontiguousarray(strand))

    def _add(self, ids: Integer[np.ndarray, "windows length"]) -> None:
        base = ids.astype(np.int64) - tokens.FIRST_BASE
        contexts = _contexts(base, len(self.tables) - 1)
        known = (base >= 0) & (base < 4)
        self.n_bases += int(known.sum())
        for table, context in zip(self.tables, contexts, strict=True):
            there = known & (context >= 0)
            table += np.bincount(4 * context[there] + base[there], minlength=table.size).reshape(-1, 4)

    def nats(self, windows: GenomeWindows, objective: Objective) -> Float64[np.ndarray, "windows k strengths"]:
        """Nats of each window's answers for every k and every strength, (windows, k, strengths)."""
        found = []
        for ids in windows.blocks():
            question = objective.scoring(torch.from_numpy(ids))
            inputs, targets = question.inputs.numpy().astype(np.int64), question.targets.numpy()
            contexts = _contexts(inputs - tokens.FIRST_BASE, len(self.tables) - 1)
            asked = targets >= 0
            row, base = np.nonzero(asked)[0], targets[asked] - tokens.FIRST_BASE
            mixed = np.full((len(STRENGTHS), len(base)), 0.25)
            strengths = np.array(STRENGTHS)[:, None]
            each = np.zeros((len(ids), len(self.tables), len(STRENGTHS)))
            for k, table in enumerate(self.tables):
                context = contexts[k][asked]
                there = context >= 0
                seen = table[context[there]]
                hits = np.take_along_axis(seen, base[there][:, None], axis=1)[:, 0]
                mixed[:, there] = (hits + strengths * mixed[:, there]) / (seen.sum(axis=1) + strengths)
                for column, losses in enumerate(-np.log(mixed)):
                    each[:, k, column] = np.bincount(row, losses, len(ids))
            found.append(each)
        return np.concatenate(found)

    def judge(self, valid: GenomeWindows, test: GenomeWindows, objective: Objective) -> dict[str, Any]:
        """The best k and m on validation, and what they cost there and on the test windows.

        Returns:
            Plain values, and under `test_nats` those of each test window.
        """
        on_valid = self.nats(valid, objective)
        k, column = np.unravel_index(int(on_valid.sum(0).argmin()), on_valid.shape[1:])
        test_nats = self.nats(test, objective)[:, k, column]
        bases = [_asked(windows, objective) for windows in (valid, test)]
        return {
            "neighbours": int(k),
            "strength": STRENGTHS[int(column)],
            "bases_seen": self.n_bases,
            "valid_bits": float(on_valid[:, k, column].sum() / max(1, bases[0]) / math.log(2)),
            "test_bits": float(test_nats.sum() / max(1, bases[1]) / math.log(2)),
            "test_nats": test_nats,
        }


def _asked(windows: GenomeWindows, objective: Objective) -> int:
    return sum(int((objective.scoring(torch.from_numpy(ids)).targets >= 0).sum()) for ids in windows.blocks())


def _contexts(base: Integer[np.ndarray, "windows length"], most: int) -> list[Int[np.ndarray, "windows length"]]:
    """For k = 0 .. `most`, the k bases before and after each position in base four; -1 where one is no base."""
    known = (base >= 0) & (base < 4)
    letters = np.where(known, base, 0)
    context = np.zeros(base.shape, np.int64)
    valid = np.ones(base.shape, bool)
    found = [context.copy()]
    for k in range(1, most + 1):
        before, after = np.zeros_like(letters), np.zeros_like(letters)
        there = np.zeros((2, *base.shape), bool)
        before[:, k:], there[0, :, k:] = letters[:, :-k], known[:, :-k]
        after[:, :-k], there[1, :, :-k] = letters[:, k:], known[:, k:]
        context = context * 16 + 4 * before + after
        valid &= there.all(0)
        found.append(np.where(valid, context, -1))
    return found
