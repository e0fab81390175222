"""A Hyena block of order two: an implicit long convolution between two gates, as a mixer to compare selection with.

Poli et al. 2023 (arXiv:2302.10866); HyenaDNA (Nguyen et al. 2023, arXiv:2306.15794) is a stack of these.

Shapes: `B` batch, `L` length, `T` tokens seen before, `D` inner channels, `K` taps of the short convolution.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamba_kernels import causal_conv1d, causal_conv1d_update
from mamba_kernels.arguments import without_autocast
from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.long_convolution import long_convolution
from mamba_kernels.blocks.norm import without_decay
from mamba_kernels.blocks.registry import LayerState, register_mixer
from mamba_kernels.blocks.two_way import DirectedModel, TwoWayMixer
from mamba_kernels.ops.derivatives import recomputed_backward

_OCTAVES = 20
"""The distance of two tokens is told to the filter by sines and cosines with periods of 2, 4, ... 2^20 tokens."""
_HIDDEN = 64
_FREQUENCY = 10.0


class ImplicitFilter(nn.Module):
    """The weight of a token as a function of its distance, one for each channel: a small network times a decay.

    The network has sines between its layers and reads the distance itself, not its share of the window, so that one
    filter serves sequences of every length. The decay is exponential, with a rate for each channel.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.first = nn.Linear(1 + 2 * _OCTAVES, _HIDDEN)
        self.second = nn.Linear(_HIDDEN, _HIDDEN)
        self.last = nn.Linear(_HIDDEN, config.d_inner, bias=False)
        self.frequency = nn.Parameter(torch.full((_HIDDEN,), _FREQUENCY))
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        self.log_rate = nn.Parameter(torch.empty(config.d_inner).uniform_(low, high))
        without_decay(self.first.bias, self.second.bias, self.frequency, self.log_rate)

    def forward(self, length: int) -> Tensor:
        """The weights of distances 0 to `length` - 1, (length, D) in at least float32, whatever autocast says."""
        if recomputed_backward(*self.parameters()):
            return checkpoint(self._weights, length, use_reentrant=False, preserve_rng_state=False)
        return self._weights(length)

    def _weights(self, length: int) -> Tensor:
        wide = torch.promote_types(self.log_rate.dtype, torch.float32)
        distance = torch.arange(length, device=self.log_rate.device, dtype=torch.float64)
        with without_autocast(self.log_rate.device):
            x = self._features(distance).to(wide)
            for layer in (self.first, self.second):
                x = torch.sin(self.frequency.to(wide) * F.linear(x, layer.weight.to(wide), layer.bias.to(wide)))
            rate = torch.exp(self.log_rate.to(wide))
            decay = torch.exp(-rate * distance.to(wide)[:, None])
            norm = torch.sqrt(-torch.expm1(-2 * rate))  # the squares of the decay then add up to one
            return F.linear(x, self.last.weight.to(wide)) * decay * norm

    @staticmethod
    def _features(distance: Tensor) -> Tensor:
        period = 2.0 ** torch.arange(1, _OCTAVES + 1, device=distance.device, dtype=distance.dtype)
        angle = 2 * math.pi * torch.remainder(distance[:, None] / period, 1.0)
        return torch.cat([torch.log2(1 + distance)[:, None] / _OCTAVES, angle.sin(), angle.cos()], dim=1)


class ImplicitConvolution(DirectedModel):
    """Short convolution, gate, long convolution, gate, in one direction.

    Its state is `(conv_state (B, 3 D, K-1), past (B, T, D))`: the long convolution needs all that went into it before,
    so its state grows with the input, as that of attention does.
    """

    divisible = False

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        width = 3 * config.d_inner
        self.conv_weight = nn.Parameter(torch.empty(width, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(width)) if config.conv_bias else None
        self.filter = ImplicitFilter(config)
        self.D = nn.Parameter(torch.randn(config.d_inner))
        bound = config.d_conv**-0.5
        for parameter in (self.conv_weight, self.conv_bias):
            if parameter is not None:
                nn.init.uniform_(parameter, -bound, bound)
        without_decay(self.conv_bias, self.D)

    @staticmethod
    def widths(config: BackboneConfig) -> tuple[int, int]:
        """Channels and two gates in, channels out."""
        return 3 * config.d_inner, config.d_inner

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> LayerState:
        """Gives the state before any token: nothing has gone in."""
        config = self.config
        conv = torch.zeros(batch_size, 3 * config.d_inner, config.d_conv - 1, device=device, dtype=dtype)
        return conv, torch.zeros(batch_size, 0, config.d_inner, device=device, dtype=dtype)

    def forward(
        self, x: Tensor, state: LayerState | None, reset: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, LayerState]:
        """`x` (B, L, 3 D) holds both gates, then the channels; gives (B, L, D) and the state after the last token."""
        x, conv_state = causal_conv1d(
            *(x, self.conv_weight, self.conv_bias),
            initial_state=None if state is None else state[0],
            reset=reset,
            reverse=reverse,
            return_final_state=True,
        )
        after, before, value = x.chunk(3, dim=-1)
        y, past = self._convolve(before * value, None if state is None else state[1], reset, reverse)
        return after * y, (conv_state, past)

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """One token `x` (B, 3 D), in a time that grows with the tokens before it."""
        conv_state, past = state
        x, conv_state = causal_conv1d_update(x, conv_state, self.conv_weight, self.conv_bias)
        after, before, value = x.chunk(3, dim=-1)
        past = torch.cat([past.to(x.dtype), (before * value)[:, None]], dim=1)
        kernel = self.filter(past.shape[1]).flip(0)
        wide = past.to(kernel.dtype)
        y = (wide * kernel).sum(dim=1) + self.D.to(kernel.dtype) * wide[:, -1]
        return after * y.to(x.dtype), (conv_state, past)

    def _convolve(self, u: Tensor, past: Tensor | None, reset: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
        """The long convolution of `u` (B, L, D) and its skip, and the past for the next piece."""
        if reverse:
            u, reset = u.flip(1), None if reset is None else reset.flip(1)
        seen = 0 if past is None else past.shape[1]
        whole = u if past is None or not seen else torch.cat([past.to(u.dtype), u], dim=1)
        if reset is not None:
            reset = F.pad(reset, (seen, 0))
        kernel = self.filter(whole.shape[1])
        y = long_convolution(whole, kernel, reset)[:, seen:] + self.D.to(kernel.dtype) * u
        if reset is not None:  # of documents that have ended nothing is needed any more
            number = reset.cumsum(dim=1)
            whole = torch.where((number == number[:, -1:])[..., None], whole, 0)
        y = y.to(u.dtype)
        return (y.flip(1) if reverse else y), whole


@register_mixer("hyena")
class HyenaMixer(TwoWayMixer):
    """Projects in, gates around an implicit long convolution, projects out: no state of fixed size is kept."""

    model = ImplicitConvolution
