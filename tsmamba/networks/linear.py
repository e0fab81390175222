"""The linear forecaster: a matrix from a window around its last value to the horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tsmamba.networks.base import ForecastModel, Shape, centred, last_observed
from tsmamba.panel.windows import Batch


class Matrices(nn.Module):
    """`z -> z W`, with one matrix for all series and perhaps one for each of those fitted on.

    Every average of linear forecasts that don't depend on the level is one such matrix, so that an ensemble of them
    costs what one of them costs.
    """

    common: Tensor
    own: Tensor

    def __init__(self, lookback: int, horizon: int, n_own: int = 0) -> None:
        super().__init__()
        self.register_buffer("common", torch.zeros(lookback, horizon))
        self.register_buffer("own", torch.zeros(n_own, lookback, horizon))

    def set(self, common: Tensor, own: Mapping[int, Tensor]) -> None:
        """Takes over what was fitted."""
        self.common.copy_(common)
        for number, weight in own.items():
            self.own[number].copy_(weight)

    def forward(self, z: Float[Tensor, "B M L"], who: Int[Tensor, "B M"]) -> Float[Tensor, "B M H"]:
        """Each row by its series' matrix."""
        if not len(self.own):
            return z @ self.common
        y = torch.empty(*z.shape[:-1], self.common.shape[1], dtype=z.dtype, device=z.device)
        for number in who.unique().tolist():
            known = 0 <= number < len(self.own)
            y[who == number] = z[who == number] @ (self.own[number] if known else self.common)
        return y


class LinearModel(ForecastModel):
    """`y = last + (x - last) W`: equivariant to shifts of level, and linear in the window."""

    def __init__(self, shape: Shape, n_own: int = 0) -> None:
        super().__init__(shape)
        self.ridge = Matrices(shape.lookback, shape.horizon, n_own)

    def point(self, batch: Batch) -> Float[Tensor, "B M H"]:
        """The window around its last observed value, times the matrix; what was not observed adds nothing."""
        last = last_observed(batch.x, batch.seen)
        return last + self.ridge(centred(batch.x, batch.seen, last), batch.who)

    def describe(self) -> dict[str, Any]:
        """How many series have a matrix of their own."""
        return {"n_own": len(self.ridge.own)}
