"""What the state space mixers share: projections around a directed model, run in one direction or in both.

Shapes: `B` batch, `L` length, `D` inner channels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.norm import without_decay
from mamba_kernels.blocks.registry import Branch, LayerState, Mixer, Piece


class DirectedModel(nn.Module, ABC):
    """A sequence model in one direction between two projections: `in_width` channels in, `out_width` channels out."""

    divisible: ClassVar[bool] = True
    """Whether its state keeps its size, so that a long sequence may be worked on in chunks."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.in_width, self.out_width = self.widths(config)

    @staticmethod
    @abstractmethod
    def widths(config: BackboneConfig) -> tuple[int, int]:
        """Tells the channels that come in and go out."""

    @abstractmethod
    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> LayerState:
        """The state before the first token."""

    @abstractmethod
    def forward(
        self, x: Tensor, state: LayerState | None, reset: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """`x` (B, L, in_width) to (B, L, out_width) and the state after the last token."""

    @abstractmethod
    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """One token `x` (B, in_width), in constant time."""

    @property
    def halo(self) -> int:
        """Tokens on which all tensors of the state but the last depend."""
        return self.config.d_conv - 1

    def transfer(
        self, x: Tensor, state: LayerState, reset: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """By what `x` (B, L, in_width) multiplies the last tensor of the state it begins with, and the state after it.

        Only models with this can share a sequence between ranks.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot say by what it multiplies its state")

    def steps_and_rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far each token moves a state on, (B, L, C), and how fast what is held decays, (C, N).

        A token multiplies what state n of channel c holds by exp(-step * rate), and enters with weight about step.
        """
        raise NotImplementedError(f"{type(self).__name__} does not select what it remembers")

    def project(
        self, x: Tensor, state: LayerState | None, piece: Piece, weight: Tensor, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """`forward`, and its output projected by `weight` (M, out_width)."""
        y, after = self(x, state, piece.reset, reverse=reverse)
        return F.linear(y, weight), after


class TwoWayMixer(Mixer):
    """Projects in, runs a directed model, projects out; causal, or in both directions.

    In both directions, `add` sums the passes' outputs and `concat` joins their inner channels before one projection.
    Tied directions share the projections, so that the pass to the right and the pass to the left differ only in what
    they remember.
    """

    model: ClassVar[type[DirectedModel]]
    """The directed model, made from a config."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width, bias = config.strand_width, config.proj_bias
        self.both_ways = config.bidirectional != "none"
        self.joined = config.bidirectional == "concat"
        self.tied = config.tie_directions
        entering, inner = self.model.widths(config)
        self.in_proj = nn.Linear(width, entering, bias=bias)
        self.ssm = self.model(config)
        self.out_proj = nn.Linear(2 * inner if self.joined else inner, width, bias=bias)
        if self.both_ways:
            self.ssm_reverse = self.model(config)
            if not self.tied:
                self.in_proj_reverse = nn.Linear(width, entering, bias=bias)
                if not self.joined:
                    self.out_proj_reverse = nn.Linear(inner, width, bias=bias)
        for module in self.children():
            if isinstance(module, nn.Linear):
                without_decay(module.bias)
        with torch.no_grad():  # the residual stream's variance must not grow with depth
            for name, weight in self.named_parameters():
                if name.startswith("out_proj") and name.endswith("weight"):
                    weight.div_(math.sqrt(len(config.layers)))

    def branches(self) -> Sequence[Branch]:
        """One pass, or the pass to the right and the pass to the left."""
        splits, halo = self.model.transfer is not DirectedModel.transfer, self.ssm.halo
        transfer, divisible = self._transfer_right if splits else None, self.model.divisible
        right = Branch(self._run_right, self.ssm.initial_state, divisible=divisible, transfer=transfer, halo=halo)
        if not self.both_ways:
            return (right,)
        transfer = self._transfer_left if splits else None
        start = self.ssm_reverse.initial_state
        left = Branch(self._run_left, start, reverse=True, divisible=divisible, transfer=transfer, halo=halo)
        return right, left

    def mix(self, x: Tensor, state: LayerState | None, reset: Tensor | None) -> tuple[Tensor, LayerState]:
        """The whole mixer; tied directions share one projection in and one out."""
        if not self.both_ways:
            return self._run_right(x, state, Piece(reset))
        reset_left = None if reset is None else reset_from_right(reset)
        if self.tied or self.joined:
            xz = self.in_proj(x)
            right, _ = self.ssm(xz, None, reset, reverse=False)
            xz = xz if self.tied else self.in_proj_reverse(x)
            left, _ = self.ssm_reverse(xz, None, reset_left, reverse=True)
            return self.out_proj(torch.cat([right, left], dim=-1) if self.joined else right + left), ()
        return self._run_right(x, None, Piece(reset))[0] + self._run_left(x, None, Piece(reset_left))[0], ()

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Takes one token of each sequence, (B, d_model)."""
        y, state = self.ssm.step(self.in_proj(x), state)
        return self.out_proj(y), state

    def _run_right(self, x: Tensor, state: LayerState | None, piece: Piece) -> tuple[Tensor, LayerState]:
        weight = self.out_proj.weight
        weight = weight[:, : self.ssm.out_width] if self.joined else weight
        y, after = self.ssm.project(self.in_proj(x), state, piece, weight, reverse=False)
        return _add_bias(y, self.out_proj.bias), after

    def _transfer_right(self, x: Tensor, state: LayerState, piece: Piece) -> tuple[Tensor, LayerState]:
        return self.ssm.transfer(self.in_proj(x), state, piece.reset, reverse=False)

    def _transfer_left(self, x: Tensor, state: LayerState, piece: Piece) -> tuple[Tensor, LayerState]:
        return self.ssm_reverse.transfer(self._into_left(x), state, piece.reset, reverse=True)

    def _into_left(self, x: Tensor) -> Tensor:
        return self.in_proj(x) if self.tied else self.in_proj_reverse(x)

    def _run_left(self, x: Tensor, state: LayerState | None, piece: Piece) -> tuple[Tensor, LayerState]:
        xz = self._into_left(x)
        weight, bias = self.out_proj.weight, None
        if self.joined:
            weight = weight[:, self.ssm.out_width :]
        elif not self.tied:
            weight, bias = self.out_proj_reverse.weight, self.out_proj_reverse.bias
        y, after = self.ssm_reverse.project(xz, state, piece, weight, reverse=True)
        return _add_bias(y, bias), after


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.to(y.dtype)


def reset_from_right(reset: Tensor, following: Tensor | None = None) -> Tensor:
    """Return where a pass to the left begins anew: at each document's last token, given first tokens `reset` (B, L).

    `following` (B, 1) says whether the token behind these begins a document, where there is one.
    """
    following = torch.zeros_like(reset[:, :1]) if following is None else following
    return torch.cat([reset[:, 1:], following], dim=1)
