"""The probability of every base given those on both sides, under a masked model: every k-th base is hidden in turn.

A base's probability given all others would take a pass of the network for each base. Here one pass hides every k-th
base and asks for these, so that k passes ask for all of them, and each is told of all others but every k-th one:

    log2 p(sequence) ~ sum over t of log2 p(b_t | the bases but those at t + k, t - k, t + 2 k, ...).

That is a pseudo-likelihood (Besag 1975; of proteins and DNA, Salazar et al. 2020): no probability of the whole, but
comparable between sequences under one model. A greater k tells each base of more of the others, and costs more.

A sequence longer than the window is read window by window; of each window only the inner part is scored, so that every
base has at least an eighth of a window on either side but where the sequence ends.

Shapes: `R` passes, `L` bases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from genomamba import tokens
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.objectives import is_base

EVERY: Final = 8
"""How far hidden bases are apart by default; 12.5 % are hidden at a time, about as many as in training."""
_FLANK: Final = 8
"""Of a window, this part on either side is context alone."""


@torch.inference_mode()
def pseudo_log2_p(
    model: GenomeLM,
    ids: Integer[Tensor, "B L"],
    every: int = EVERY,
    *,
    other_strand: bool = False,
    tokens_at_a_time: int,
) -> Float[Tensor, "B L"]:
    """log2 of the probability of each base given those on both sides, float64; NaN at what is no base.

    Args:
        model: a masked model in evaluation mode.
        ids: token ids, on the model's device, without padding.
        every: how far hidden bases are apart.
        other_strand: read the reverse complement; the result is in the order of `ids` all the same.
        tokens_at_a_time: most that go through the model at once (at least one pass does).

    Raises:
        ValueError: the model foretells the next base; see `genomamba.language_model.likelihood`.
    """
    if model.objective.looks_ahead:
        raise ValueError("this model foretells the next base and was never asked for hidden ones")
    length = ids.shape[1]
    place = torch.arange(length, device=ids.device)
    turn = torch.arange(every, device=ids.device)[:, None] == place % every
    hidden = (is_base(ids)[:, None] & turn).flatten(0, 1)  # (B * every, L): what each pass asks for
    given = ids.repeat_interleave(every, dim=0)
    found = torch.full(ids.shape, torch.nan, dtype=torch.float64, device=ids.device)
    chosen = hidden.any(1).nonzero()[:, 0]
    for part in chosen.split(max(1, tokens_at_a_time // length)):
        log2_p = _log2_p(model, given[part], hidden[part], other_strand=other_strand)
        row, column = hidden[part].nonzero(as_tuple=True)
        found[part[row] // every, column] = log2_p[row, column]
    return found


def _log2_p(
    model: GenomeLM, ids: Integer[Tensor, "R L"], hidden: Tensor, *, other_strand: bool
) -> Float[Tensor, "R L"]:
    """log2 of the probability of each base of each pass."""
    complement = torch.from_numpy(tokens.COMPLEMENT).to(ids.device)
    inputs = torch.where(hidden, tokens.MASK, ids)
    if other_strand:
        inputs, ids = complement[inputs.flip(1).long()], complement[ids.flip(1).long()]
    logits = model(inputs)[..., tokens.FIRST_BASE : tokens.FIRST_BASE + 4].double()
    base = (ids.long() - tokens.FIRST_BASE).clamp(0, 3)
    log2_p = logits.log_softmax(dim=2).gather(2, base[..., None])[..., 0] / np.log(2)
    return log2_p.flip(1) if other_strand else log2_p


def inner_windows(length: int, window: int) -> Iterator[tuple[int, int, int, int]]:
    """Windows of a sequence and the inner part of each: `(start, end, inner start, inner end)`, 0-based half-open.

    The inner parts follow on each other and cover the sequence.

    Examples:
        >>> list(inner_windows(20, 8))
        [(0, 8, 0, 7), (6, 14, 7, 13), (12, 20, 13, 20)]
        >>> list(inner_windows(5, 8))
        [(0, 5, 0, 5)]
    """
    flank, done = window // _FLANK, 0
    while done < length:
        start = min(max(0, done - flank), max(0, length - window))
        end = min(start + window, length)
        until = end if end == length else end - flank
        yield start, end, done, until
        done = until
