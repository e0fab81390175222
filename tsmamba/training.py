"""Training of a forecaster's network in a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mamba_training.run import fit
from mamba_training.settings import RunSettings

from tsmamba.config import FitConfig, TrainConfig
from tsmamba.datamodule import PanelData
from tsmamba.models import ForecastModel, ResidualModel
from tsmamba.module import (
    SHRINKAGES,
    ForecastModule,
    ResidualModule,
    best_shrinkage,
    mean_errors,
    shrinkage_errors,
)
from tsmamba.plan import Plan


def train_network(
    model: ForecastModel, plan: Plan, config: FitConfig, folder: Path, *, resume: bool = False, quiet: bool = True
) -> dict[str, Any]:
    """Trains a model, and leaves the weights in it that were best on the held-back rows.

    Args:
        model: on the CPU, where it is again afterwards.
        plan: which windows train, and which choose.
        config: of the fit; recorded in the run folder.
        folder: of the run.
        resume: go on with the run in the folder.
        quiet: show no progress.

    Returns:
        How the run went, for the report.
    """
    train = config.train
    residual = isinstance(model, ResidualModel)
    module = ResidualModule(model, train, config.levels) if residual else ForecastModule(model, train)
    data = PanelData(plan.windows, plan.train, plan.valid, batch_size=train.batch_size, seed=config.seed)
    settings = run_settings(train, len(plan.train), config.seed, folder, resume=resume, quiet=quiet)
    result = fit(module, data, settings, config=config.model_dump(mode="json"), units=_words)
    module.to("cpu")
    if residual:
        model.shrinkage.fill_(choose_shrinkage(model, plan))
    return {"steps": result.step, "best_step": result.best_step, "seconds": round(result.seconds, 1)}


@torch.no_grad()
def choose_shrinkage(model: ResidualModel, plan: Plan) -> float:
    """The shrinkage that the held-back rows like best, all of them looked at."""
    model.eval()
    sums = sum(shrinkage_errors(model, batch) for _, batch in plan.windows.batches(plan.valid, 1024))
    mse, mae = mean_errors(torch.as_tensor(sums))
    return SHRINKAGES[best_shrinkage(mse, mae)]


def run_settings(
    train: TrainConfig, n_windows: int, seed: int, folder: Path, *, resume: bool, quiet: bool
) -> RunSettings:
    """Epochs as steps, within the limits of the configuration."""
    steps = train.epochs * math.ceil(n_windows / train.batch_size)
    steps = min(max(steps, train.least_steps), train.most_steps)
    return RunSettings(
        out=folder, max_steps=steps, max_time=train.max_time, seed=seed, accelerator=train.accelerator, devices=1,
        precision=train.precision, val_every=max(steps // train.validations, 1), patience=train.patience,
        keep_best=True, resume=resume, progress=not quiet, log_every=10,
    )  # fmt: skip


def _words(metrics: Mapping[str, float]) -> str:
    text = f"loss {metrics.get('loss', math.nan):.4f}"
    if "val_mse" in metrics:
        text += f", held-out MSE {metrics['val_mse']:.4f}, MAE {metrics['val_mae']:.4f}"
    return text
