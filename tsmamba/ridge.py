"""Closed-form ridge regression from windows to horizons, with strength and lookback chosen on held-out windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tsmamba.models.base import centred, last_observed
from tsmamba.windows import Batch, Origins, Windows

STRENGTHS = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.2, 0.5, 1.0, 3.0)
"""Penalties, in units of the number of windows times the mean square of a window's values."""

_MOST_WINDOWS = 2**18
_BATCH = 8192


@dataclass(frozen=True)
class RidgeFit:
    """A matrix and how it was chosen.

    Attributes:
        weight: (L, H), for windows around their last value; zero before `lookback`.
        lookback: rows that the matrix reads.
        strength: of the penalty.
        mse, mae: on the held-out windows, in scaled units.
    """

    weight: Float[Tensor, "L H"]
    lookback: int
    strength: float
    mse: float
    mae: float


def anchored(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Windows (n, L), horizons (n, H) and which of these are known (n, H), around each window's last value."""
    last = last_observed(batch.x, batch.seen)
    x, y = centred(batch.x, batch.seen, last), centred(batch.y, batch.known, last)
    return x.flatten(0, 1), y.flatten(0, 1), batch.known.flatten(0, 1)


class LagProducts:
    """Sums of products between the rows of windows and horizons: all that ridge regression needs of the data.

    Args:
        windows: where they are read.
        origins: which; at most 2^18 of them are used, spread evenly.
    """

    def __init__(self, windows: Windows, origins: Origins) -> None:
        lookback, horizon = windows.lookback, windows.horizon
        if len(origins) > _MOST_WINDOWS:
            origins = origins.take(torch.linspace(0, len(origins) - 1, _MOST_WINDOWS).long().numpy())
        self.inner = torch.zeros(lookback, lookback, dtype=torch.float64)
        self.outer = torch.zeros(lookback, horizon, dtype=torch.float64)
        self.n = 0
        counts = torch.zeros(horizon, dtype=torch.float64)
        for _, batch in windows.batches(origins, _BATCH):
            x, y, known = anchored(batch)
            self.inner += (x.T @ x).double()
            self.outer += (x.T @ y).double()
            counts += known.sum(dim=0)
            self.n += len(x)
        self.outer *= self.n / counts.clamp(min=1)  # steps that were observed in fewer windows weigh the same

    def solve(self, lookback: int, strengths: Sequence[float]) -> list[Float[Tensor, "L H"]]:
        """The matrices of ridge regression that read the last `lookback` rows, one for each strength."""
        inner, outer = self.inner[-lookback:, -lookback:], self.outer[-lookback:]
        values, vectors = torch.linalg.eigh(inner)
        rotated = vectors.T @ outer
        unit = float(inner.diagonal().mean())
        before = len(self.inner) - lookback
        weights = []
        for strength in strengths:
            weight = vectors @ (rotated / (values[:, None] + max(strength * unit, 1e-9)))
            weights.append(torch.nn.functional.pad(weight, (0, 0, before, 0)).float())
        return weights


def errors(
    weight: Float[Tensor, "L H"], windows: Windows, origins: Origins
) -> tuple[Float[Tensor, "n H"], tuple[float, float]]:
    """Errors (observed minus forecast, NaN where unobserved) on some windows, with their MSE and MAE."""
    parts = []
    for _, batch in windows.batches(origins, _BATCH):
        x, y, known = anchored(batch)
        parts.append((y - x @ weight).masked_fill(~known, float("nan")))
    whole = torch.cat(parts)
    return whole, (float(whole.square().nanmean()), float(whole.abs().nanmean()))


def fit_ridge(
    windows: Windows, train: Origins, valid: Origins, lookbacks: Sequence[int] | None = None
) -> list[RidgeFit]:
    """The best strength for each lookback, by MSE on held-out windows; the best lookback comes first."""
    products = LagProducts(windows, train)
    fits = []
    for lookback in lookbacks or (windows.lookback,):
        for strength, weight in zip(STRENGTHS, products.solve(lookback, STRENGTHS), strict=True):
            _, (mse, mae) = errors(weight, windows, valid)
            fits.append(RidgeFit(weight, lookback, strength, mse, mae))
    best = {fit.lookback: min((f for f in fits if f.lookback == fit.lookback), key=lambda f: f.mse) for fit in fits}
    return sorted(best.values(), key=lambda fit: fit.mse)
