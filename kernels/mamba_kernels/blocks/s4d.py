"""An S4D block: the state space model that is the same at every position, as a mixer to compare selection with.

Shapes: `B` batch, `L` length, `D` inner channels, `N` complex states a channel (half of `d_state`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_kernels import s4d, s4d_update
from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.norm import without_decay
from mamba_kernels.blocks.registry import LayerState, register_mixer
from mamba_kernels.blocks.two_way import DirectedModel, TwoWayMixer


class DiagonalSSM(DirectedModel):
    """S4D and GELU in one direction. Its state is `(state (B, D, N, 2),)`, complex numbers as real pairs.

    Gu et al. 2022 (arXiv:2206.11893): zero-order hold, S4D-Lin initialisation (equation 9).
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        width, states = config.d_inner, config.d_state // 2
        self.log_dt = nn.Parameter(torch.empty(width))
        self.A_log = nn.Parameter(torch.empty(width, states))
        self.A_imag = nn.Parameter(torch.empty(width, states))
        self.C = nn.Parameter(torch.empty(width, states, 2))
        self.D = nn.Parameter(torch.empty(width))
        self.reset_parameters()
        without_decay(self.log_dt, self.A_log, self.A_imag, self.D)

    @staticmethod
    def widths(config: BackboneConfig) -> tuple[int, int]:
        """Tells the channels that come in and go out."""
        return config.d_inner, config.d_inner

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """S4D-Lin: A_n = -1/2 + i pi n; step sizes log-uniform in [dt_min, dt_max]; C and D standard normal."""
        self.log_dt.uniform_(math.log(self.config.dt_min), math.log(self.config.dt_max))
        self.A_log.fill_(math.log(0.5))
        self.A_imag.copy_(math.pi * torch.arange(self.A_imag.shape[1]).expand_as(self.A_imag))
        self.C.normal_(std=0.5**0.5)
        self.D.normal_()

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> LayerState:
        """Gives the state before any token: zeros."""
        shape = batch_size, *self.C.shape
        return (torch.zeros(shape, device=device, dtype=torch.promote_types(dtype, torch.float32)),)

    def forward(
        self, x: Tensor, state: LayerState | None, reset: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """`x` (B, L, D) to (B, L, D) and the state after the last token."""
        y, after = s4d(
            *(x, *self._parameters_of_the_model()),
            initial_state=None if state is None else state[0],
            reset=reset,
            reverse=reverse,
            return_final_state=True,
        )
        return F.gelu(y), (after,)

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """One token `x` (B, D), in constant time."""
        y, after = s4d_update(state[0], x, *self._parameters_of_the_model())
        return F.gelu(y), (after,)

    def _parameters_of_the_model(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Step sizes, A, C and D, in at least float32."""
        wide = torch.promote_types(self.log_dt.dtype, torch.float32)
        rates = torch.stack([-torch.exp(self.A_log.to(wide)), self.A_imag.to(wide)], dim=-1)
        return torch.exp(self.log_dt.to(wide)), rates, self.C, self.D


@register_mixer("s4d")
class S4DMixer(TwoWayMixer):
    """Projects in, runs S4D, GELU, projects out: no gate and no convolution, nothing that depends on the input."""

    model = DiagonalSSM
