"""Closed-form ridge regression from windows to horizons, shrunk towards simple forecasts.

Shapes: `n` windows, `L` lookback, `H` horizon. Windows and horizons are taken around the window's last value, so that
a forecast doesn't depend on the level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tsmamba.fitting.held_out import MOST_STRETCHES, stretches, sure_saving
from tsmamba.networks.base import centred, last_observed
from tsmamba.panel.windows import Batch, Origins, Windows

STRENGTHS = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0)
"""Penalties, in units of the mean square of a window's values."""

OWN_STRENGTHS = (100.0, 300.0, 1000.0)
"""Penalties on a series' differences from the common matrix: strong ones, for what is a series' own changes soonest."""

MOST_OWN = 32
"""With at most so many series, each may have a matrix of its own, near the common one."""

NEGLIGIBLE = 0.01
"""Held-out errors as near as this are equal; of equal lookbacks the longest is taken, which knows most."""

_MOST_WINDOWS = 2**18
_BATCH = 8192
_SEASONS_AVERAGED = 7


@dataclass(frozen=True)
class Products:
    """Mean products between the rows of windows and horizons: all that ridge regression needs of the data.

    Attributes:
        inner: (L, L) of windows with windows.
        outer: (L, H) of windows with horizons.
        square: of horizons with themselves, a value.
        n: windows.
    """

    inner: Float64[Tensor, "L L"]
    outer: Float64[Tensor, "L H"]
    square: float
    n: int

    @classmethod
    def of(cls, windows: Windows, origins: Origins) -> Products:
        """Sums up some windows, at most 2^18 of them, spread evenly."""
        if len(origins) > _MOST_WINDOWS:
            origins = origins.take(np.linspace(0, len(origins) - 1, _MOST_WINDOWS).astype(np.int64))
        inner = torch.zeros(windows.lookback, windows.lookback, dtype=torch.float64)
        outer = torch.zeros(windows.lookback, windows.horizon, dtype=torch.float64)
        known, square, n = torch.zeros(windows.horizon, dtype=torch.float64), 0.0, 0
        for _, batch in windows.batches(origins, _BATCH):
            x, y, seen = anchored(batch)
            inner += x.T @ x
            outer += x.T @ y
            square += float(y.square().sum())
            known += seen.sum(dim=0)
            n += len(x)
        outer /= known.clamp(min=1)  # a step that was observed in fewer windows weighs the same
        return cls(inner / max(n, 1), outer, square / max(float(known.sum()), 1.0), n)

    @classmethod
    def mean(cls, parts: Sequence[Products]) -> Products:
        """The products of all the parts' windows together."""
        n = max(sum(part.n for part in parts), 1)
        inner = sum((part.inner * (part.n / n) for part in parts), torch.zeros_like(parts[0].inner))
        outer = sum((part.outer * (part.n / n) for part in parts), torch.zeros_like(parts[0].outer))
        return cls(inner, outer, sum(part.square * part.n for part in parts) / n, n)

    def last(self, lookback: int) -> Products:
        """The products of the same windows, of which only the last `lookback` rows are read."""
        return Products(self.inner[-lookback:, -lookback:], self.outer[-lookback:], self.square, self.n)

    def mse(self, weight: Float64[Tensor, "L H"]) -> float:
        """Mean squared error of the forecasts that a matrix makes."""
        explained = (weight * (self.inner @ weight - 2 * self.outer)).sum()
        return max(float(explained) / weight.shape[1] + self.square, 0.0)  # rounding may take a perfect fit below 0


