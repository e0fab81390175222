"""The linear forecaster: one matrix from a window around its last value to the horizon, shared by all series."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tsmamba.models.base import ForecastModel, Shape, centred, last_observed
from tsmamba.windows import Batch


class LinearModel(ForecastModel):
    """`y = last + (x - last) W`: equivariant to shifts of level, and linear in the window.

    Every average of such models, whatever their lookbacks and whichever level they subtract, is one such matrix, so an
    ensemble costs what one of them costs.
    """

    weight: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.register_buffer("weight", torch.zeros(shape.lookback, shape.horizon))

    def point(self, batch: Batch) -> Float[Tensor, "B M H"]:
        """The window around its last observed value, times the matrix; what was not observed adds nothing."""
        last = last_observed(batch.x, batch.seen)
        return last + centred(batch.x, batch.seen, last) @ self.weight
