"""The two tasks (Gu and Dao 2023, arXiv:2312.00752, section 4.1 and appendix E.1), made on the spot from a generator.

Shapes: `B` sequences, `L` positions, `A` answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

VOCABULARY = 16
"""Tokens that carry data in both tasks; the numbers after them are the task's own signs."""


@dataclass(frozen=True)
class Task:
    """A task of which the answers are the last positions' outputs.

    Attributes:
        make: (batch size, length, generator) to ids (B, length) and answers (B, A), read off at the last A positions.
        tokens: Size of the vocabulary, signs included.
        length: Of the training sequences.
        lengths: Of the sequences it is tested on.
    """

    make: Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]
    tokens: int
    length: int
    lengths: tuple[int, ...]


SPECIAL = VOCABULARY


def induction_heads(batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random tokens with one sign among them; the same sign at the end asks for the token that followed it."""
    ids = torch.randint(VOCABULARY, (batch, length), generator=generator)
    place = torch.randint(length - 2, (batch, 1), generator=generator)
    ids.scatter_(1, place, SPECIAL)
    ids[:, -1] = SPECIAL
    return ids, ids.gather(1, place + 1)


NOISE, ASK = VOCABULARY, VOCABULARY + 1
COPIED = 16
"""Tokens to remember in selective copying."""


def selective_copying(batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens at random places among noise, then as many signs that ask for them, in their order."""
    room = length - COPIED
    places = torch.rand(batch, room, generator=generator).argsort(1)[:, :COPIED].sort(1).values
    data = torch.randint(VOCABULARY, (batch, COPIED), generator=generator)
    ids = torch.full((batch, length), NOISE)
    ids[:, room:] = ASK
    return ids.scatter_(1, places, data), data


TASKS = {
    "induction": Task(induction_heads, VOCABULARY + 1, 256, tuple(2**k for k in range(6, 21, 2))),
    "copying": Task(selective_copying, VOCABULARY + 2, 256, (64, 128, 256, 512, 1024)),
}
