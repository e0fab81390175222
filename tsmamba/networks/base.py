"""What all forecasting models share: their shape, their output, and the last observed value as the anchor of a window.

Shapes: `B` windows, `M` series read together, `L` lookback, `H` horizon, `Q` quantile levels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tsmamba.panel.windows import Batch

_STEPS_AT_A_TIME = 64


@dataclass(frozen=True)
class Shape:
    """What data and horizon decide about a model.

    Attributes:
        lookback: rows of context.
        horizon: rows to forecast.
        channels: series that are read together; 1 where each is read alone.
        n_past, n_future, n_static: covariates, the calendar's features among those known ahead.
        n_levels: quantiles.
    """

    lookback: int
    horizon: int
    channels: int = 1
    n_past: int = 0
    n_future: int = 0
    n_static: int = 0
    n_levels: int = 5

    def to_dict(self) -> dict[str, int]:
        """Gives plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Shape:
        """The shape that `to_dict` wrote.

        Raises:
            TypeError: a key is unknown or missing.
            ValueError: a value is no count.
        """
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a count, not {value!r}")
        return cls(**values)


class Output(NamedTuple):
    """Forecasts in scaled units; quantiles don't fall along `Q`."""

    point: Float[Tensor, "B M H"]
    quantiles: Float[Tensor, "B M H Q"]


class ForecastModel(nn.Module):
    """A model that reads a `Batch` and gives an `Output`.

    Its quantiles are the point forecast plus offsets, which `set_offsets` takes from errors on held-out windows.
    """

    reads_together: bool = False
    """Whether all channels of a panel are read at once."""

    reads_calendar: str = "none"
    """Which calendar features are among the covariates known ahead: none, all, or those that training saw repeat."""

    offsets: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("offsets", torch.zeros(shape.horizon, shape.n_levels))

    def point(self, batch: Batch) -> Float[Tensor, "B M H"]:
        """The point forecast in scaled units."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Output:
        """Computes the point forecast and the quantiles."""
        point = self.point(batch)
        return Output(point, point[..., None] + self.offsets)

    def set_offsets(self, errors: Float[Tensor, "n H"], levels: tuple[float, ...]) -> None:
        """Takes the quantiles' offsets from errors (observed minus forecast, NaN where unobserved), step by step."""
        at = torch.tensor(levels, dtype=torch.float64)
        few = errors.split(_STEPS_AT_A_TIME, dim=1)  # sorting them takes several times their memory
        found = torch.cat([torch.nanquantile(part.double(), at, dim=0).T for part in few])
        self.offsets.copy_(torch.nan_to_num(found))

    def describe(self) -> dict[str, Any]:
        """What `build_model` needs to make this model again, beside configuration and shape."""
        return {}


def last_observed(x: Float[Tensor, "*rows L"], seen: Bool[Tensor, "*rows L"]) -> Float[Tensor, "*rows 1"]:
    """The last observed value of each row; 0 where nothing was observed."""
    places = torch.arange(1, x.shape[-1] + 1, device=x.device) * seen
    last = places.argmax(dim=-1, keepdim=True)
    return torch.gather(x, -1, last) * seen.any(dim=-1, keepdim=True)


def centred(x: Float[Tensor, "*rows L"], seen: Bool[Tensor, "*rows L"], at: Tensor) -> Float[Tensor, "*rows L"]:
    """Values around an anchor (*rows, 1); what was not observed is 0."""
    return (x - at) * seen
