"""A causal forecaster: a Mamba that reads one row after another, and can go on from its state in constant time.

Shapes: `B` rows of a batch, `L` rows in time, `D` width, `H` horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mamba_kernels.blocks import Backbone
from mamba_kernels.blocks.backbone import BackboneState
from tsmamba.config import NetworkConfig
from tsmamba.networks.base import ForecastModel, Output, Shape
from tsmamba.networks.residual import backbone_config
from tsmamba.panel.windows import Batch

_PIECE = 4096
"""Rows that are read at once where a whole history is read."""


@dataclass(frozen=True)
class StreamState:
    """What a causal forecaster remembers of a series: the same size after any number of rows.

    Attributes:
        last: (B,) the last observed value, in scaled units.
        backbone: the backbone's state.
    """

    last: Float[Tensor, " B"]
    backbone: BackboneState


class CausalModel(ForecastModel):
    """`y = last + head(mamba(rows up to now))`; each row is its value, its change, and whether it was observed.

    Nothing of a row depends on later rows, so a series can be fed row by row.
    """

    reads_calendar = "repeated"

    def __init__(self, shape: Shape, network: NetworkConfig) -> None:
        super().__init__(shape)
        self.embed = nn.Linear(3 + shape.n_past + shape.n_future + shape.n_static, network.d_model)
        self.backbone = Backbone(backbone_config(network, "none"))
        self.head = nn.Linear(network.d_model, shape.horizon)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def point(self, batch: Batch) -> Float[Tensor, "B M H"]:
        """The forecast after the window's last row."""
        return self.every_row(batch)[:, :, -1]

    def every_row(self, batch: Batch) -> Float[Tensor, "B M L H"]:
        """The forecasts after each row of the window."""
        x, seen = batch.x.flatten(0, 1), batch.seen.flatten(0, 1)
        last = _filled(x, seen)
        before = torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1]], dim=1)
        tokens = self._tokens(last, before, seen, _outside(batch))
        hidden, _ = self.backbone(tokens)
        return (last[..., None] + self.head(hidden)).unflatten(0, batch.x.shape[:2])

    @torch.no_grad()
    def after(self, batch: Batch, rows: Sequence[int]) -> Float[Tensor, "B M R H"]:
        """The forecasts after some rows of the window, which is read once, in pieces that need little memory.

        Args:
            batch: windows.
            rows: how many rows of the window each forecast has read, at least 1.
        """
        x, seen, outside = batch.x.flatten(0, 1), batch.seen.flatten(0, 1), _outside(batch)
        last = _filled(x, seen)
        before = torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1]], dim=1)
        wanted = torch.tensor(rows) - 1
        point = torch.empty(len(x), len(rows), self.shape.horizon)
        state = None
        for start in range(0, x.shape[1], _PIECE):
            piece = slice(start, start + _PIECE)
            tokens = self._tokens(last[:, piece], before[:, piece], seen[:, piece], outside[:, piece])
            hidden, state = self.backbone(tokens, state)
            here = (wanted >= start) & (wanted < start + _PIECE)
            at = wanted[here]
            point[:, here] = last[:, at, None] + self.head(hidden[:, at - start])
        return point.unflatten(0, batch.x.shape[:2])

    def _tokens(self, last: Tensor, before: Tensor, seen: Tensor, outside: Tensor) -> Tensor:
        own = torch.stack([last, last - before, seen.to(last.dtype)], dim=-1)
        return self.embed(torch.cat([own, outside], dim=-1))

    def initial_state(self, n: int) -> StreamState:
        """The state of `n` series before their first row."""
        return StreamState(torch.zeros(n), self.backbone.initial_state(n))

    @torch.no_grad()
    def step(
        self, x: Float[Tensor, " B"], seen: Bool[Tensor, " B"], outside: Float[Tensor, "B C"], state: StreamState
    ) -> tuple[Output, StreamState]:
        """One more row of each series, in constant time.

        Args:
            x: values in scaled units; whatever is not observed is ignored.
            seen: which were observed.
            outside: past covariates, then those known ahead with the calendar's, then static ones, all of this row.
            state: what the row before left.

        Returns:
            The forecast from here on, (B, 1, H), and the state.
        """
        last = torch.where(seen, x, state.last)
        token = self._tokens(last, state.last, seen, outside)
        hidden, backbone = self.backbone.step(token, state.backbone)
        point = (last[:, None] + self.head(hidden))[:, None]
        return Output(point, point[..., None] + self.offsets), StreamState(last, backbone)


def _filled(x: Float[Tensor, "B L"], seen: Bool[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """The last observed value up to each row; 0 before the first."""
    places = torch.where(seen, torch.arange(1, x.shape[1] + 1, device=x.device), 0).cummax(dim=1).values
    padded = torch.cat([torch.zeros_like(x[:, :1]), x * seen], dim=1)
    return torch.gather(padded, 1, places)


def _outside(batch: Batch) -> Float[Tensor, "N L C"]:
    """Covariates of each row of the window."""
    lookback = batch.x.shape[-1]
    static = batch.static[:, :, None].expand(-1, -1, lookback, -1)
    return torch.cat([batch.past, batch.future[:, :, :lookback], static], dim=-1).flatten(0, 1)
