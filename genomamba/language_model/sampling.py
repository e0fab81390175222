"""Sequences drawn from a causal language model, base by base, in constant time and memory a base.

The state of a prompt is read once and shared by all that go on from it. Each sequence has random numbers of its own, so
that it does not depend on which others are drawn beside it.

Shapes: `B` sequences, `L` bases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Integer, UInt8

from genomamba import tokens
from genomamba.language_model.likelihood import PIECE, LikelihoodState, log2_likelihood
from genomamba.language_model.model import GenomeLM
from mamba_data_prep.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How the next base is drawn from its four probabilities.

    Attributes:
        temperature: log-probabilities are divided by it; 0 always takes the likeliest base.
        top_k: only so many of the likeliest bases are drawn; 4 leaves none out.
        top_p: of the likeliest bases only as many as are needed to have this probability together (Holtzman et al.
            2020, nucleus sampling).
    """

    temperature: float | int = 1.0
    top_k: int = 4
    top_p: float | int = 1.0

    def probabilities(self, log2_p: Float64[np.ndarray, "B 4"]) -> Float64[np.ndarray, "B 4"]:
        """Probabilities that bases are drawn with, from those that the model gives them.

        Args:
            log2_p: log2 of the model's.
        """
        order = np.argsort(-log2_p, axis=1, kind="stable")
        ranked = np.take_along_axis(log2_p, order, axis=1)
        if self.temperature == 0:
            p = np.zeros_like(ranked)
            p[:, 0] = 1.0
        else:
            p = np.exp2((ranked - ranked[:, :1]) / self.temperature)
            p[:, self.top_k :] = 0.0
            p /= p.sum(axis=1, keepdims=True)
            before = np.cumsum(p, axis=1) - p
            p[before >= self.top_p] = 0.0
            p /= p.sum(axis=1, keepdims=True)
        found = np.empty_like(p)
        np.put_along_axis(found, order, p, axis=1)
        return found


def drawn(p: Float64[np.ndarray, "B 4"], uniform: Float64[np.ndarray, " B"]) -> Integer[np.ndarray, " B"]:
    """The number of the base that a uniform random number in [0, 1) falls on; never one of probability 0."""
    found = (np.cumsum(p, axis=1) <= uniform[:, None]).sum(axis=1)
    return np.minimum(found, 3 - np.argmax(p[:, ::-1] > 0, axis=1))


@torch.inference_mode()
def prompted(model: GenomeLM, ids: UInt8[np.ndarray, " L"]) -> LikelihoodState | None:
    """The state after a prompt; None where it is empty.

    Args:
        model: a causal one, in evaluation mode.
        ids: token ids of the prompt.
    """
    device = next(model.parameters()).device
    state = None
    for first in range(0, len(ids), PIECE):
        piece = torch.from_numpy(ids[first : first + PIECE].copy())[None]
        state = log2_likelihood(model, piece.to(device), state).state
    return state


def sampled(
    model: GenomeLM,
    begun: LikelihoodState | None,
    length: int,
    seeds: Sequence[Sequence[int]],
    how: Sampling,
    on_base: Callable[[], object] = lambda: None,
) -> UInt8[np.ndarray, "B L"]:
    """Token ids of sequences that a model goes on with.

    Args:
        model: a causal one, in evaluation mode.
        begun: the state after what the sequences begin with; where that is nothing, the first base is any of the four.
        length: bases of each, at least one.
        seeds: of each sequence; the same seed draws the same sequence.
        how: bases are drawn.
        on_base: called after every base, for showing progress.

    Raises:
        UserError: the model looks both ways.
    """
    check_causal(model)
    device = next(model.parameters()).device
    random = [np.random.default_rng(list(seed)) for seed in seeds]
    found = np.empty((len(seeds), length), np.uint8)
    state = None if begun is None else begun.rows(torch.zeros(len(seeds), dtype=torch.long, device=device))
    log2_p = np.full((len(seeds), 4), -2.0) if state is None else state.following.cpu().numpy()
    for place in range(length):
        uniform = np.array([one.random() for one in random])
        base = drawn(how.probabilities(log2_p), uniform) + tokens.FIRST_BASE
        found[:, place] = base
        on_base()
        if place + 1 < length:
            ids = torch.from_numpy(found[:, place : place + 1].copy()).to(device)
            state = log2_likelihood(model, ids, state).state
            log2_p = state.following.cpu().numpy()
    return found


def check_causal(model: GenomeLM) -> None:
    """Refuses a model that was never asked for the next base.

    Raises:
        UserError: the model looks both ways.
    """
    if not model.objective.looks_ahead:
        raise UserError(
            "a masked model foretells hidden bases between others, and cannot go on with a sequence",
            accepted="a model that foretells the next base, such as human-1.4m",
        )  # fmt: skip