class Solver:
    """Ridge regression for any target matrix and strength, after one decomposition.

    Args:
        products: of the training windows.
    """

    def __init__(self, products: Products) -> None:
        self.products = products
        self.values, self.vectors = torch.linalg.eigh(products.inner)
        self.unit = float(products.inner.diagonal().mean())

    def best(
        self, prior: Float64[Tensor, "L H"], valid: Products, strengths: Sequence[float] = STRENGTHS
    ) -> tuple[float, float, Float64[Tensor, "L H"]]:
        """The matrix of least error on held-out windows among those between least squares and the prior.

        `argmin_W |Y - X W|^2 + strength |W - prior|^2`, for rising strengths until the error rises.

        Returns:
            Its error, its strength, and the matrix.
        """
        rest = self.vectors.T @ (self.products.outer - self.products.inner @ prior)
        found: list[tuple[float, float, Tensor]] = []
        for strength in strengths:
            penalty = strength * self.unit + 1e-12
            weight = prior + self.vectors @ (rest / (self.values.clamp(min=0)[:, None] + penalty))
            found.append((valid.mse(weight), strength, weight))
            if len(found) > 2 and found[-1][0] > found[-2][0] > found[-3][0]:
                break
        return min(found, key=lambda one: one[0])


@dataclass(frozen=True)
class RidgeFit:
    """A common matrix, the series' own ones, and how they were chosen.

    Attributes:
        weight: (L, H) of the last `lookback` rows around the last value.
        own: by the series' number, matrices near the common one; empty where these were no better.
        lookback: rows that the matrices read.
        strengths: of the penalty, by the forecast that it shrinks towards.
        own_strength: of the penalty on differences from the common matrix; None where there are none.
        mse: on the held-out windows, in scaled units.
    """

    weight: Float[Tensor, "L H"]
    own: dict[int, Tensor]
    lookback: int
    strengths: dict[str, float]
    own_strength: float | None
    mse: float

    @property
    def like_naive(self) -> bool:
        """Whether the penalties are the largest there are: then these are hardly more than the simple forecasts."""
        return min(self.strengths.values()) >= STRENGTHS[-1]


