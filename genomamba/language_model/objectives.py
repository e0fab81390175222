"""What a language model is asked: the base that follows, or bases that were hidden from it.

Either objective turns windows of ids (B, L) into a `Question`: what the network reads and, at each position, the base
that it is asked for there. Only A, C, G and T are ever asked for, never N or padding.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.nn import functional

from genomamba import tokens
from genomamba.config import ObjectiveConfig

IGNORED: Final = -100
"""The target where nothing is asked."""
_HIDDEN, _REPLACED = 0.8, 0.9
"""Of the bases asked for, so many are hidden; up to so many hidden or replaced by a random base; the rest stay."""


class Question(NamedTuple):
    """What a network reads, and what it is asked.

    Attributes:
        inputs: (B, L) token ids.
        targets: (B, L) the base asked for at each position, `IGNORED` where none is.
    """

    inputs: Integer[Tensor, "B L"]
    targets: Integer[Tensor, "B L"]

    def part(self, place: slice) -> Question:
        """The question at some positions."""
        return Question(self.inputs[:, place], self.targets[:, place])


@dataclass(frozen=True)
class Objective:
    """How windows become questions.

    Args:
        config: which kind, and how many bases are asked for.
    """

    config: ObjectiveConfig

    @property
    def looks_ahead(self) -> bool:
        """Whether the base after each position is asked for, so that the network has to be causal."""
        return self.config.kind == "next_base"

    def training(self, ids: Integer[Tensor, "B L"]) -> Question:
        """A question drawn anew, from PyTorch's global generator on the CPU."""
        return next_base(ids) if self.looks_ahead else self._masked(ids, torch.rand(3, *ids.shape).to(ids.device))

    def scoring(self, ids: Integer[Tensor, "B L"]) -> Question:
        """The question that is always asked of these windows, each by itself, whatever stands beside it."""
        if self.looks_ahead:
            return next_base(ids)
        rows = [np.random.default_rng(zlib.crc32(row.tobytes())) for row in ids.cpu().numpy().astype(np.uint8)]
        draws = np.stack([rng.random((3, ids.shape[1]), np.float32) for rng in rows], axis=1)
        return self._masked(ids, torch.from_numpy(draws).to(ids.device))

    def _masked(self, ids: Integer[Tensor, "B L"], draws: Float[Tensor, "3 B L"]) -> Question:
        """Devlin et al. 2019, section 3.1: 80 % of the bases asked for are hidden, 10 % replaced, 10 % left."""
        asked = is_base(ids) & (draws[0] < self.config.fraction)
        random = (tokens.FIRST_BASE + 4 * draws[2]).clamp(max=tokens.FIRST_BASE + 3).to(ids.dtype)
        inputs = torch.where(asked & (draws[1] < _REPLACED), random, ids)
        inputs = torch.where(asked & (draws[1] < _HIDDEN), tokens.MASK, inputs)
        return Question(inputs, torch.where(asked, ids.long(), IGNORED))


def next_base(ids: Integer[Tensor, "B L"]) -> Question:
    """Asks, at each position, for the base after it; nothing at the last one."""
    following = functional.pad(ids[:, 1:].long(), (0, 1), value=tokens.PAD)
    return Question(ids, torch.where(is_base(following), following, IGNORED))


def asked_nats(
    logits: Float[Tensor, "B L V"], targets: Integer[Tensor, "B L"]
) -> tuple[Float[Tensor, " B"], Integer[Tensor, " B"]]:
    """Cross-entropy of each window's answers: the sum in nats, in float32, and how many bases were asked for."""
    nats = functional.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
    return nats.sum(1), (targets != IGNORED).sum(1)


def is_base(ids: Integer[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Which tokens are A, C, G or T."""
    return (ids >= tokens.FIRST_BASE) & (ids < tokens.FIRST_BASE + 4)
