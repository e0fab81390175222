"""The networks that `auto` may put on its ridge: a Mamba, and its twin without one, each judged on held-out rows.

A network counts as Mamba's help only where it surely saves over the ridge alone (`network off`) and over the same
network with the identity in place of its backbone (`backbone = identity`), which is no more than a linear map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from tsmamba.config import FitConfig, Note
from tsmamba.fitting.held_out import Plan
from tsmamba.fitting.ridge import RidgeFit
from tsmamba.fitting.shrinkage import held_out_errors, safe_shrinkage, saving
from tsmamba.networks import ResidualModel, Shape

OFF, IDENTITY, MAMBA = "network off", "backbone = identity", "backbone = mamba"
"""The rows of an ablation, as reports and tables name them."""

DOUBTING = 2.0
"""Standard errors by which a network must be better where a ridge found nothing: there, luck is likelier."""

_NAMES = {"mamba": "ridge + mamba", "identity": "ridge + linear map", "off": "ridge"}


@dataclass(frozen=True)
class Candidate:
    """A network that was trained beside a ridge.

    Attributes:
        backbone: mamba or identity.
        model: with its ridge, at `shrinkage`.
        shrinkage: how much of the network the held-out rows let stand; 0 where nothing of it surely saves.
        errors: on stretches of held-out rows at each shrinkage, from `held_out_errors`.
        run: how training went.
    """

    backbone: str
    model: ResidualModel
    shrinkage: float
    errors: Float64[Tensor, "S K2_1"]
    run: Mapping[str, Any]

    @property
    def network(self) -> str:
        """What forecasts beside the ridge: mamba, identity or off."""
        return self.backbone if self.shrinkage > 0 else "off"


def train_candidate(
    backbone: str,
    shape: Shape,
    ridge: RidgeFit,
    plan: Plan,
    config: FitConfig,
    folder: Path,
    *,
    resume: bool = False,
    note: Note = lambda text: None,
) -> Candidate:
    """Trains a network of this backbone on what the ridge leaves, and lets held-out rows say how much of it stands.

    Args:
        backbone: mamba or identity.
        shape: of the windows.
        ridge: what it begins from.
        plan: which windows train, and which choose.
        config: of the fit.
        folder: of the training run.
        resume: go on with the run in the folder.
        note: told how far training has come.
    """
    from tsmamba.fitting.training import train_network  # brings Lightning, which a ridge does without

    torch.manual_seed(config.seed)
    model = ResidualModel(shape, config.network, len(ridge.own), backbone)
    model.ridge.set(ridge.weight, ridge.own)
    run = train_network(model, plan, config, folder, resume=resume, note=note)
    errors = held_out_errors(model, plan)
    shrinkage = safe_shrinkage(errors, DOUBTING if ridge.like_naive else 1.0)
    model.shrinkage.fill_(shrinkage)
    return Candidate(backbone, model, shrinkage, errors, run)


def train_candidates(backbone: str, train: Callable[[str], Candidate]) -> dict[str, Candidate]:
    """The candidates that a setting of `network.backbone` calls for, by their backbone.

    The twin is trained only where the Mamba surely saves over the ridge: elsewhere there is nothing to explain.

    Args:
        backbone: auto, mamba or identity.
        train: makes the candidate of a backbone.
    """
    if backbone != "auto":
        return {backbone: train(backbone)}
    found = {"mamba": train("mamba")}
    return {**found, "identity": train("identity")} if found["mamba"].shrinkage > 0 else found


def choose(found: Mapping[str, Candidate]) -> tuple[Candidate, dict[str, Any]]:
    """The candidate that is kept, and what the held-out rows say of the Mamba.

    The Mamba is kept where it surely saves over the ridge alone and over its twin; else the twin, which may have
    nothing beside its ridge either.

    Returns:
        The candidate, and for the report: `mamba_helped` (None where nothing was compared), `mamba_saves` (by the row
        of the ablation) and `network`.
    """
    mamba, twin = found.get("mamba"), found.get("identity")
    if mamba is None:
        kept = next(iter(found.values()))
        return kept, {"mamba_helped": None, "network": kept.network}
    saves = {OFF: saving(mamba.errors, mamba.shrinkage, mamba.errors, 0.0)}
    helped: bool | None = None if mamba.shrinkage > 0 else False
    if twin is not None:
        saves[IDENTITY] = saving(mamba.errors, mamba.shrinkage, twin.errors, twin.shrinkage)
        helped = mamba.shrinkage > 0 and saves[IDENTITY].sure
    kept = mamba if twin is None or helped or mamba.shrinkage == 0 else twin
    return kept, {
        "mamba_helped": helped, "mamba_saves": {name: one.to_dict() for name, one in saves.items()},
        "network": kept.network,
    }  # fmt: skip


def described(kept: Candidate, judged: Mapping[str, Any]) -> dict[str, Any]:
    """The report's entries on the network that was kept."""
    return {"model": _NAMES[kept.network], **judged, **kept.run, "shrinkage": kept.shrinkage}
