"""Whether a language model gains by context: its perplexity by the length of its windows, and by the place in them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from genomamba.language_model.data import GenomeWindows
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.objectives import IGNORED
from genomamba.language_model.scoring import evaluate_windows
from mamba_data_prep.genomes.windows import cut

_FIRST_OCTAVE: Final = 4
"""Bases with fewer than 2^4 beside them are told together."""


def by_length(model: GenomeLM, windows: GenomeWindows, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Scores the same bases in windows of several lengths.

    Args:
        model: on its device.
        windows: held out, whose bases are read.
        lengths: bases of the shorter windows that each of these is cut into, and of the whole.

    Returns:
        For each length `length`, and nats, bits, perplexity and bases as `LanguageScore` has them.
    """
    found = []
    for length in lengths:
        table = windows.windows
        if length < table.window:
            table = cut(windows.dataset.genome, table, length, max_n_fraction=1.0)
        scored = evaluate_windows(model, GenomeWindows(windows.dataset.genome, table))
        found.append({"length": length, **scored.to_dict()})
    return found


@torch.no_grad()
def by_position(model: GenomeLM, windows: GenomeWindows) -> list[dict[str, Any]]:
    """Scores bases by how many bases their window has before them, or, looking both ways, up to its nearer end.

    Args:
        model: on its device.
        windows: held out.

    Returns:
        Rows from `first` to `last` such bases, each twice as far as the one before: bits, perplexity and bases.
    """
    length, device = windows.windows.window, next(model.parameters()).device
    place = np.arange(length)
    beside = place + 1 if model.objective.looks_ahead else np.minimum(place, length - 1 - place)
    octave = np.maximum(np.log2(np.maximum(beside, 1)).astype(np.int64) + 1, _FIRST_OCTAVE) - _FIRST_OCTAVE
    sums, counts = np.zeros(octave.max() + 1), np.zeros(octave.max() + 1)
    was_training = model.training
    model.eval()
    for block in windows.blocks(2**14):
        question = model.objective.scoring(torch.from_numpy(block).to(device))
        logits = model(question.inputs).float().transpose(1, 2)
        nats = functional.cross_entropy(logits, question.targets, ignore_index=IGNORED, reduction="none")
        sums += np.bincount(octave, nats.double().sum(0).cpu().numpy(), len(sums))
        counts += np.bincount(octave, (question.targets != IGNORED).sum(0).cpu().numpy(), len(counts))
    model.train(was_training)
    edges = [
        0 if not model.objective.looks_ahead else 1,
        *(2**n for n in range(_FIRST_OCTAVE, _FIRST_OCTAVE + len(sums))),
    ]
    rows = []
    for (first, end), nats, n in zip(itertools.pairwise(edges), sums.tolist(), counts.tolist(), strict=True):
        if n:
            mean = nats / n
            bits = {"bits": mean / math.log(2), "perplexity": math.exp(mean), "n_bases": int(n)}
            rows.append({"first": first, "last": min(end - 1, int(beside.max())), **bits})
    return rows
