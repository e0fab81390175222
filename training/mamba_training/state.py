"""What a checkpoint holds besides the weights, and the checks that make it fit the model before anything is changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer

from mamba_training.checkpoint import DamagedCheckpoint, check_weights
from mamba_training.schedule import Schedule

_KEYS = {"step", "world_size", "grad_accumulation", "model", "optimizers", "randomness", "progress", "schedule"}


@dataclass
class RunProgress:
    """How far a run has come.

    Args:
        step: optimizer steps done.
        tokens: trained on, over all devices.
        seconds: of the run, over all its sessions.
        best, best_step: the best value of the monitored metric, and its step.
        stale: validations since then.
        validated: the step of the latest validation.
        metrics: the latest validation's metrics.
        pending: the row of a step whose validation was due when the run was stopped.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    validated: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    pending: dict[str, Any] | None = None

    def judge(self, value: float | None, mode: str) -> bool:
        """Take note of a validation; returns whether it is the best so far."""
        self.validated = self.step
        better = (
            value is not None
            and math.isfinite(value)
            and (self.best is None or (value < self.best if mode == "min" else value > self.best))
        )
        if better:
            self.best, self.best_step, self.stale = value, self.step, 0
        else:
            self.stale += 1
        return better


def gather(trainer: Trainer, progress: RunProgress, schedule: Schedule, randomness: dict[str, Any]) -> dict[str, Any]:
    """The payload of a checkpoint; every rank must call this, and only rank 0 needs the result.

    Args:
        trainer: in a fit, between two optimizer steps.
        progress, schedule: of the run.
        randomness: this rank's generators as they were right after the step.
    """
    strategy = trainer.strategy
    ranks = [randomness]
    if trainer.world_size > 1:
        import torch.distributed as dist

        ranks = [None] * trainer.world_size
        dist.all_gather_object(ranks, randomness)
    return {
        "step": progress.step,
        "world_size": trainer.world_size,
        "grad_accumulation": trainer.accumulate_grad_batches,
        "model": dict(strategy.lightning_module_state_dict()),
        "optimizers": [strategy.optimizer_state(optimizer) for optimizer in trainer.optimizers],
        "randomness": ranks,
        "progress": dict(vars(progress)),
        "schedule": schedule.state_dict(),
    }


def check_fit(payload: dict[str, Any], trainer: Trainer) -> None:
    """Compare a payload with the model and its optimizers, key by key and shape by shape, without changing either.

    Raises:
        DamagedCheckpoint: naming the first difference.
    """
    if missing := _KEYS - payload.keys():
        raise DamagedCheckpoint(f"it lacks {', '.join(sorted(missing))}")
    check_weights(payload["model"], trainer.strategy.lightning_module_state_dict())
    if len(payload["optimizers"]) != len(trainer.optimizers):
        raise DamagedCheckpoint("it was made with another number of optimizers")
    if not any(hasattr(module, "_fsdp_wrapped_module") for module in (trainer.strategy.model, trainer.model)):
        for saved, optimizer in zip(payload["optimizers"], trainer.optimizers, strict=True):
            _check_optimizer(saved, optimizer)
    try:
        RunProgress(**payload["progress"])
        recorded = payload["schedule"]
        Schedule.resumed(recorded, recorded["max_steps"], recorded["max_seconds"])
    except (TypeError, KeyError, ValueError) as error:
        raise DamagedCheckpoint(f"its progress cannot be read ({error})") from None


def _check_optimizer(saved: Any, optimizer: Optimizer) -> None:
    try:
        groups, state = saved["param_groups"], saved["state"]
        numbers = [number for group in groups for number in group["params"]]
    except (TypeError, KeyError):
        raise DamagedCheckpoint("its optimizer cannot be read") from None
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sizes = [len(group["params"]) for group in groups]
    if sizes != [len(group["params"]) for group in optimizer.param_groups] or set(state) - set(numbers):
        raise DamagedCheckpoint("its optimizer was made for other parameters")
    for number, parameter in zip(numbers, parameters, strict=True):
        for name, value in state.get(number, {}).items():
            if isinstance(value, Tensor) and value.ndim > 0 and value.shape != parameter.shape:
                raise DamagedCheckpoint(
                    f"its optimizer's {name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}"
                )


def restore(payload: dict[str, Any], trainer: Trainer) -> None:
    """Put weights, optimizers and the loop's counters where the checkpoint was taken; see `check_fit` first.

    The trainer's `global_step` and the `batch_idx` that the module sees go on from there too.
    """
    strategy = trainer.strategy
    strategy.load_model_state_dict({"state_dict": payload["model"]}, strict=True)
    strategy.load_optimizer_state_dict({"optimizer_states": payload["optimizers"]})


def fast_forward(trainer: Trainer, step: int, batches: int) -> None:
    """Set the loop's counters as if `step` optimizer steps over `batches` batches had been run by this trainer."""
    loop = trainer.fit_loop.epoch_loop
    for tracker in (loop.batch_progress.total, loop.batch_progress.current):
        for name in ("ready", "started", "processed", "completed"):
            setattr(tracker, name, batches)
    optimizer_step = loop.automatic_optimization.optim_progress.optimizer.step
    for tracker in (optimizer_step.total, optimizer_step.current):
        tracker.ready = tracker.completed = step
    loop._batches_that_stepped = step
    loop.restarting = True  # or the counters of this epoch would be set back to zero when the loop starts
