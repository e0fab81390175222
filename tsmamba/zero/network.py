"""The pre-trained forecaster's network: a causal Mamba over patches of the history, then over patches of the future.

Shapes: `B` series, `C` rows of context, `H` rows ahead, `P` rows of a patch, `T` patches, `D` width, `J` continuations,
`Q` quantile levels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mamba_kernels.blocks import Backbone, BackboneConfig
from tsmamba.zero.features import (
    AHEAD_FEATURES,
    CONTINUATIONS,
    ROW_FEATURES,
    SERIES_FEATURES,
    Context,
    features,
)

BACKBONES = ("mamba", "mlp", "identity")
LEVELS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975)
"""Quantiles that are learnt; others lie between them."""

_MIDDLE = LEVELS.index(0.5)


@dataclass(frozen=True)
class ZeroConfig:
    """The network's shape.

    Attributes:
        width: of the backbone.
        depth: its layers.
        patch: rows of a patch.
        state: states a channel of the Mamba.
        expand: inner channels of the Mamba over `width`.
        backbone: `mamba`; `mlp` and `identity` are what it is compared with.
    """

    width: int = 128
    depth: int = 2
    patch: int = 8
    state: int = 16
    expand: int = 1
    backbone: str = "mamba"

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone={self.backbone!r} is not one of {', '.join(BACKBONES)}")

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(self)


class ZeroNetwork(nn.Module):
    """Quantiles of what follows a history of any unit.

    A patch of the history becomes a token, and so does a patch of the future, which knows how simple methods would go
    on from here. The backbone reads them in time's order. What comes out at a row ahead mixes the simple methods'
    forecasts and adds to them; spreads are sums of positive steps, so quantiles never cross.
    """

    def __init__(self, config: ZeroConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch
        self.past = _embedding(patch * ROW_FEATURES, width)
        self.ahead = _embedding(patch * AHEAD_FEATURES, width)
        self.series = nn.Linear(SERIES_FEATURES, 2 * width)
        self.backbone = _backbone(config)
        self.head = nn.Sequential(_Feedforward(width), _Feedforward(width), nn.RMSNorm(width))
        self.mix = nn.Linear(width, patch * (CONTINUATIONS + 1))
        self.spread = nn.Linear(width, patch * (len(LEVELS) - 1))
        for layer in (self.mix, self.spread):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, context: Context, horizon: int) -> Float[Tensor, "B H Q"]:
        """Quantiles at `LEVELS`, in the series' own units."""
        patch = self.config.patch
        steps = -(-horizon // patch) * patch
        found = features(context, steps)
        kind = self.mix.weight.dtype
        answers, spread = self.answers(found.rows.to(kind), found.ahead.to(kind), found.series.to(kind))
        mixed = (answers[..., :CONTINUATIONS] * found.continuations).sum(dim=-1) + answers[..., CONTINUATIONS]
        steps_up = functional.softplus(spread - 2.0)
        below = steps_up[..., :_MIDDLE].flip(-1).cumsum(dim=-1).flip(-1)
        above = steps_up[..., _MIDDLE:].cumsum(dim=-1)
        offsets = torch.cat([-below, torch.zeros_like(below[..., :1]), above], dim=-1)
        change = (mixed[..., None] + offsets) * found.unit[..., None]
        change = torch.where(found.constant[..., None], 0.0, change)
        return (found.base[..., None] + change)[:, :horizon]

    def answers(
        self, rows: Float[Tensor, "B C R"], ahead: Float[Tensor, "B H A"], series: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B H J1"], Float[Tensor, "B H Q1"]]:
        """Shares of the continuations and what is added to them, and the steps between quantiles."""
        patch = self.config.patch
        rows = functional.pad(rows, (0, 0, -rows.shape[1] % patch, 0))
        about = self.series(series)[:, None]
        of_past, of_ahead = about.chunk(2, dim=-1)
        past = self.past(rows.unflatten(1, (-1, patch)).flatten(2)) + of_past
        future = self.ahead(ahead.unflatten(1, (-1, patch)).flatten(2)) + of_ahead
        hidden = self.head(self.backbone(past, future) + future)
        mix, spread = self.mix(hidden), self.spread(hidden)
        return mix.unflatten(-1, (patch, -1)).flatten(1, 2), spread.unflatten(-1, (patch, -1)).flatten(1, 2)


class _Mamba(nn.Module):
    """A causal Mamba over all tokens, the history's first."""

    def __init__(self, config: ZeroConfig) -> None:
        super().__init__()
        layers = ["mamba"] * config.depth
        self.layers = Backbone(
            BackboneConfig(config.width, layers, d_state=config.state, expand=config.expand, chunk_size=None)
        )

    def forward(self, past: Float[Tensor, "B T D"], future: Float[Tensor, "B F D"]) -> Float[Tensor, "B F D"]:
        return self.layers(torch.cat([past, future], dim=1))[0][:, past.shape[1] :]


class _Mlp(nn.Module):
    """What a Mamba is compared with: a network over a future token beside the latest tokens of the history.

    Its hidden layer makes a network of the default shape as large as with the Mamba.
    """

    _TOKENS, _NARROW, _HIDDEN = 18, 24, 164

    def __init__(self, config: ZeroConfig) -> None:
        super().__init__()
        width = config.width
        n_inputs = width + self._TOKENS * self._NARROW
        self.narrow = nn.Linear(width, self._NARROW)
        self.layers = nn.Sequential(
            nn.RMSNorm(n_inputs), nn.Linear(n_inputs, self._HIDDEN), nn.SiLU(), nn.Linear(self._HIDDEN, width)
        )

    def forward(self, past: Float[Tensor, "B T D"], future: Float[Tensor, "B F D"]) -> Float[Tensor, "B F D"]:
        latest = self.narrow(past[:, -self._TOKENS :])
        latest = functional.pad(latest, (0, 0, self._TOKENS - latest.shape[1], 0)).flatten(1)
        beside = latest[:, None].expand(-1, future.shape[1], -1)
        return self.layers(torch.cat([future, beside], dim=-1))


class _Identity(nn.Module):
    """Reads nothing of the history but what the future tokens are told of it."""

    def forward(self, past: Float[Tensor, "B T D"], future: Float[Tensor, "B F D"]) -> Float[Tensor, "B F D"]:
        return torch.zeros_like(future)


def _backbone(config: ZeroConfig) -> nn.Module:
    if config.backbone == "identity":
        return _Identity()
    return _Mamba(config) if config.backbone == "mamba" else _Mlp(config)


class _Feedforward(nn.Module):
    """A residual layer over each token by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.RMSNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Float[Tensor, "B F D"]) -> Float[Tensor, "B F D"]:
        return tokens + self.layers(tokens)


def _embedding(n_inputs: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_inputs, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
