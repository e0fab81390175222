"""`fit`: one training run, from the run folder to the best weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from mamba_data_prep.errors import Interrupted, UserError
from mamba_data_prep.provenance import recorded_command
from mamba_training.checkpoint import CheckpointStore, DamagedCheckpoint, check_weights, read_checkpoint
from mamba_training.context_parallel import ContextParallel
from mamba_training.devices import resolve_precision
from mamba_training.guards import dead_worker, is_out_of_memory, out_of_memory
from mamba_training.loop import Leave, RunLoop
from mamba_training.progress import Reporter, Units, nats_and_bits
from mamba_training.randomness import seed_everything
from mamba_training.run_folder import RunFolder
from mamba_training.settings import RunSettings
from mamba_training.signals import Aborted, StopSignals

_NEVER = 2**62


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Args:
        status: "finished" (all steps), "time" (its time was up), "early" (validation got no better) or "stage" (at
            `settings.until`).
        step: optimizer steps done.
        tokens: trained on.
        seconds: of the run, over all its sessions.
        metrics: of the last validation.
        best, best_step: the best value of the monitored metric and its step; None and 0 without validation.
        out: the run folder.
    """

    status: str
    step: int
    tokens: int
    seconds: float
    metrics: dict[str, float]
    best: float | None
    best_step: int
    out: Path


def fit(
    module: LightningModule,
    datamodule: LightningDataModule,
    settings: RunSettings,
    *,
    config: Mapping[str, Any] | None = None,
    may_change: Collection[str] = (),
    units: Units = nats_and_bits,
    resume_command: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Train `module` in the run folder `settings.out`, or go on with the run there.

    Args:
        module: defines `training_step(batch, batch_idx) -> loss` (mean nats), `configure_optimizers` (see
            `build_optimizer`), and may define `tokens_in(batch) -> int` and a `validation_step` that logs `val_loss`.
        datamodule: its `start_batch` is set before `train_dataloader()` is called; that loader is endless and its
            first batch is the run's batch number `start_batch`. Reading data draws nothing from the global generators.
        settings: of the run.
        config: the application's settings, recorded as `config.yaml` and compared when the run is resumed.
        may_change: dotted keys of `config` that a resumed run may give new values.
        units: the words for the metrics in the progress.
        resume_command: what a user types to go on; by default this process's command line with `--resume`.
        callbacks: further Lightning callbacks; their state is not kept in checkpoints.

    Returns:
        How the run ended. With `settings.keep_best` the module then holds the best weights, on the CPU.

    Raises:
        UserError: the run folder or a setting is refused, the loss is no number, memory or disk ran out.
        Interrupted: Ctrl-C, SIGTERM, or a data worker died; the run can be resumed.
    """
    again = resume_command or recorded_command("--resume")
    is_first = getattr(rank_zero_only, "rank", 0) == 0  # of the processes that Lightning starts for several devices
    reporter = Reporter(settings.progress and is_first, units, settings.progress_every)
    folder = RunFolder(settings.out)
    if is_first:
        folder.open(config, resume=settings.resume, may_change=may_change, note=reporter.note)
    signals = StopSignals(reporter.note if is_first else str)
    loop = RunLoop(settings, folder, reporter, signals, lambda start: setattr(datamodule, "start_batch", start))
    try:
        with quiet_lightning(), signals:
            seed_everything(settings.seed)
            split = [ContextParallel(settings.context_parallel)] if settings.context_parallel > 1 else []
            trainer = _trainer(settings, [*split, loop, *callbacks])
            trainer.fit(module, datamodule=datamodule)
        _keep_best(module, settings, folder.checkpoints, loop, reporter)
    except Leave:
        what = f"by {signals.requested} at step {loop.progress.step:,}, saved"
        raise Interrupted(_stopped(what, again)) from None
    except Aborted:
        kept = "its last checkpoint is whole" if folder.checkpoints.last.exists() else "it has no checkpoint yet"
        raise Interrupted(_stopped(f"left at once; {kept}", again)) from None
    except Exception as error:
        if is_out_of_memory(error):
            raise out_of_memory(loop.batch, settings.grad_accumulation, again) from error
        if (dead := dead_worker(error, again)) is not None:
            raise dead from error
        raise
    finally:
        reporter.stop()
        loop.close()
        folder.close()
    progress = loop.progress
    return RunResult(
        status=loop.status,
        step=progress.step,
        tokens=progress.tokens,
        seconds=progress.seconds,
        metrics=dict(progress.metrics),
        best=progress.best,
        best_step=progress.best_step,
        out=settings.out,
    )


def _trainer(settings: RunSettings, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer with everything off that this package does itself.

    Raises:
        UserError: Lightning refuses the devices, the strategy or the precision.
    """
    try:
        return Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy=settings.strategy,
            num_nodes=settings.num_nodes,
            precision=resolve_precision(settings.precision, settings.accelerator),  # pyright: ignore[reportArgumentType]
            accumulate_grad_batches=settings.grad_accumulation,
            max_steps=-1,
            max_epochs=-1,
            check_val_every_n_epoch=_NEVER,
            limit_val_batches=settings.val_batches if settings.val_batches is not None else 1.0,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=settings.out,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise UserError(
            f"these devices cannot be used: {str(error).splitlines()[0]}",
            found=f"accelerator={settings.accelerator}, devices={settings.devices}, strategy={settings.strategy}",
            fix="leave accelerator, devices and strategy at auto",
        ) from None


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's own remarks from users; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            warnings.filterwarnings("ignore", module=r"lightning(\.|_|$)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def best_weights(run: str | Path) -> dict[str, torch.Tensor]:
    """The weights of a run's best checkpoint (of its last one, where nothing was validated).

    Raises:
        UserError: the run has no checkpoint that is whole.
    """
    store, problems = CheckpointStore(Path(run) / "checkpoints"), []
    for path in (store.best, store.last, store.previous):
        try:
            return read_checkpoint(path)["model"]
        except (DamagedCheckpoint, KeyError) as error:
            problems.append(f"{path.name}: {error}")
    raise UserError("the run has no usable checkpoint: " + "; ".join(problems), path=run)


def _keep_best(
    module: LightningModule, settings: RunSettings, store: CheckpointStore, loop: RunLoop, reporter: Reporter
) -> None:
    if not settings.keep_best or loop.progress.best_step in (0, loop.progress.step):
        return
    try:
        weights = read_checkpoint(store.best)["model"]
        check_weights(weights, module.state_dict())
    except DamagedCheckpoint as error:
        reporter.note(f"{store.best} is not used: {error}; the last weights are kept instead")
        return
    module.load_state_dict(weights)


def _stopped(what: str, again: str) -> str:
    return f"{what}\n  go on:    {again}"
