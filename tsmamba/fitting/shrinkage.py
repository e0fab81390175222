"""How much of a network is kept beside its ridge, and what it surely saves: measured on held-out rows.

Shapes: `B` windows, `S` stretches of held-out rows, `K` shrinkages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from tsmamba.fitting.held_out import MOST_STRETCHES, Plan, sure_saving
from tsmamba.networks.residual import ResidualModel
from tsmamba.panel.windows import Batch

SHRINKAGES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
_LEAST = 1e-12


def shrinkage_errors(model: ResidualModel, batch: Batch) -> Float64[Tensor, "B K2_1"]:
    """Each window's sum of square errors at each of `SHRINKAGES`, then of absolute errors, then their number."""
    base, added, _ = model.parts(batch)
    error, added = (base - batch.y).double() * batch.known, added.double() * batch.known
    at = torch.stack([error + shrinkage * added for shrinkage in SHRINKAGES], dim=1).flatten(2)
    count = batch.known.flatten(1).sum(dim=1, keepdim=True)
    return torch.cat([at.square().sum(dim=2), at.abs().sum(dim=2), count.double()], dim=1)


def mean_errors(sums: Float64[Tensor, "*rows K2_1"]) -> tuple[Float64[Tensor, "*rows K"], Float64[Tensor, "*rows K"]]:
    """MSE and MAE at each of `SHRINKAGES`."""
    half, count = len(SHRINKAGES), sums[..., -1:].clamp(min=1)
    return sums[..., :half] / count, sums[..., half:-1] / count


def best_shrinkage(mse: Float64[Tensor, " K"], mae: Float64[Tensor, " K"]) -> int:
    """Which shrinkage has the least errors, by the ridge's (the first), of those whose MSE is not above that one's."""
    errors = mse / mse[0].clamp(min=_LEAST) + mae / mae[0].clamp(min=_LEAST)
    return int(errors.masked_fill(mse > mse[0], float("inf")).argmin())


def safe_shrinkage(sums: Float64[Tensor, "S K2_1"], caution: float = 1.0) -> float:
    """The shrinkage that most surely saves over stretches of held-out rows; 0 where none does (see `sure_saving`)."""
    whole, _ = mean_errors(sums.sum(dim=0))
    mse, mae = mean_errors(sums[sums[:, -1] > 0])
    saved = 2 - mse / mse[:, :1].clamp(min=_LEAST) - mae / mae[:, :1].clamp(min=_LEAST)
    left = np.where(whole > whole[0], -np.inf, sure_saving(saved.numpy(), caution))
    return SHRINKAGES[int(left.argmax())] if left.max() > 0 else 0.0


@torch.no_grad()
def held_out_errors(model: ResidualModel, plan: Plan) -> Float64[Tensor, "S K2_1"]:
    """The errors at each shrinkage (see `shrinkage_errors`), added up over each stretch of the rows that choose."""
    model.eval()
    sums = torch.zeros(MOST_STRETCHES, 2 * len(SHRINKAGES) + 1, dtype=torch.float64)
    for part, batch in plan.windows.batches(plan.choosing(), 1024):
        sums.index_add_(0, torch.from_numpy(plan.stretches(part)), shrinkage_errors(model, batch))
    return sums


@dataclass(frozen=True)
class Saving:
    """What one forecast saves of another's error, measured side by side on the same stretches of rows.

    Attributes:
        share: of the error, the mean of what is saved in squares and in absolute errors; negative where it is larger.
        standard_error: of that share, from its spread over the stretches; NaN for a single one.
        stretches: how many there were.
        sure: whether the share exceeds its standard error (a little more of few stretches, see `sure_saving`).
    """

    share: float
    standard_error: float
    stretches: int
    sure: bool

    @classmethod
    def of(cls, saved: Float64[np.ndarray, " S"]) -> Saving:
        """From what is saved on each stretch."""
        n = len(saved)
        error = float(saved.std(ddof=1) / n**0.5) if n > 1 else float("nan")
        return cls(float(saved.mean()) if n else 0.0, error, n, bool(sure_saving(saved) > 0))

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """Plain values for JSON, rounded to what is known of them."""
        error = None if np.isnan(self.standard_error) else round(self.standard_error, 6)
        return {
            "share": round(self.share, 6), "standard_error": error, "stretches": self.stretches, "sure": self.sure
        }  # fmt: skip


def saving(
    ours: Float64[Tensor, "S K2_1"], shrinkage: float, theirs: Float64[Tensor, "S K2_1"], their_shrinkage: float
) -> Saving:
    """What a network at its shrinkage saves of the error that another one (or the same, at 0) makes at its own.

    Args:
        ours, theirs: `held_out_errors` of both, which share their ridge and their rows.
        shrinkage, their_shrinkage: of `SHRINKAGES`.
    """
    present = ours[:, -1] > 0
    mine, other = SHRINKAGES.index(shrinkage), SHRINKAGES.index(their_shrinkage)
    shares = [
        1 - one[:, mine] / two[:, other].clamp(min=_LEAST)
        for one, two in zip(mean_errors(ours[present]), mean_errors(theirs[present]), strict=True)
    ]
    return Saving.of(((shares[0] + shares[1]) / 2).numpy())
