"""The callback that makes Lightning's loop ours: the curve of the learning rate, token-weighted accumulation,
clipping, validation, checkpoints, stopping, and the exact place to go on from.

Lightning's Trainer gives the devices, the strategy and the precision. Its own epochs, checkpoints and validation
schedule are not used: one endless epoch is trained, whose data begin at the batch where the checkpoint was taken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NoReturn, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from mamba_data_prep.errors import UserError
from mamba_training.checkpoint import DamagedCheckpoint
from mamba_training.guards import batch_shape, not_a_number, save_batch
from mamba_training.metrics_log import MetricsLog
from mamba_training.progress import Moment, Reporter, clock
from mamba_training.randomness import capture_randomness, restore_randomness
from mamba_training.run_folder import RunFolder
from mamba_training.schedule import Schedule
from mamba_training.settings import RunSettings, parse_duration
from mamba_training.signals import StopSignals
from mamba_training.state import RunProgress, check_fit, fast_forward, gather, restore

_SAVE_SHARE = 50
"""A checkpoint every so often, but never more than one part in so many of the run's time."""

_TOKENS_UNIT = 1024.0
"""Losses are weighted by tokens in this unit while gradients accumulate; the sum is divided out before the step."""


class Leave(Exception):
    """Raised inside the loop to leave it at once after a stop was asked for and the checkpoint is written."""


