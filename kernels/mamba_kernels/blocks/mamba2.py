"""The Mamba-2 block (Dao and Gu 2024, arXiv 2405.21060, section 7.1 and figure 6), causal or in both directions.

Shapes: `B` batch, `L` length, `D` inner channels in `H` heads of `P`, `G` groups, `N` states, `K` convolution taps.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_kernels import causal_conv1d, causal_conv1d_update, rms_norm, ssd, ssd_update
from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.norm import without_decay
from mamba_kernels.blocks.registry import LayerState, register_mixer
from mamba_kernels.blocks.two_way import DirectedModel, TwoWayMixer
from mamba_kernels.parallel.operators import decay_product

DECAY_RATES = 1.0, 16.0
"""Between which the decay rates are drawn, as the authors' code does."""


class GatedSSD(DirectedModel):
    """Convolution, SSD, gate and norm in one direction.

    Of its input's channels the first D are the gates, the next D + 2 G N go through the convolution and become x, B
    and C, the last H are step sizes: all are projected from the block's input at once, which is what Mamba-2 changed.
    Its state is `(conv_state (B, D + 2 G N, K - 1), ssd_state (B, H, P, N))`.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        width, heads = config.d_inner, config.ssd_heads
        mixed = self.in_width - width - heads
        self.conv_weight = nn.Parameter(torch.empty(mixed, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(mixed)) if config.conv_bias else None
        self.dt_bias = nn.Parameter(torch.empty(heads))
        self.A_log = nn.Parameter(torch.empty(heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.norm_weight = nn.Parameter(torch.ones(width))
        self.reset_parameters()
        without_decay(self.conv_bias, self.dt_bias, self.A_log, self.D, self.norm_weight)

    @staticmethod
    def widths(config: BackboneConfig) -> tuple[int, int]:
        """Gates, convolved channels and step sizes in, channels out."""
        mixed = config.d_inner + 2 * config.n_groups * config.d_state
        return config.d_inner + mixed + config.ssd_heads, config.d_inner

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the weights as the authors do: decay rates uniform, step sizes log-uniform in [dt_min, dt_max]."""
        bound = self.config.d_conv**-0.5
        nn.init.uniform_(self.conv_weight, -bound, bound)
        if self.conv_bias is not None:
            nn.init.uniform_(self.conv_bias, -bound, bound)
        self.A_log.copy_(torch.empty_like(self.A_log).uniform_(*DECAY_RATES).log_())
        low, high = math.log(self.config.dt_min), math.log(self.config.dt_max)
        dt = torch.empty_like(self.dt_bias).uniform_(low, high).exp_().clamp_(min=self.config.dt_floor)
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> LayerState:
        """Gives the state before any token: zeros."""
        config = self.config
        conv = torch.zeros(batch_size, self.conv_weight.shape[0], config.d_conv - 1, device=device, dtype=dtype)
        shape = batch_size, config.ssd_heads, config.channels_per_head, config.d_state
        return conv, torch.zeros(shape, device=device, dtype=torch.promote_types(dtype, torch.float32))

    def forward(
        self, x: Tensor, state: LayerState | None, reset: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """`x` (B, L, in_width) to (B, L, D) and the state after the last token."""
        y, state, _ = self._run(x, state, reset, reverse)
        return self._norm(y), state

    def steps_and_rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Step sizes (B, L, heads) and rates (heads, 1) of a pass to the right; they depend on no other token."""
        _, _, delta = self._split(x)
        return F.softplus(delta.float() + self.dt_bias.float()), -self._decay_rates()[:, None]

    def transfer(
        self, x: Tensor, state: LayerState, reset: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """The product of the decays over `x` (B, L, in_width), (B, H, 1, 1), and the state after its last token."""
        _, after, delta = self._run(x, state, reset, reverse)
        wide = after[-1].dtype
        steps = F.softplus(delta.to(wide) + self.dt_bias.to(wide)).sum(dim=1)
        return decay_product(steps, self._decay_rates().to(wide)[:, None], reset)[..., None], after

    def _run(
        self, x: Tensor, state: LayerState | None, reset: Tensor | None, reverse: bool
    ) -> tuple[Tensor, LayerState, Tensor]:
        """The gated output (B, L, H, P), the state after the last token, and the step sizes before their bias."""
        z, mixed, delta = self._split(x)
        mixed, conv_state = causal_conv1d(
            *(mixed, self.conv_weight, self.conv_bias, "silu"),
            initial_state=None if state is None else state[0],
            reset=reset,
            reverse=reverse,
            return_final_state=True,
        )
        x, b, c = self._heads(mixed)
        y, ssd_state = ssd(
            *(x, delta, self._decay_rates(), b, c, self.D, z.unflatten(-1, x.shape[2:]), self.dt_bias, True),
            initial_state=None if state is None else state[1],
            reset=reset,
            reverse=reverse,
            return_final_state=True,
        )
        return y, (conv_state, ssd_state), delta

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """One token `x` (B, in_width), in constant time."""
        z, mixed, delta = self._split(x)
        conv_state, ssd_state = state
        mixed, conv_state = causal_conv1d_update(mixed, conv_state, self.conv_weight, self.conv_bias, "silu")
        x, b, c = self._heads(mixed)
        rates, bias = self._decay_rates(), self.dt_bias
        y, ssd_state = ssd_update(ssd_state, x, delta, rates, b, c, self.D, z.unflatten(-1, x.shape[1:]), bias, True)
        return self._norm(y), (conv_state, ssd_state)

    def _decay_rates(self) -> Tensor:
        """`A` (H,), negative, in at least float32."""
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gates, what the convolution takes, and step sizes."""
        z, mixed, delta = x.split([self.out_width, self.conv_weight.shape[0], self.config.ssd_heads], dim=-1)
        return z, mixed, delta

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`x` (..., H, P), `B` and `C` (..., G, N)."""
        shared = self.config.n_groups * self.config.d_state
        x, b, c = mixed.split([self.out_width, shared, shared], dim=-1)
        groups = self.config.n_groups, self.config.d_state
        return x.unflatten(-1, (self.config.ssd_heads, -1)), b.unflatten(-1, groups), c.unflatten(-1, groups)

    def _norm(self, y: Tensor) -> Tensor:
        """Each group's channels of `y` (..., H, P) to unit root mean square, then the learnt weight: (..., D)."""
        groups, eps = self.config.n_groups, self.config.norm_eps
        if groups == 1:
            return cast(Tensor, rms_norm(y.flatten(-2), self.norm_weight, eps))
        parts = y.flatten(-2).unflatten(-1, (groups, -1))
        normed = cast(Tensor, rms_norm(parts, self.norm_weight.new_ones(parts.shape[-1]), eps))
        return normed.flatten(-2) * self.norm_weight


@register_mixer("mamba2")
class Mamba2Mixer(TwoWayMixer):
    """Gated SSD mixer: project in, convolve, run the SSD, gate, norm, project out."""

    model = GatedSSD
