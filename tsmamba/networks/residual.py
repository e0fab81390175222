"""Ours: a ridge forecast, and a bidirectional Mamba over patches that learns what the ridge leaves unexplained.

The network begins at zero, so that training starts from the ridge's forecast, and what it adds is shrunk by a factor
that held-out windows choose. With the backbone replaced by the identity, all that the network adds is a linear map of
the window and its covariates: this twin is what a Mamba has to beat.

Shapes: `N` rows of all windows and series, `T` tokens, `D` width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mamba_kernels.blocks import Backbone, BackboneConfig
from tsmamba.config import NetworkConfig
from tsmamba.networks.base import ForecastModel, Output, Shape, centred, last_observed
from tsmamba.networks.linear import Matrices
from tsmamba.panel.windows import Batch

LEAST_PATCHES = 12
"""A short window is cut into shorter patches, so that there are at least so many."""

_LEAST_DEVIATION = 0.05
"""Added to a window's deviation, in scaled units, so that a quiet window is not blown up."""


def patches(rows: Float[Tensor, "N L *C"], patch: int) -> Float[Tensor, "N T W"]:
    """Rows cut into patches, the first one padded with zeros on its left; columns of a patch lie side by side."""
    missing = -rows.shape[1] % patch
    flat = rows.flatten(2) if rows.ndim > 2 else rows[..., None]
    padded = functional.pad(flat, (0, 0, missing, 0))
    return padded.reshape(len(rows), -1, patch * flat.shape[-1])


class ResidualModel(ForecastModel):
    """`y = last + (x - last) W + shrinkage * deviation * network((x - last) / deviation)`.

    The network is a backbone over patches with a head over all of them, beside a linear map of the window; covariates
    that are known ahead become patches of the horizon, read together with those of the window.

    Args:
        shape: of the windows.
        network: of the backbone.
        n_own: series with a matrix of their own.
        backbone: `mamba`, or `identity` for the twin that is linear.
    """

    shrinkage: Tensor
    reads_calendar = "repeated"

    def __init__(self, shape: Shape, network: NetworkConfig, n_own: int = 0, backbone: str = "mamba") -> None:
        super().__init__(shape)
        self.backbone_name = backbone
        self.patch = max(min(network.patch, shape.lookback // LEAST_PATCHES), 1)
        self.ridge = Matrices(shape.lookback, shape.horizon, n_own)
        self.register_buffer("shrinkage", torch.ones(()))
        width = network.d_model
        n_columns = 2 + shape.n_past + shape.n_future
        self.embed = nn.Linear(self.patch * n_columns, width)
        self.static = nn.Linear(shape.n_static, width, bias=False) if shape.n_static else None
        self.ahead = nn.Linear(self.patch * shape.n_future, width) if shape.n_future else None
        self.backbone = Backbone(backbone_config(network)) if backbone == "mamba" else IdentityBackbone()
        self.dropout = nn.Dropout(network.dropout)
        n_tokens = math.ceil(shape.lookback / self.patch)
        self.head = _zero(nn.Linear(n_tokens * width, shape.horizon))
        self.linear = _zero(nn.Linear(shape.lookback, shape.horizon, bias=False))
        self.ahead_head = _zero(nn.Linear(width, self.patch)) if shape.n_future else None
        self.spread = _zero(nn.Linear(width + 1, shape.horizon))

    def forward(self, batch: Batch) -> Output:
        """Point forecast, and quantiles at the fitted offsets, widened or narrowed for each window."""
        base, added, log_spread = self.parts(batch)
        return self.output(base + self.shrinkage * added, log_spread)

    def point(self, batch: Batch) -> Float[Tensor, "B M H"]:
        """The ridge's forecast and what the network adds, shrunk."""
        base, added, _ = self.parts(batch)
        return base + self.shrinkage * added

    def output(self, point: Tensor, log_spread: Tensor) -> Output:
        """Quantiles around a point forecast: the offsets times a positive spread keep their order."""
        return Output(point, point[..., None] + log_spread.exp()[..., None] * self.offsets)

    def describe(self) -> dict[str, Any]:
        """How many series have a matrix of their own, and which backbone reads the patches."""
        return {"n_own": len(self.ridge.own), "backbone": self.backbone_name}

    def parts(self, batch: Batch) -> tuple[Float[Tensor, "B M H"], Float[Tensor, "B M H"], Float[Tensor, "B M H"]]:
        """The ridge's forecast, what the network would add unshrunk, and the logarithm of the quantiles' spread."""
        last = last_observed(batch.x, batch.seen)
        z = centred(batch.x, batch.seen, last)
        deviation = _deviation(z, batch.seen)
        z_n, unit = z.flatten(0, 1), deviation.flatten(0, 1)
        tokens = self._tokens(z_n / unit, batch)
        n_context = math.ceil(self.shape.lookback / self.patch)
        hidden, _ = self.backbone(tokens)
        context = self.dropout(hidden[:, :n_context])
        added = self.head(context.flatten(1)) + self.linear(z_n / unit)
        if self.ahead_head is not None:
            later = self.ahead_head(self.dropout(hidden[:, n_context:])).flatten(1)
            added = added + later[:, -self.shape.horizon :]
        log_spread = self.spread(torch.cat([context.mean(dim=1), unit.log()], dim=-1)).clamp(-2.0, 2.0)
        rows = batch.x.shape[:2]
        base = last + self.ridge(z, batch.who)
        return base, deviation * added.unflatten(0, rows), log_spread.unflatten(0, rows)

    def _tokens(self, z: Float[Tensor, "N L"], batch: Batch) -> Float[Tensor, "N T D"]:
        """Patches of the context, then patches of what is known of the horizon."""
        lookback, patch = self.shape.lookback, self.patch
        future = batch.future.flatten(0, 1)
        columns = [z[..., None], batch.seen.flatten(0, 1)[..., None].float(), batch.past.flatten(0, 1)]
        context = torch.cat([*columns, future[:, :lookback]], dim=-1)
        tokens = self.embed(patches(context, patch))
        if self.ahead is not None:
            tokens = torch.cat([tokens, self.ahead(patches(future[:, lookback:], patch))], dim=1)
        if self.static is not None:
            tokens = tokens + self.static(batch.static.flatten(0, 1))[:, None]
        return tokens


class IdentityBackbone(nn.Module):
    """Gives back what it is given, as a backbone does: with it, a network of linear maps stays one linear map."""

    def forward(self, tokens: Float[Tensor, "N T D"]) -> tuple[Float[Tensor, "N T D"], None]:
        """The tokens as they are, and no state."""
        return tokens, None


def backbone_config(network: NetworkConfig, bidirectional: str = "add") -> BackboneConfig:
    """The backbone of a network's shape, its directions with their own weights."""
    return BackboneConfig(
        d_model=network.d_model,
        layers=["mamba"] * network.n_layers,
        d_state=network.d_state,
        d_conv=network.d_conv,
        expand=network.expand,
        bidirectional=bidirectional,
        tie_directions=False,
        chunk_size=None,
    )


def _deviation(z: Float[Tensor, "*rows L"], seen: Tensor) -> Float[Tensor, "*rows 1"]:
    """The deviation of what was observed around its mean, a little enlarged."""
    count = seen.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = z.sum(dim=-1, keepdim=True) / count
    square = ((z - mean).square() * seen).sum(dim=-1, keepdim=True) / count
    return square.sqrt() + _LEAST_DEVIATION


def _zero(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
