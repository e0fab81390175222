"""Which bases decide: in-silico mutagenesis, gradient x input, and integrated gradients.

Shapes: `L` bases of one sequence. What is no A, C, G or T is never changed and gets nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Integer
from torch import Tensor, nn

from genomamba import tokens
from genomamba.explanation.targets import HiddenBases, Target
from genomamba.language_model.objectives import is_base

_BASES = slice(tokens.FIRST_BASE, tokens.FIRST_BASE + 4)
PATH_STEPS = 32
"""Points on the path of integrated gradients."""
_TOGETHER = 2**13
"""Bases of points on that path that go through the network together, with their gradients."""


@torch.no_grad()
def mutagenesis(
    target: Target | HiddenBases,
    ids: Integer[Tensor, " L"],
    bases_at_a_time: int = 2**14,
    note: Callable[[int], None] = lambda done: None,
) -> Float64[np.ndarray, "L 4"]:
    """How the target changes when one base becomes another one; 0 for the base itself, NaN where there is none.

    With a masked language model it is the other base's log-probability less the base's own, where that is hidden.

    Args:
        target: what is explained.
        ids: token ids of one sequence.
        bases_at_a_time: bases in a batch.
        note: told how many places are done.
    """
    places = torch.nonzero(is_base(ids))[:, 0]
    found = np.full((len(ids), 4), np.nan)
    rows = max(1, bases_at_a_time // max(1, len(ids)))
    if isinstance(target, HiddenBases):
        for part in places.split(rows):
            told = target.log_probabilities(ids, part)
            own = told.gather(1, ids[part].long()[:, None] - tokens.FIRST_BASE)
            found[part.cpu().numpy()] = (told - own).cpu().numpy()
            note(len(part))
        return found
    whole = float(target(ids[None])[0])
    for part in places.split(max(1, rows // 3)):
        mutated = ids.repeat(4 * len(part), 1).reshape(len(part), 4, -1)
        for base in range(4):
            mutated[torch.arange(len(part)), base, part] = tokens.FIRST_BASE + base
        changed = torch.ones(len(part), 4, dtype=torch.bool, device=ids.device)
        changed[torch.arange(len(part)), ids[part].long() - tokens.FIRST_BASE] = False
        values = np.zeros((len(part), 4))
        values[changed.cpu().numpy()] = target(mutated[changed]).cpu().numpy() - whole
        found[part.cpu().numpy()] = values
        note(len(part))
    return found


def gradient_x_input(target: Target, ids: Integer[Tensor, " L"]) -> Float64[np.ndarray, " L"]:
    """The first-order change of the target from an unknown base to the base that is there.

    Simonyan et al. 2014 (arXiv 1312.6034), with the mean of the four letters as the zero that a base departs from.
    """
    return _along_path(target, ids, np.array([1.0]))


def integrated_gradients(
    target: Target, ids: Integer[Tensor, " L"], steps: int = PATH_STEPS
) -> Float64[np.ndarray, " L"]:
    """Each base's part of the difference between the sequence and one of unknown bases; the parts add up to it.

    Sundararajan et al. 2017 (arXiv 1703.01365), by the midpoint rule. The path lies between what the network reads of
    the letters; a table of contexts and a regression that are parts of the model stay as they are.
    """
    return _along_path(target, ids, (np.arange(steps) + 0.5) / steps)


def _along_path(target: Target, ids: Integer[Tensor, " L"], shares: np.ndarray) -> Float64[np.ndarray, " L"]:
    known = is_base(ids)
    given = _read(target.letters, ids)
    four = _read(target.letters, torch.arange(16, device=ids.device, dtype=ids.dtype))[_BASES]
    unknown = torch.where(known[:, None], four.mean(0), given)
    total = torch.zeros_like(given, dtype=torch.float64)
    rows = max(1, _TOGETHER // len(ids))
    for first in range(0, len(shares), rows):
        part = torch.tensor(shares[first : first + rows], dtype=given.dtype, device=ids.device)
        points = (unknown + part[:, None, None] * (given - unknown)).requires_grad_()
        with torch.enable_grad(), _replaced(target.letters, points):
            (slopes,) = torch.autograd.grad(target(ids.expand(len(part), -1)).sum(), points)
        total += slopes.double().sum(0)
    parts = (total / len(shares) * (given - unknown)).sum(1)
    return torch.where(known, parts, torch.nan).cpu().numpy()


def difference_from_unknown(target: Target, ids: Integer[Tensor, " L"]) -> float:
    """What integrated gradients add up to: the target of the sequence less that of unknown bases in its place."""
    known = is_base(ids)
    given = _read(target.letters, ids)
    four = _read(target.letters, torch.arange(16, device=ids.device, dtype=ids.dtype))[_BASES]
    with torch.no_grad(), _replaced(target.letters, torch.where(known[:, None], four.mean(0), given)[None]):
        unknown = target(ids[None])[0]
    with torch.no_grad():
        return float(target(ids[None])[0] - unknown)


@torch.no_grad()
def _read(letters: nn.Module, ids: Integer[Tensor, " L"]) -> Tensor:
    """What a network reads of letters, (L, D)."""
    return letters(ids[None])[0]


@contextmanager
def _replaced(letters: nn.Module, values: Tensor) -> Iterator[None]:
    """Lets a network read other values than those of the letters it is given."""

    def replaced(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        return values.expand_as(out)

    hook = letters.register_forward_hook(replaced)
    try:
        yield
    finally:
        hook.remove()
