"""The Mamba block (Gu and Dao 2023, arXiv 2312.00752, section 3.4 and figure 3), causal or in both directions.

Shapes: `B` batch, `L` length, `D` inner channels (`expand * d_model`), `N` states a channel, `K` convolution taps.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_kernels import causal_conv1d, causal_conv1d_update, selective_state_update
from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.norm import without_decay
from mamba_kernels.blocks.registry import LayerState, Piece, register_mixer
from mamba_kernels.blocks.replay import ScanArguments, scan, scan_and_project
from mamba_kernels.blocks.two_way import DirectedModel, TwoWayMixer, reset_from_right
from mamba_kernels.parallel.operators import decay_product

__all__ = ["MambaMixer", "SelectiveSSM", "reset_from_right"]


class SelectiveSSM(DirectedModel):
    """Convolution and selective scan in one direction: gated inner channels in, gated inner channels out.

    Its state is `(conv_state (B, D, K-1), scan_state (B, D, N))`.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        width, rank, n = config.d_inner, config.rank, config.d_state
        self.conv_weight = nn.Parameter(torch.empty(width, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(width)) if config.conv_bias else None
        self.x_proj = nn.Linear(width, rank + 2 * n, bias=False)
        self.dt_proj = nn.Linear(rank, width)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, n + 1, dtype=torch.float32)).repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width))
        self.reset_parameters()
        without_decay(self.conv_bias, self.dt_proj.bias, self.A_log, self.D)

    @staticmethod
    def widths(config: BackboneConfig) -> tuple[int, int]:
        """Channels and gates in, channels out."""
        return 2 * config.d_inner, config.d_inner

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the weights as the paper does (section 3.6): step sizes log-uniform in [dt_min, dt_max]."""
        bound = self.config.d_conv**-0.5
        nn.init.uniform_(self.conv_weight, -bound, bound)
        if self.conv_bias is not None:
            nn.init.uniform_(self.conv_bias, -bound, bound)
        bound = self.config.rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        low, high = math.log(self.config.dt_min), math.log(self.config.dt_max)
        dt = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp_().clamp_(min=self.config.dt_floor)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> LayerState:
        """Gives the state before any token: zeros."""
        config = self.config
        conv = torch.zeros(batch_size, config.d_inner, config.d_conv - 1, device=device, dtype=dtype)
        wide = torch.promote_types(dtype, torch.float32)
        return conv, torch.zeros(batch_size, config.d_inner, config.d_state, device=device, dtype=wide)

    def forward(
        self, x: Tensor, state: LayerState | None, reset: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """`x` (B, L, 2 D) holds the channels, then their gates; gives (B, L, D) and the state after the last token."""
        arguments, conv_state = self._convolve(x, state, reset, reverse)
        y, scan_state = scan(arguments, None if state is None else state[1])
        return y, (conv_state, scan_state)

    def project(
        self, x: Tensor, state: LayerState | None, piece: Piece, weight: Tensor, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """`forward`, and its output projected by `weight` (M, D)."""
        arguments, conv_state = self._convolve(x, state, piece.reset, reverse)
        y, scan_state = scan_and_project(arguments, None if state is None else state[1], weight, piece.tape)
        return y, (conv_state, scan_state)

    def steps_and_rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Step sizes (B, L, D) and rates (D, N) of a pass to the right over `x` (B, L, 2 D)."""
        arguments, _ = self._convolve(x, None, None, reverse=False)
        return F.softplus(arguments.delta.float() + arguments.delta_bias.float()), -arguments.A.float()

    def transfer(
        self, x: Tensor, state: LayerState, reset: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """The product of the decays over `x` (B, L, 2 D), (B, D, N), and the state after its last token."""
        arguments, conv_state = self._convolve(x, state, reset, reverse)
        _, scan_state = scan(arguments, state[1])
        wide = scan_state.dtype
        steps = F.softplus(arguments.delta.to(wide) + arguments.delta_bias.to(wide)).sum(dim=1)
        return decay_product(steps, arguments.A.to(wide), reset), (conv_state, scan_state)

    def _convolve(
        self, xz: Tensor, state: LayerState | None, reset: Tensor | None, reverse: bool
    ) -> tuple[ScanArguments, Tensor]:
        """Everything before the scan; gives the scan's arguments and the convolution's final state."""
        x, z = xz.chunk(2, dim=-1)
        x, conv_state = causal_conv1d(
            *(x, self.conv_weight, self.conv_bias, "silu"),
            initial_state=None if state is None else state[0],
            reset=reset,
            reverse=reverse,
            return_final_state=True,
        )
        delta, b, c = self._select(x)
        a, bias = self._decay_rates(), self.dt_proj.bias
        return ScanArguments(x, delta, a, b, c, self.D, z, bias, reset, reverse), conv_state

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """One token `x` (B, 2 D), in constant time."""
        x, z = x.chunk(2, dim=-1)
        conv_state, scan_state = state
        x, conv_state = causal_conv1d_update(x, conv_state, self.conv_weight, self.conv_bias, "silu")
        delta, b, c = self._select(x)
        bias = self.dt_proj.bias
        y, scan_state = selective_state_update(
            scan_state, x, delta, self._decay_rates(), b, c, self.D, z, delta_bias=bias, delta_softplus=True
        )
        return y, (conv_state, scan_state)

    def _decay_rates(self) -> Tensor:
        """`A` (D, N), negative, in at least float32."""
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    def _select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step size (before its bias), B and C of each token: what makes the state space model selective."""
        rank, n = self.config.rank, self.config.d_state
        dt, b, c = self.x_proj(x).split([rank, n, n], dim=-1)
        # Row-major on purpose: the gradient of so narrow a matrix is then several times faster on the CPU.
        return dt @ self.dt_proj.weight.t().contiguous(), b, c


@register_mixer("mamba")
class MambaMixer(TwoWayMixer):
    """Gated selective state space mixer: project in, convolve, scan, gate, project out."""

    model = SelectiveSSM
