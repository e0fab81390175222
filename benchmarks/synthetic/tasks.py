"""The two tasks (Gu and Dao 2023, arXiv:2312.00752, section 4.1 and appendix E.1), made on the spot from a generator.

Shapes: `B` sequences, `L` positions, `A` answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Maker = Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]
"""(batch size, length, generator) to ids (B, length) and answers (B, A), read off at the last A positions."""

VOCABULARY = 16
"""Tokens that carry data in both tasks; the numbers after them are the task's own signs."""


@dataclass(frozen=True)
class Task:
    """A task of which the answers are the last positions' outputs.

    Attributes:
        practice: Makes the sequences it is trained on.
        validation: Makes the fresh sequences that tell when to stop.
        tests: What makes the sequences it is tested on, by the name of the test.
        tokens: Size of the vocabulary, signs included.
        length: Of the training sequences, at most.
        shorter: Lengths that are trained in turn with `length`, so that the task is first learnt where it is easy.
        lengths: Of the sequences it is tested on.
    """

    practice: Maker
    validation: Maker
    tests: dict[str, Maker]
    tokens: int
    length: int
    lengths: tuple[int, ...]
    shorter: tuple[int, ...] = ()


SPECIAL = VOCABULARY


def induction_heads(
    batch: int, length: int, generator: torch.Generator, *, place: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Random tokens with one sign among them; the same sign at the end asks for the token that followed it.

    The sign stands at `place` (B, 1), from 0 to `length - 3`; at a place drawn evenly by default.
    """
    ids = torch.randint(VOCABULARY, (batch, length), generator=generator)
    if place is None:
        place = torch.randint(length - 2, (batch, 1), generator=generator)
    ids.scatter_(1, place, SPECIAL)
    ids[:, -1] = SPECIAL
    return ids, ids.gather(1, place + 1)


def induction_heads_near_and_far(batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Induction heads whose sign is as often 2 to 4 tokens before the end as 64 to 128: even on a scale of logarithms.

    Where the sign is close, the answer is easy to find, and what was learnt there soon reaches further back. The
    published protocol does not say how places are drawn.
    """
    share = torch.rand(batch, 1, generator=generator)
    distance = torch.exp(math.log(2) + share * math.log((length - 1) / 2)).round().long()
    return induction_heads(batch, length, generator, place=length - 1 - distance.clamp(2, length - 1))


def induction_heads_from_the_start(batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Induction heads whose sign is the very first token: the hardest place, as far from the question as can be."""
    return induction_heads(batch, length, generator, place=torch.zeros(batch, 1, dtype=torch.long))


NOISE, ASK = VOCABULARY, VOCABULARY + 1
COPIED = 16
"""Tokens to remember in selective copying."""


def selective_copying(
    batch: int, length: int, generator: torch.Generator, *, copied: int = COPIED
) -> tuple[Tensor, Tensor]:
    """Tokens at random places among noise, then as many signs that ask for them, in their order."""
    room = length - copied
    places = torch.rand(batch, room, generator=generator).argsort(1)[:, :copied].sort(1).values
    data = torch.randint(VOCABULARY, (batch, copied), generator=generator)
    ids = torch.full((batch, length), NOISE)
    ids[:, room:] = ASK
    return ids.scatter_(1, places, data), data


def selective_copying_few_and_many(batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Selective copying of 16 tokens in one batch of five, else of 1 to 16, even on a scale of logarithms.

    What is learnt on few tokens, such as to count the questions, serves for many.
    """
    share = min(1.0, 1.25 * torch.rand(1, generator=generator).item())
    return selective_copying(batch, length, generator, copied=round(COPIED**share))


TASKS = {
    "induction": Task(
        practice=induction_heads_near_and_far,
        validation=induction_heads_near_and_far,
        tests={"anywhere": induction_heads, "at the start": induction_heads_from_the_start},
        tokens=VOCABULARY + 1,
        length=256,
        lengths=(64, 128, 256, 512, 1024, *(2**k for k in range(12, 21, 2))),
    ),
    "copying": Task(
        practice=selective_copying_few_and_many,
        validation=selective_copying,
        tests={"anywhere": selective_copying},
        tokens=VOCABULARY + 2,
        length=256,
        lengths=(64, 128, 256, 512, 1024, 4096),
        shorter=(64, 128),
    ),
}
