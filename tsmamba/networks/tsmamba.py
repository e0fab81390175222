"""TSMamba: separate forward and backward Mamba encoders over patches (Ma and others 2024, arXiv 2411.02941).

Shapes: `N` rows (windows times channels), `T` patches, `W` rows of a patch, `D` width, `M` channels.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mamba_kernels.blocks import Backbone
from tsmamba.config import NetworkConfig
from tsmamba.networks.base import ForecastModel, Shape
from tsmamba.networks.residual import backbone_config
from tsmamba.networks.smamba import standardise
from tsmamba.panel.windows import Batch


class ChannelAttention(nn.Module):
    """Channel-wise compressed attention: channels projected to `ceil(log2 M)`, attended, expanded, added (section 3.4).

    The expansion begins at zero, so that fine-tuning starts from the channel-independent model.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        few = max(math.ceil(math.log2(channels)), 1)
        self.compress, self.expand = nn.Linear(channels, few), nn.Linear(few, channels)
        self.attention = nn.MultiheadAttention(width, 1, batch_first=True)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, hidden: Float[Tensor, "B M T D"]) -> Float[Tensor, "B M T D"]:
        """Mixes the channels of each patch."""
        b, m, t, d = hidden.shape
        rows = hidden.permute(0, 2, 3, 1).reshape(b * t, d, m)
        few = self.compress(rows).transpose(1, 2)
        mixed = self.attention(few, few, few, need_weights=False)[0]
        return hidden + self.expand(mixed.transpose(1, 2)).reshape(b, t, d, m).permute(0, 3, 1, 2)


class TSMamba(ForecastModel):
    """Patches of a standardised window, read forward and backward by encoders of their own, and a compress head.

    Args:
        shape: of the windows; with more than one channel, fine-tuning mixes them by compressed attention.
        network: of the encoders.
    """

    def __init__(self, shape: Shape, network: NetworkConfig) -> None:
        super().__init__(shape)
        self.network = network
        self.reads_together = shape.channels > 1
        width = network.d_model
        self.embed = nn.Conv1d(2, width, network.patch, stride=network.stride)
        self.forward_encoder = Backbone(backbone_config(network, "none"))
        self.backward_encoder = Backbone(backbone_config(network, "none"))
        self.next_patch, self.last_patch = nn.Linear(width, network.stride), nn.Linear(width, network.stride)
        self.align = nn.Conv1d(width, width, 3, padding=1)
        self.channel_attention = ChannelAttention(shape.channels, width) if shape.channels > 1 else None
        n_tokens = (shape.lookback + self._padding() - network.patch) // network.stride + 1
        narrow = max(width // 8, 1)
        self.compress = nn.Linear(width, narrow)
        self.dropout = nn.Dropout(network.dropout)
        self.head = nn.Linear(n_tokens * narrow, shape.horizon)

    def _padding(self) -> int:
        """Rows put before the window so that its end is the end of a patch."""
        patch, stride, lookback = self.network.patch, self.network.stride, self.shape.lookback
        return patch - lookback if lookback < patch else -(lookback - patch) % stride

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Both encoders' outputs (N, T, D), in the order of time, the padded window (N, L), its mean and deviation."""
        z, mean, deviation = standardise(batch.x, batch.seen)
        rows = torch.stack([z, batch.seen.to(z.dtype)], dim=2).flatten(0, 1)
        rows = functional.pad(rows, (self._padding(), 0))
        tokens = self.embed(rows).transpose(1, 2)
        ahead, _ = self.forward_encoder(tokens)
        back, _ = self.backward_encoder(tokens.flip(1))
        return ahead, back.flip(1), rows[:, 0], mean, deviation

    def point(self, batch: Batch) -> Float[Tensor, "B M H"]:
        """The backward output, aligned by a convolution over time, is added to the forward one; the head reads all."""
        ahead, back, _, mean, deviation = self.encode(batch)
        hidden = ahead + self.align(back.transpose(1, 2)).transpose(1, 2)
        if self.channel_attention is not None:
            hidden = self.channel_attention(hidden.unflatten(0, batch.x.shape[:2])).flatten(0, 1)
        forecast = self.head(self.dropout(functional.gelu(self.compress(hidden))).flatten(1))
        return forecast.unflatten(0, batch.x.shape[:2]) * deviation + mean

    def self_supervised_errors(self, batch: Batch) -> tuple[Float[Tensor, "N T1 W"], Float[Tensor, "N T1 W"]]:
        """Stage 1: the forward encoder's errors on the rows after each patch, the backward one's on those before."""
        ahead, back, rows, _, _ = self.encode(batch)
        stride, patch = self.network.stride, self.network.patch
        after = rows[:, patch:].unfold(1, stride, stride)
        before = rows[:, : rows.shape[1] - patch].unfold(1, stride, stride)
        return self.next_patch(ahead[:, :-1]) - after, self.last_patch(back[:, 1:]) - before
