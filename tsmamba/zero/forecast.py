"""Forecasts of the pre-trained forecaster, for any series in any unit."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from mamba_data_prep.errors import UserError
from mamba_training.bundle import load_bundle, save_bundle
from tsmamba.zero.features import Context
from tsmamba.zero.limits import AT_ONCE, MOST_ROWS
from tsmamba.zero.network import LEVELS, ZeroConfig, ZeroNetwork

BUNDLE_KIND = "tsmamba-zero"
_ROWS_AT_A_TIME = 2**15
_FEW_ROWS = 2**14
"""Up to so many rows are read in double precision, which plain torch computes: compiling kernels first, which a new
machine has to, would take many times as long as the work."""


@torch.no_grad()
def quantiles_of(
    network: ZeroNetwork,
    histories: Sequence[Float64[np.ndarray, " _"]],
    horizon: int,
    season: int,
    cycle: int,
    levels: Sequence[float],
) -> Float64[np.ndarray, "S H Q"]:
    """Quantiles of what follows each history.

    Args:
        network: the pre-trained one.
        histories: in any unit, NaN where nothing was observed; of each, at least one value is.
        horizon: rows to forecast.
        season: rows of a season, 1 where there is none.
        cycle: rows of a longer season, 0 where there is none.
        levels: of the quantiles, ascending.

    Returns:
        Quantiles in the histories' units, ascending along the levels.
    """
    found = np.empty((len(histories), min(horizon, AT_ONCE), len(LEVELS)))
    recent = [_from_first_value(history)[-MOST_ROWS:] for history in histories]
    if sum(map(len, recent)) <= _FEW_ROWS:
        network = copy.deepcopy(network).double()
    for places, rows in _alike([len(history) for history in recent], network.config.patch):
        values = np.full((len(places), rows), np.nan)
        for number, place in enumerate(places):
            values[number, rows - len(recent[place]) :] = recent[place]
        found[places] = _read(network, values, found.shape[1], season, cycle)
    if horizon > AT_ONCE:
        longer = [np.concatenate([one, more]) for one, more in zip(recent, found[..., _MIDDLE], strict=True)]
        later = quantiles_of(network, longer, horizon - AT_ONCE, season, cycle, LEVELS)
        found = np.concatenate([found, _widened(later, found[:, -1:])], axis=1)
    return at_levels(found, levels)


_MIDDLE = LEVELS.index(0.5)


def _read(
    network: ZeroNetwork, values: Float64[np.ndarray, "n C"], horizon: int, season: int, cycle: int
) -> Float64[np.ndarray, "n H Q"]:
    n, seen = len(values), np.isfinite(values)
    context = Context(
        torch.from_numpy(np.where(seen, values, 0.0)), torch.from_numpy(seen),
        torch.full((n,), season), torch.full((n,), cycle),
    )  # fmt: skip
    return network.eval()(context, horizon).double().numpy()


def _from_first_value(history: Float64[np.ndarray, " _"]) -> Float64[np.ndarray, " _"]:
    """A history without the rows before its first observed value."""
    return history[int(np.isfinite(history).argmax()) :]


def _alike(lengths: Sequence[int], patch: int) -> Iterator[tuple[list[int], int]]:
    """Places of histories that fill the same number of patches, in batches."""
    padded = [-(-length // patch) * patch for length in lengths]
    for rows in sorted(set(padded)):
        places = [place for place, length in enumerate(padded) if length == rows]
        size = max(_ROWS_AT_A_TIME // rows, 1)
        yield from ((places[first : first + size], rows) for first in range(0, len(places), size))


def _widened(later: Float64[np.ndarray, "S H Q"], end: Float64[np.ndarray, "S 1 Q"]) -> Float64[np.ndarray, "S H Q"]:
    """Quantiles that continue from a median, with the uncertainty of where they began added in squares."""
    middle = later[..., _MIDDLE, None]
    began = end - end[..., _MIDDLE, None]
    return middle + np.sign(began) * np.hypot(later - middle, began)


def at_levels(found: Float64[np.ndarray, "S H K"], levels: Sequence[float]) -> Float64[np.ndarray, "S H Q"]:
    """Quantiles at other levels: straight between those that were learnt, as a normal's beyond them."""
    normal = NormalDist().inv_cdf
    have, want = np.array([normal(level) for level in LEVELS]), np.array([normal(level) for level in levels])
    right = np.clip(np.searchsorted(have, want), 1, len(have) - 1)
    share = np.clip((want - have[right - 1]) / (have[right] - have[right - 1]), 0, 1)
    between = found[..., right - 1] * (1 - share) + found[..., right] * share
    middle = found[..., _MIDDLE, None]
    stretch = np.where(np.abs(want) > have[-1], np.abs(want) / have[-1], 1.0)
    return middle + (between - middle) * stretch


def save(network: ZeroNetwork, folder: Path, about: dict[str, Any], card: str) -> Path:
    """Writes the network as a bundle."""
    config = {"format": 1, "kind": BUNDLE_KIND, "network": network.config.to_dict(), "levels": list(LEVELS), **about}
    return save_bundle(folder, network.state_dict(), config, card)


def load(folder: str | Path) -> ZeroNetwork:
    """Reads a pre-trained forecaster from a bundle or the run that holds one; runs no code from it.

    Raises:
        UserError: it is none, or damaged.
    """
    bundle = load_bundle(folder)
    if bundle.config.get("kind") != BUNDLE_KIND:
        raise UserError(
            "this is no pre-trained forecaster", path=bundle.path, found=bundle.config.get("kind"), accepted=BUNDLE_KIND
        )
    try:
        if list(bundle.config["levels"]) != list(LEVELS):
            raise ValueError("it has other quantile levels")
        network = ZeroNetwork(ZeroConfig(**bundle.config["network"]))
        bundle.check(network.state_dict())
        network.load_state_dict(bundle.state)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the model's description cannot be read ({error})", path=bundle.path) from None
    return network.eval()


@cache
def shipped() -> ZeroNetwork:
    """The pre-trained forecaster that comes with the package."""
    with resources.as_file(resources.files("tsmamba") / "models" / "zero") as folder:
        return load(folder)
