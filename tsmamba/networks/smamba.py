"""S-Mamba: one token a variate, Mamba in both directions over the variates (Wang and others 2024, arXiv 2403.11144).

Shapes: `B` windows, `M` variates, `E` exogenous rows (calendar and covariates, each a token too), `D` width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mamba_kernels.blocks import build_mixer
from tsmamba.config import NetworkConfig
from tsmamba.networks.base import ForecastModel, Shape
from tsmamba.networks.residual import backbone_config
from tsmamba.panel.windows import Batch

_EPS = 1e-5


class VariateLayer(nn.Module):
    """`norm(x + mamba(x) + flip(mamba'(flip x)))`, then a feed-forward layer with a residual and norm of its own."""

    def __init__(self, network: NetworkConfig) -> None:
        super().__init__()
        width = network.d_model
        alone = network.model_copy(update={"n_layers": 1})  # each layer is drawn as if it were the only one
        self.mixer = build_mixer("mamba", backbone_config(alone))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.up, self.down = nn.Linear(width, network.d_feedforward), nn.Linear(network.d_feedforward, width)
        self.dropout = nn.Dropout(network.dropout)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Tokens in any order that stays the same."""
        x = self.norms[0](x + self.mixer.mix(x, None, None)[0])
        hidden = self.dropout(functional.gelu(self.up(x)))
        return self.norms[1](x + self.dropout(self.down(hidden)))


class SMamba(ForecastModel):
    """Each variate's window becomes a token; Mamba mixes the tokens; a linear map gives each variate's horizon."""

    reads_together = True
    reads_calendar = "all"

    def __init__(self, shape: Shape, network: NetworkConfig) -> None:
        super().__init__(shape)
        self.embed = nn.Linear(shape.lookback, network.d_model)
        self.dropout = nn.Dropout(network.dropout)
        self.layers = nn.ModuleList(VariateLayer(network) for _ in range(network.n_layers))
        self.norm = nn.LayerNorm(network.d_model)
        self.head = nn.Linear(network.d_model, shape.horizon)

    def point(self, batch: Batch) -> Float[Tensor, "B M H"]:
        """Each window in units of its own mean and deviation; the exogenous tokens are those of the first variate."""
        z, mean, deviation = standardise(batch.x, batch.seen)
        ahead = batch.future[:, 0, : self.shape.lookback]
        outside = torch.cat([batch.past[:, 0], ahead], dim=-1).transpose(1, 2)
        tokens = self.dropout(self.embed(torch.cat([z, outside], dim=1)))
        for layer in self.layers:
            tokens = layer(tokens)
        forecast = self.head(self.norm(tokens))[:, : z.shape[1]]
        return forecast * deviation + mean


def standardise(x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Windows around their mean in units of their deviation, over what was observed; the rest is 0."""
    count = seen.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = (x * seen).sum(dim=-1, keepdim=True) / count
    around = (x - mean) * seen
    deviation = (around.square().sum(dim=-1, keepdim=True) / count + _EPS).sqrt()
    return around / deviation, mean, deviation