class RunLoop(Callback):
    """One run, step by step.

    Args:
        settings: of the run.
        folder: of the run, open on rank 0.
        reporter: shows the progress.
        signals: say whether to stop.
        prepare_data: told the global batch from which the training data begin.
    """

    def __init__(
        self,
        settings: RunSettings,
        folder: RunFolder,
        reporter: Reporter,
        signals: StopSignals,
        prepare_data: Callable[[int], object],
    ) -> None:
        self.settings, self.folder, self.reporter, self.signals = settings, folder, reporter, signals
        self.prepare_data = prepare_data
        self.progress = RunProgress()
        self.schedule = Schedule(settings.max_steps, settings.max_seconds)
        self.status = ""
        self.batch: Any = None
        self.metrics_log: MetricsLog | None = None
        self._save_seconds = self._val_seconds = self._rate = self._grad_norm = 0.0
        self._tokens = 0
        self._time_over = False
        self._pending_randomness: dict[str, Any] | None = None
        self._validating: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._started_at = self._saved_at = time.monotonic()
        self._reset_accumulation()

    def _reset_accumulation(self) -> None:
        self._weight, self._loss_sum, self._batches = 0.0, 0.0, 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the newest good checkpoint, now that the strategy has placed the model and its optimizers."""
        self._pending_randomness = self._resume(trainer) if self.settings.resume else None
        self.prepare_data(self.progress.step * trainer.accumulate_grad_batches)
        if trainer.is_global_zero:
            self.metrics_log = MetricsLog(self.folder.metrics_file, self.progress.step)

    def _resume(self, trainer: Trainer) -> dict[str, Any] | None:
        store, note = self.folder.checkpoints, self.reporter.note if trainer.is_global_zero else _say_nothing
        try:
            payload = store.load_latest(note, lambda found: check_fit(found, trainer))
        except DamagedCheckpoint as error:
            raise UserError(
                f"no checkpoint of this run can be used: {error}",
                path=store.folder,
                fix="start again with another --out",
            ) from None
        if payload is None:
            return None
        restore(payload, trainer)
        self.progress = RunProgress(**payload["progress"])
        self.schedule = Schedule.resumed(payload["schedule"], self.settings.max_steps, self.settings.max_seconds)
        if trainer.is_global_zero and 0 < self.progress.best_step == self.progress.step and not store.best.exists():
            store.keep_as_best()  # the run was killed between the two names
        note(f"going on from step {self.progress.step:,}, {clock(self.progress.seconds)} into the run")
        ranks = payload["randomness"]
        if len(ranks) != trainer.world_size:
            note(f"{trainer.world_size} devices instead of {len(ranks)}: the random numbers will be others")
            return None
        return ranks[trainer.global_rank]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the counters, start the clock, and do what was due when the run was stopped."""
        self.signals.install()
        if self.progress.step:
            fast_forward(trainer, self.progress.step, self.progress.step * trainer.accumulate_grad_batches)
        self._started_at = time.monotonic() - self.progress.seconds
        self._saved_at = time.monotonic()
        self.reporter.start()
        self._time_over = self.settings.max_seconds is not None and self.seconds >= self.settings.max_seconds
        if (row := self.progress.pending) is not None:
            self.progress.pending = None
            self._finish_step(trainer, row, self._pending_randomness or capture_randomness(), save=True)
        elif self.progress.step and (status := self._ending()):
            self.status, trainer.should_stop = status, True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The one epoch ends only when the run does."""
        if not trainer.should_stop:
            raise RuntimeError("train_dataloader() came to an end: its sampler must be endless, from start_batch on")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put the generators where they belong (reading data must not disturb them) and set the learning rate."""
        self.batch = batch
        if self._pending_randomness is not None:
            restore_randomness(self._pending_randomness)
            self._pending_randomness = None
        if self._batches == 0:
            groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
            for group in groups:
                rate = self.schedule.rate(self.progress.step, self.seconds, group)
                group["lr"] = group["lr"] if rate is None else rate
            self._rate = float(groups[0]["lr"])

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Refuse a loss that is no number before it reaches a weight; weight it by its tokens."""
        if not bool(torch.isfinite(loss)):
            raise self._not_a_number("loss", float(loss.detach()))
        self._tokens = _tokens_in(pl_module, self.batch)
        if _is_weighted(trainer):
            weight = self._tokens / _TOKENS_UNIT
            loss.register_hook(lambda gradient: gradient * weight)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Divide the accumulated gradient by its tokens, clip it, and refuse one that is no number."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        scale = 1.0
        if _is_weighted(trainer):
            (total,) = _sum_over_ranks(trainer, self._weight + self._tokens)
            # Lightning divides each loss by the batches, and DDP the gradient by the ranks.
            scale = trainer.accumulate_grad_batches * trainer.world_size * _TOKENS_UNIT / max(total, 1.0)
        self._grad_norm = _norm(trainer, gradients) * scale
        if not math.isfinite(self._grad_norm):
            raise self._not_a_number("gradient", self._grad_norm)
        if self.settings.grad_clip:
            scale *= min(1.0, self.settings.grad_clip / (self._grad_norm + 1e-6))
        if scale != 1.0:
            with torch.no_grad():
                for gradient in gradients:
                    gradient.mul_(scale)

    def _not_a_number(self, what: str, value: float) -> UserError:
        step = self.progress.step + 1
        path = self.folder.path / f"bad-batch-step-{step}.safetensors"
        save_batch(path, self.batch, {"step": str(step), what: repr(value)})
        return not_a_number(what, step, path, self.folder.checkpoints.last.exists())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; after the last batch of a step, log, validate, save and stop as these are due."""
        self._weight += self._tokens
        # Lightning has divided this loss by the batches of a step already.
        self._loss_sum += float(outputs["loss"]) * trainer.accumulate_grad_batches * self._tokens
        self._batches += 1
        if self._batches < trainer.accumulate_grad_batches:
            return
        weight, loss_sum = _sum_over_ranks(trainer, self._weight, self._loss_sum)
        self._reset_accumulation()
        progress = self.progress
        progress.step += 1
        progress.tokens += round(weight / self.settings.context_parallel)
        progress.seconds = self.seconds
        row: dict[str, Any] = {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 3),
            "lr": self._rate,
            "grad_norm": self._grad_norm,
            "loss": loss_sum / max(weight, 1.0),
        }
        stop, save = self._decide(trainer)
        if stop:
            self._leave(trainer, row, capture_randomness())
        self._finish_step(trainer, row, None, save=save)

    def _decide(self, trainer: Trainer) -> tuple[bool, bool]:
        """Whether to stop and whether to save now; every rank comes to the same answer."""
        every, now, reserve = self.settings.checkpoint_every, time.monotonic(), self._save_seconds + self._val_seconds
        if isinstance(every, int):
            save = self.progress.step % every == 0
        else:
            wait = parse_duration(every, name="checkpoint_every")
            save = now - self._saved_at >= max(wait, _SAVE_SHARE * self._save_seconds)
        limit = self.settings.max_seconds
        over = limit is not None and self.seconds + reserve >= limit
        changed = trainer.is_global_zero and self.schedule.pace(self.progress.step, self.seconds, reserve)
        flags = [int(bool(self.signals.requested)), 0, 0, 0]
        if trainer.is_global_zero:
            flags[1:] = [int(save), int(over), int(changed)]
        stops, saves, overs, changes = _sum_over_ranks(trainer, *flags)
        self._time_over = overs > 0
        if changes and trainer.world_size > 1:
            self.schedule = Schedule.resumed(trainer.strategy.broadcast(self.schedule.state_dict()), *self._limits)
        if changed:
            self.reporter.note(f"at this pace the run ends at step {self.schedule.total:,}, when its time is up")
        return stops > 0, saves > 0

    @property
    def _limits(self) -> tuple[int | None, float | None]:
        return self.settings.max_steps, self.settings.max_seconds

    def _finish_step(
        self, trainer: Trainer, row: dict[str, Any], randomness: dict[str, Any] | None, *, save: bool
    ) -> None:
        progress = self.progress
        due, is_best = self._validation_due(trainer), False
        if due or save:
            randomness = randomness or capture_randomness()
        if due and randomness is not None:
            is_best = self._validate(trainer, row, randomness)
        if self.metrics_log is not None and (due or progress.step % self.settings.log_every == 0):
            self.metrics_log.add(row)
        self.status = self._ending()
        moment = Moment(
            step=progress.step,
            total=self.schedule.total,
            tokens=progress.tokens,
            seconds=self.seconds,
            limit=self.settings.max_seconds,
            lr=float(row["lr"]),
            metrics={**progress.metrics, "loss": float(row["loss"])},
        )
        self.reporter.update(moment, final=bool(self.status))
        if due or save or self.status:
            self._save(trainer, randomness or capture_randomness(), is_best=is_best)
        trainer.should_stop = bool(self.status)

    def _ending(self) -> str:
        """Why the run, or this "stage" of it, is over: "finished", "time" or "early"; empty while it is not."""
        if self.schedule.total is not None and self.progress.step >= self.schedule.total:
            return "finished"
        if self._time_over:
            return "time"
        if self.settings.until < 1 and self.schedule.share(self.progress.step) >= self.settings.until - 1e-9:
            return "stage"
        patience = self.settings.patience
        return "early" if patience is not None and self.progress.stale >= patience else ""

    def _validation_due(self, trainer: Trainer) -> bool:
        every, step = self.settings.val_every, self.progress.step
        if not trainer.enable_validation or self.progress.validated == step:
            return False
        if self._ending():
            return True
        if every is None:
            return False
        if every >= 1:
            return step % int(every) == 0
        return int(self.schedule.share(step) / every + 1e-9) > int(self.schedule.share(step - 1) / every + 1e-9)

    def _validate(self, trainer: Trainer, row: dict[str, Any], randomness: dict[str, Any]) -> bool:
        """Validate now, adding the metrics to `row`; returns whether these weights are the best so far."""
        began, connector = time.monotonic(), trainer._logger_connector
        first = connector._first_loop_iter
        self._validating = (row, randomness)
        trainer.validating = True
        logged = trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True
        self._validating = None
        connector._first_loop_iter = first
        restore_randomness(randomness)  # validation must not change what the next steps draw
        metrics = {name: float(value) for part in logged for name, value in part.items()}
        row.update(metrics)
        self.progress.metrics = metrics
        if metrics and self.settings.monitor not in metrics:
            raise KeyError(f"the module logs no {self.settings.monitor!r} in validation, only {sorted(metrics)}")
        self._val_seconds = time.monotonic() - began
        return self.progress.judge(metrics.get(self.settings.monitor), self.settings.mode)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Leave a validation that was interrupted; the resumed run begins with it."""
        if self.signals.requested and trainer.world_size == 1 and self._validating is not None:
            self._leave(trainer, *self._validating)

    def _leave(self, trainer: Trainer, row: dict[str, Any], randomness: dict[str, Any]) -> NoReturn:
        if self._validation_due(trainer):
            self.progress.pending = row
        elif self.metrics_log is not None:
            self.metrics_log.add(row)
        self._save(trainer, randomness, is_best=False)
        raise Leave

    def _save(self, trainer: Trainer, randomness: dict[str, Any], *, is_best: bool) -> None:
        began, self.progress.seconds = time.monotonic(), self.seconds
        payload = gather(trainer, self.progress, self.schedule, randomness)
        if self.metrics_log is not None:
            self.metrics_log.flush(to_disk=True)  # a checkpoint must never be ahead of the rows
            self.folder.checkpoints.save(payload, is_best=is_best)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began

    def close(self) -> None:
        """Write the rows that are still waiting."""
        if self.metrics_log is not None:
            self.metrics_log.flush()

    @property
    def seconds(self) -> float:
        """Seconds of the run, over all its sessions."""
        return time.monotonic() - self._started_at


def _say_nothing(_: str) -> None:
    """Only rank 0 speaks."""


def _is_weighted(trainer: Trainer) -> bool:
    """Whether a step's gradient comes from more than one batch, so that their tokens must be weighed."""
    return trainer.accumulate_grad_batches > 1 or trainer.world_size > 1


def _norm(trainer: Trainer, gradients: list[Tensor]) -> float:
    """The norm of the whole gradient, also where each rank holds a part of it."""
    sharded = getattr(trainer.strategy.model, "clip_grad_norm_", None)
    return float(torch.nn.utils.get_total_norm(gradients) if sharded is None else sharded(math.inf))


def _tokens_in(module: LightningModule, batch: Any) -> int:
    count = getattr(module, "tokens_in", None)
    return int(count(batch)) if count is not None else math.prod(batch_shape(batch))


def _sum_over_ranks(trainer: Trainer, *values: float | int) -> tuple[float | int, ...]:
    if trainer.world_size == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=trainer.strategy.root_device)
    return tuple(cast(Tensor, trainer.strategy.reduce(total, reduce_op="sum")).tolist())
