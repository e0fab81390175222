"""How a pre-training run is dealt out: windows over batches and devices, within memory, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genomamba import tokens
from genomamba.config import ModelConfig, PretrainConfig, TrainConfig
from genomamba.language_model.model import GenomeLM
from mamba_data_prep.errors import UserError
from mamba_training.devices import device_count, device_kind
from mamba_training.preflight import Fitted, within_memory
from mamba_training.progress import nats_and_bits
from mamba_training.settings import RunSettings, parse_duration

DEFAULT_STEPS = 10_000
_TOKENS_PER_STEP = {"cpu": 2**13, "gpu": 2**17}
_TOKENS_AT_A_TIME = {"cpu": 2**14, "gpu": 2**17}
"""What a device can hold of the 12 x 128 model with room to spare: about 1.6 GB on a CPU and 13 GB on a GPU."""


@dataclass(frozen=True)
class BatchPlan:
    """How the windows behind one optimizer step are dealt out.

    Attributes:
        batch_size: windows at a time on a device.
        accumulation: such batches behind a step.
        n_devices: devices, or groups of devices that share each window.
    """

    batch_size: int
    accumulation: int
    n_devices: int

    @property
    def windows_per_step(self) -> int:
        """Windows behind one optimizer step."""
        return self.batch_size * self.accumulation * self.n_devices


def plan_batches(train: TrainConfig, model: ModelConfig, window: int) -> BatchPlan:
    """Deals `tokens_per_step` out over devices and batches that fit in memory."""
    kind = "cpu" if device_kind(train.accelerator) == "cpu" else "gpu"
    n_devices = device_count(train.devices, train.accelerator)
    if n_devices % train.context_parallel:
        raise UserError(
            f"{n_devices} device(s) cannot share windows in groups of {train.context_parallel}",
            accepted=f"a number of devices that {train.context_parallel} divides",
            fix=f"--devices {train.context_parallel}",
        )
    if train.context_parallel > 1 and (whole := sorted({"attention", "hyena", "s4d"} & set(model.layers))):
        raise UserError(
            f"layers of {' and '.join(whole)} need the whole window on one device", found=f"--context-parallel "
            f"{train.context_parallel}", accepted="mamba and mamba2 layers", fix="leave --context-parallel out",
        )  # fmt: skip
    n_devices //= train.context_parallel
    tokens = train.tokens_per_step if isinstance(train.tokens_per_step, int) else _TOKENS_PER_STEP[kind]
    per_device = max(1, round(tokens / window / n_devices))
    if isinstance(train.batch_size, int):
        size = min(train.batch_size, per_device)
        return BatchPlan(size, -(-per_device // size), n_devices)
    room = _TOKENS_AT_A_TIME[kind] * (12 * 128) / (model.n_layers * model.d_model) / window
    room *= train.context_parallel
    size = max(size for size in range(1, per_device + 1) if per_device % size == 0 and size <= max(1.0, room))
    return BatchPlan(size, per_device // size, n_devices)


def plan_within_memory(model: GenomeLM, settings: PretrainConfig) -> BatchPlan:
    """The plan that the settings ask for, or one with smaller batches or chunks where memory is too short for it.

    Raises:
        UserError: no window fits, however small the chunks.
    """
    plan = plan_batches(settings.train, settings.model, settings.data.window)
    fitted = fitted_step(model, settings, plan, settings.data.window)
    return BatchPlan(fitted.work.batch, fitted.accumulation, plan.n_devices)


def fitted_step(
    model: GenomeLM, settings: PretrainConfig, plan: BatchPlan, window: int, *, batch_is_fixed: bool = False
) -> Fitted:
    """A step on windows of so many bases that fits in memory; the backbone is set to its chunks.

    Raises:
        UserError: none fits.
    """
    train = settings.train
    return within_memory(
        model.backbone,
        parameters=model.n_parameters(),
        batch=plan.batch_size,
        length=-(-window // train.context_parallel),
        outputs=tokens.VOCAB_SIZE,
        precision=train.precision,
        accelerator=train.accelerator,
        accumulation=plan.accumulation,
        processes=plan.n_devices * train.context_parallel,
        shared=train.context_parallel > 1,
        batch_is_fixed=batch_is_fixed,
    )


def run_settings(out: Path, settings: PretrainConfig, plan: BatchPlan, resume: bool, until: float = 1.0) -> RunSettings:
    """How the run goes, up to a share of it, from the configuration and the plan of its batches."""
    train = settings.train
    unlimited = train.max_steps is None and train.max_time is None
    max_steps = DEFAULT_STEPS if unlimited else train.max_steps
    return RunSettings(
        out=out,
        max_steps=max_steps,
        max_time=train.max_time,
        seed=train.seed,
        accelerator=train.accelerator,
        devices=train.devices,
        strategy=train.strategy,
        precision=train.precision,
        context_parallel=train.context_parallel,
        grad_accumulation=plan.accumulation,
        grad_clip=settings.optim.grad_clip,
        val_every=_validation_share(train, max_steps) if train.validate_every == "auto" else train.validate_every,
        checkpoint_every=float(train.checkpoint_seconds),
        resume=resume,
        until=until,
    )


def _validation_share(train: TrainConfig, max_steps: int | None) -> float:
    """Twenty validations in a long run, four in a short one, where they would weigh."""
    share = 0.05
    if max_steps is not None:
        share = max(share, 50 / max_steps)
    if train.max_time is not None:
        share = max(share, 60 / parse_duration(train.max_time))
    return min(share, 0.25)


def words(metrics: Mapping[str, float]) -> str:
    """The progress line's words: bits per base, and the Markov model's beside them."""
    text = nats_and_bits(metrics)
    return f"{text} (Markov {metrics['markov_bits']:.4f})" if "markov_bits" in metrics else text