def anchored(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Windows (n, L), horizons (n, H) and which of these are known (n, H), around each window's last value."""
    last = last_observed(batch.x, batch.seen)
    x, y = centred(batch.x, batch.seen, last), centred(batch.y, batch.known, last)
    return x.flatten(0, 1), y.flatten(0, 1), batch.known.flatten(0, 1)


def priors(lookback: int, horizon: int, seasons: Sequence[int]) -> dict[str, Float64[Tensor, "L H"]]:
    """Simple forecasts as matrices: the last value, and for each season its mean and its repetition."""
    found = {"last value": torch.zeros(lookback, horizon, dtype=torch.float64)}
    for season in seasons:
        if season < 2 or season > lookback:
            continue
        level = torch.zeros(lookback, horizon, dtype=torch.float64)
        level[-season:] = 1 / season
        found[f"mean of {season}"] = level
        count = min(_SEASONS_AVERAGED, lookback // season)
        seasonal = torch.zeros_like(level)
        for step in range(horizon):
            seasonal[[lookback - season * (back + 1) + step % season for back in range(count)], step] = 1 / count
        found[f"season of {season}"] = seasonal
    return found


def fit_ridge(
    windows: Windows,
    train: Origins,
    valid: Origins,
    *,
    lookbacks: Sequence[int] = (),
    seasons: Sequence[int] | None = None,
) -> RidgeFit:
    """Fits one matrix for all series, and where that is surely better on held-out windows, one near it for each.

    For each simple forecast of `priors` the strength is chosen on the held-out windows. The fit is the mean of these
    matrices, or where that is notably better the one that shrinks towards the last value alone, at the longest
    lookback whose error is not notably above the least.

    Args:
        windows: of the longest lookback.
        train: origins to fit on.
        valid: origins to choose on.
        lookbacks: to choose from; by default only the windows'.
        seasons: in rows; None is plain ridge regression towards the last value, with a matrix for all series.
    """
    own = seasons is not None and 1 < len(windows.members) <= MOST_OWN
    groups = range(len(windows.members)) if own else [None]
    train_parts = [Products.of(windows, _of_group(train, group)) for group in groups]
    valid_parts = [Products.of(windows, _of_group(valid, group)) for group in groups]
    all_train, all_valid = Products.mean(train_parts), Products.mean(valid_parts)
    fits = []
    for lookback in lookbacks or (windows.lookback,):
        solver, held = Solver(all_train.last(lookback)), all_valid.last(lookback)
        matrices = priors(lookback, windows.horizon, seasons or ())
        found = {name: solver.best(prior, held) for name, prior in matrices.items()}
        plain = {name: found[name] for name in list(found)[:1]}
        alone, together = (_averaged(some, lookback, held) for some in (plain, found))
        fits.append(together if together.mse <= (1 + NEGLIGIBLE) * alone.mse else alone)
    enough = (1 + NEGLIGIBLE) * min(fit.mse for fit in fits)
    best = max((fit for fit in fits if fit.mse <= enough), key=lambda fit: fit.lookback)
    if not own:
        return best
    solvers = [Solver(part.last(best.lookback)) for part in train_parts]
    held = [part.last(best.lookback) for part in valid_parts]
    each = [_with_own(best, solvers, held, strength) for strength in OWN_STRENGTHS]
    saved = _sure_savings(each, best, windows, valid)
    return each[int(saved.argmax())] if saved.max() > 0 else best


def _averaged(found: Mapping[str, tuple[float, float, Tensor]], lookback: int, held: Products) -> RidgeFit:
    """The mean of some matrices, and its error on held-out windows."""
    weight = sum((one[2] for one in found.values()), torch.zeros_like(held.outer)) / len(found)
    return RidgeFit(weight, {}, lookback, {name: one[1] for name, one in found.items()}, None, held.mse(weight))


def _of_group(origins: Origins, group: int | None) -> Origins:
    return origins if group is None else origins.take(np.flatnonzero(origins.group == group))


def _with_own(fit: RidgeFit, solvers: Sequence[Solver], held: Sequence[Products], strength: float) -> RidgeFit:
    """The fit with a matrix for each series, drawn to the common one."""
    found = [solver.best(fit.weight.double(), part, [strength]) for solver, part in zip(solvers, held, strict=True)]
    mse = sum(one[0] * part.n for one, part in zip(found, held, strict=True)) / max(sum(part.n for part in held), 1)
    own = {number: one[2] for number, one in enumerate(found)}
    return RidgeFit(fit.weight, own, fit.lookback, fit.strengths, strength, mse)


def _sure_savings(fits: Sequence[RidgeFit], common: RidgeFit, windows: Windows, valid: Origins) -> np.ndarray:
    """What each fit's own matrices surely save of the squared error over stretches of held-out rows."""
    sums = torch.zeros(MOST_STRETCHES, 1 + len(fits), dtype=torch.float64)
    for part, batch in windows.batches(valid, _BATCH):
        x, y, seen = anchored(batch)
        x, group = x[:, -common.lookback :], torch.from_numpy(part.group)
        place = torch.from_numpy(stretches(windows, valid, part))
        for number in group.unique().tolist():
            here = group == number
            weights = [common.weight, *(fit.own[number] for fit in fits)]
            errors = [((y[here] - x[here] @ one.to(x)) * seen[here]).square().sum(dim=1) for one in weights]
            sums.index_add_(0, place[here], torch.stack(errors, dim=1).double())
    sums = sums[sums[:, 0] > 0]
    return sure_saving(1 - sums[:, 1:].numpy() / sums[:, :1].numpy())


def refit_ridge(fit: RidgeFit, windows: Windows, origins: Origins, seasons: Sequence[int] | None) -> RidgeFit:
    """The matrices of `fit`'s choices from other windows, such as all there are."""
    groups = sorted(fit.own) or [None]
    parts = [Products.of(windows, _of_group(origins, group)).last(fit.lookback) for group in groups]
    whole = Products.mean(parts)
    solver = Solver(whole)
    matrices = priors(fit.lookback, windows.horizon, seasons or ())
    found = [solver.best(matrices[name], whole, [strength])[2] for name, strength in fit.strengths.items()]
    weight = sum(found, torch.zeros_like(whole.outer)) / len(found)
    own = {}
    if fit.own and fit.own_strength is not None:
        strength = [fit.own_strength]
        own = {number: Solver(part).best(weight, part, strength)[2] for number, part in zip(groups, parts, strict=True)}
    return RidgeFit(weight, own, fit.lookback, fit.strengths, fit.own_strength, fit.mse)  # pyright: ignore
