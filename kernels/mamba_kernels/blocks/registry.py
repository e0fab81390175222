"""The mixers a layer pattern may name.

To add one, write a module with a subclass of `Mixer`, decorate it with `@register_mixer("name")`, and import the module
in `blocks/__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.names import add_mixer_name
from mamba_kernels.blocks.replay import Tape

LayerState = tuple[Tensor, ...]
"""What one layer carries from piece to piece; what is in it is the mixer's affair."""


@dataclass(frozen=True)
class Piece:
    """What a branch is told about a piece of the sequence, its tokens apart.

    Attributes:
        reset: (B, L) bool, counted in the branch's direction, or None.
        tape: A run that will be repeated may leave here what spares work the second time; None for other runs.
    """

    reset: Tensor | None = None
    tape: Tape | None = None


BranchFunction = Callable[[Tensor, LayerState, Piece], tuple[Tensor, LayerState]]


@dataclass(frozen=True)
class Branch:
    """One directed pass of a mixer, that can be fed a sequence piece by piece; a mixer's output is its branches' sum.

    Attributes:
        run: `(x (B, L, d_model), state, piece) -> (y (B, L, d_model), state)`.
        initial_state: `(batch size, device, dtype)` to the state before the first token.
        reverse: The pieces are fed from the right.
        divisible: False for a branch whose state grows with the input, which is therefore run in one piece.
        transfer: `(x, state, piece) -> (decay, state)`: the state after the piece, and the factor by which the piece
            multiplies the last tensor of the state that it begins with. None for a branch that cannot say, whose
            sequence cannot be split over ranks.
        halo: Tokens on which all other tensors of the state depend.
    """

    run: BranchFunction
    initial_state: Callable[[int, torch.device, torch.dtype], LayerState]
    reverse: bool = False
    divisible: bool = True
    transfer: BranchFunction | None = None
    halo: int = 0


class Mixer(nn.Module, ABC):
    """Mixes information along the sequence: (B, L, d_model) to (B, L, d_model)."""

    @abstractmethod
    def branches(self) -> Sequence[Branch]:
        """Return the directed passes whose outputs add up to the mixer's; a causal mixer has one."""

    @abstractmethod
    def mix(self, x: Tensor, state: LayerState | None, reset: Tensor | None) -> tuple[Tensor, LayerState]:
        """Run the whole mixer on a piece (B, L, d_model); a `state` of None is the state before the first token."""

    @abstractmethod
    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Run the mixer on one token (B, d_model), and return its output and the state after it."""

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> LayerState:
        """Return the state before the first token."""
        return self.branches()[0].initial_state(batch_size, device, dtype)


_MIXERS: dict[str, Callable[[BackboneConfig], Mixer]] = {}
M = TypeVar("M", bound=type[Mixer])


def register_mixer(name: str) -> Callable[[M], M]:
    """Make a mixer available to layer patterns under `name`.

    Raises:
        ValueError: Another mixer has that name.
    """

    def register(cls: M) -> M:
        if name in _MIXERS and _MIXERS[name] is not cls:
            raise ValueError(f"a mixer named {name!r} is registered already: {_MIXERS[name]}")
        _MIXERS[name] = cls
        add_mixer_name(name)
        return cls

    return register


def build_mixer(name: str, config: BackboneConfig) -> Mixer:
    """Return a freshly initialised mixer."""
    return _MIXERS[name](config)


def computing_dtype(kind: str, parameters: Sequence[nn.Parameter]) -> torch.dtype:
    """The dtype a mixer's activations have: autocast's where it is on, else the parameters'."""
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else parameters[0].dtype
