"""Training of a forecaster's network in a run folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mamba_training.run import fit
from mamba_training.settings import RunSettings
from tsmamba.config import FitConfig, Note, TrainConfig
from tsmamba.fitting.data import PanelData
from tsmamba.fitting.held_out import Plan
from tsmamba.fitting.modules import (
    ForecastModule,
    HeadModule,
    PretrainModule,
    TellSteps,
    module_for,
)
from tsmamba.networks import ForecastModel, TSMamba


def train_network(
    model: ForecastModel,
    plan: Plan,
    config: FitConfig,
    folder: Path,
    *,
    resume: bool = False,
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Trains a model, and leaves the weights in it that were best on the held-back rows.

    Args:
        model: on the CPU, where it is again afterwards.
        plan: which windows train, and which choose.
        config: of the fit; recorded in the run folder.
        folder: of the run; TSMamba's stages have folders of their own in it.
        resume: go on with the run in the folder.
        note: told how far training has come.

    Returns:
        How the run went, for the report.
    """
    if isinstance(model, TSMamba):
        return _train_stages(model, plan, config, folder, resume, note)
    return _train(module_for(model, config.train, config.levels), plan, config, folder, resume, note)


def _train_stages(
    model: TSMamba, plan: Plan, config: FitConfig, folder: Path, resume: bool, note: Note
) -> dict[str, Any]:
    """Encoders by themselves, then the head without, and where there are channels, with their attention."""
    attention, train = model.channel_attention, config.train
    model.channel_attention = None
    stages: list[tuple[str, ForecastModule]] = [
        ("1-encoders", PretrainModule(model, train)), ("2-head", HeadModule(model, train)),
    ]  # fmt: skip
    report: dict[str, Any] = {}
    for name, module in stages:
        report[name] = _train(module, plan, config, folder / name, resume, note)
    if attention is not None:
        model.channel_attention, name = attention, "3-channels"
        module = HeadModule(model, train)
        report[name] = _train(module, plan, config, folder / name, resume, note)
    return {"steps": sum(stage["steps"] for stage in report.values()), "stages": report}


def _train(
    module: ForecastModule, plan: Plan, config: FitConfig, folder: Path, resume: bool, note: Note
) -> dict[str, Any]:
    train = config.train
    data = PanelData(plan.windows, plan.train, plan.valid, batch_size=train.batch_size, seed=config.seed)
    settings = run_settings(train, len(plan.train), config.seed, folder, resume=resume and folder.exists())
    folder.parent.mkdir(parents=True, exist_ok=True)
    result = fit(
        module, data, settings, config=config.model_dump(mode="json"), callbacks=[TellSteps(note, settings.max_steps)]
    )
    module.to("cpu")
    return {"steps": result.step, "best_step": result.best_step}


def run_settings(train: TrainConfig, n_windows: int, seed: int, folder: Path, *, resume: bool) -> RunSettings:
    """Epochs as steps, within the limits of the configuration."""
    steps = train.epochs * math.ceil(n_windows / train.batch_size)
    steps = min(max(steps, train.least_steps), train.most_steps)
    return RunSettings(
        out=folder, max_steps=steps, max_time=train.max_time, seed=seed, accelerator=train.accelerator, devices=1,
        precision=train.precision, val_every=max(steps // train.validations, 1), patience=train.patience,
        keep_best=True, resume=resume, progress=False, log_every=10, checkpoint_every="10s",
    )  # fmt: skip
