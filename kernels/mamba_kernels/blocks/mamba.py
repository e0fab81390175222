"""The Mamba block (Gu and Dao 2023, arXiv 2312.00752, section 3.4 and figure 3), causal or in both directions.

Shapes: `B` batch, `L` length, `D` inner channels (`expand * d_model`), `N` states a channel, `K` convolution taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mamba_kernels import causal_conv1d, causal_conv1d_update, selective_state_update
from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.norm import without_decay
from mamba_kernels.blocks.registry import Branch, LayerState, Mixer, Piece, register_mixer
from mamba_kernels.blocks.replay import ScanArguments, scan, scan_and_project


class SelectiveSSM(nn.Module):
    """Convolution and selective scan in one direction: gated inner channels in, gated inner channels out.

    Its state is `(conv_state (B, D, K-1), scan_state (B, D, N))`.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        width, rank, n = config.d_inner, config.rank, config.d_state
        self.conv_weight = nn.Parameter(torch.empty(width, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(width)) if config.conv_bias else None
        self.x_proj = nn.Linear(width, rank + 2 * n, bias=False)
        self.dt_proj = nn.Linear(rank, width)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, n + 1, dtype=torch.float32)).repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width))
        self.reset_parameters()
        without_decay(self.conv_bias, self.dt_proj.bias, self.A_log, self.D)

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
        """Zeros: no tokens seen."""
        config = self.config
        conv = torch.zeros(batch_size, config.d_inner, config.d_conv - 1, device=device, dtype=dtype)
        wide = torch.promote_types(dtype, torch.float32)
        return conv, torch.zeros(batch_size, config.d_inner, config.d_state, device=device, dtype=wide)

    def forward(
        self, xz: Tensor, state: LayerState | None, reset: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """`xz` (B, L, 2 D) holds the channels, then their gates; gives (B, L, D) and the state after the last token."""
        arguments, conv_state = self._convolve(xz, state, reset, reverse)
        y, scan_state = scan(arguments, None if state is None else state[1])
        return y, (conv_state, scan_state)

    def project(
        self, xz: Tensor, state: LayerState | None, piece: Piece, weight: Tensor, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """`forward`, and its output projected by `weight` (M, D)."""
        arguments, conv_state = self._convolve(xz, state, piece.reset, reverse)
        y, scan_state = scan_and_project(arguments, None if state is None else state[1], weight, piece.tape)
        return y, (conv_state, scan_state)

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

    def step(self, xz: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """One token `xz` (B, 2 D), in constant time."""
        x, z = xz.chunk(2, dim=-1)
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
class MambaMixer(Mixer):
    """Gated selective state space mixer: project in, convolve, scan, gate, project out.

    In both directions, `add` sums the passes' outputs and `concat` joins their inner channels before one projection.
    Tied directions share the projections, so that the pass to the right and the pass to the left differ only in what
    they remember.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width, inner, bias = config.strand_width, config.d_inner, config.proj_bias
        self.both_ways = config.bidirectional != "none"
        self.joined = config.bidirectional == "concat"
        self.tied = config.tie_directions
        self.in_proj = nn.Linear(width, 2 * inner, bias=bias)
        self.ssm = SelectiveSSM(config)
        self.out_proj = nn.Linear(2 * inner if self.joined else inner, width, bias=bias)
        if self.both_ways:
            self.ssm_reverse = SelectiveSSM(config)
            if not self.tied:
                self.in_proj_reverse = nn.Linear(width, 2 * inner, bias=bias)
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
        right = Branch(self._run_right, self.ssm.initial_state)
        if not self.both_ways:
            return (right,)
        return right, Branch(self._run_left, self.ssm_reverse.initial_state, reverse=True)

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
        """One token (B, d_model)."""
        y, state = self.ssm.step(self.in_proj(x), state)
        return self.out_proj(y), state

    def _run_right(self, x: Tensor, state: LayerState | None, piece: Piece) -> tuple[Tensor, LayerState]:
        weight = self.out_proj.weight
        weight = weight[:, : self.ssm.D.shape[0]] if self.joined else weight
        y, after = self.ssm.project(self.in_proj(x), state, piece, weight, reverse=False)
        return _add_bias(y, self.out_proj.bias), after

    def _run_left(self, x: Tensor, state: LayerState | None, piece: Piece) -> tuple[Tensor, LayerState]:
        xz = self.in_proj(x) if self.tied else self.in_proj_reverse(x)
        weight, bias = self.out_proj.weight, None
        if self.joined:
            weight = weight[:, self.ssm.D.shape[0] :]
        elif not self.tied:
            weight, bias = self.out_proj_reverse.weight, self.out_proj_reverse.bias
        y, after = self.ssm_reverse.project(xz, state, piece, weight, reverse=True)
        return _add_bias(y, bias), after


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.to(y.dtype)


def reset_from_right(reset: Tensor) -> Tensor:
    """Where a pass to the left begins anew, at each document's last token, from its first tokens `reset` (B, L)."""
    return torch.cat([reset[:, 1:], torch.zeros_like(reset[:, :1])], dim=1)
