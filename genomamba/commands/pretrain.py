"""Pre-training: a genome goes in, a language model and its comparison with the best Markov model come out."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Integer
from lightning.pytorch import LightningModule
from torch import Tensor

from genomamba import tokens
from genomamba.config import ModelConfig, OptimConfig, PretrainConfig, TrainConfig, load_config
from genomamba.language_model import card
from genomamba.language_model.data import GenomeData, GenomeWindows, frozen, make_split, open_genome
from genomamba.language_model.markov_of_run import MarkovResult, SeenMarkov
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM, base_nats, bits, is_base, next_base_nats
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.audit import audit
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.splits import Split
from mamba_training.bundle import save_bundle
from mamba_training.context_parallel import ContextPlace
from mamba_training.optim import OptimSettings, build_optimizer
from mamba_training.preflight import Workload, settle
from mamba_training.progress import is_first_process, nats_and_bits
from mamba_training.run import RunResult, fit, resolve_precision
from mamba_training.settings import RunSettings, parse_duration

DEFAULT_STEPS = 10_000
_TOKENS_PER_STEP = {"cpu": 2**13, "gpu": 2**17}
_TOKENS_AT_A_TIME = {"cpu": 2**14, "gpu": 2**17}
"""What a device can hold of the 12 x 128 model with room to spare: about 1.6 GB on a CPU and 13 GB on a GPU."""
_FOLLOWED_AT_VALIDATION = 50_000_000
"""The Markov baseline is brought up to date at a validation only if that takes seconds: so many bases."""


@dataclass(frozen=True)
class LanguageScore:
    """How well bases are predicted.

    Attributes:
        nats: mean cross-entropy per base.
        n_bases: bases predicted.
    """

    nats: float
    n_bases: int

    @property
    def bits(self) -> float:
        """Bits per base; two is what guessing costs."""
        return bits(self.nats)

    @property
    def perplexity(self) -> float:
        """The number of equally likely bases that would be as hard to guess."""
        return math.exp(self.nats)

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return {"nats": self.nats, "bits": self.bits, "perplexity": self.perplexity, "n_bases": self.n_bases}


class Pretraining(LightningModule):
    """Next-base prediction with AdamW.

    Args:
        model: what is trained.
        optim: rates and decay.
        markov_bits: gives the baseline's bits per base on the validation windows after so many optimizer steps, or None
            when that would take too long.
    """

    def __init__(
        self, model: GenomeLM, optim: OptimConfig, markov_bits: Callable[[int], float | None] | None = None
    ) -> None:
        super().__init__()
        self.model, self.optim, self.markov_bits = model, optim, markov_bits
        self.context = ContextPlace()
        self._validation: list[Tensor] = []

    def training_step(self, batch: Integer[Tensor, "B L"], batch_idx: int) -> Float[Tensor, ""]:
        """Mean nats per base of a batch; of a part of its windows, so that the mean over all parts is that."""
        total, n_targets = self._nats(batch)
        if self.context.size > 1:
            total, n_targets = self.context.size * total, is_base(batch[:, 1:]).sum()
        return total / n_targets.clamp(min=1)

    def _nats(self, batch: Integer[Tensor, "B L"]) -> tuple[Float[Tensor, ""], Integer[Tensor, ""]]:
        """The nats of this rank's part of the windows, and the bases predicted there."""
        if self.context.size == 1:
            return next_base_nats(self.model(batch), batch)
        part = self.context.part(batch.shape[1] - 1)
        return base_nats(self.model(batch[:, part]), batch[:, part.start + 1 : part.stop + 1])

    def tokens_in(self, batch: Integer[Tensor, "B L"]) -> int:
        """Positions of a batch."""
        return batch.numel()

    def validation_step(self, batch: Integer[Tensor, "B L"], batch_idx: int) -> None:
        """Adds up a batch's nats and its bases."""
        self._validation.append(torch.stack([part.double() for part in self._nats(batch)]))

    def on_validation_epoch_end(self) -> None:
        """Logs loss (nats per base), bits per base, perplexity, and the Markov model's bits per base."""
        sums = torch.stack([*self._validation, torch.zeros(2, dtype=torch.float64, device=self.device)]).sum(dim=0)
        self._validation.clear()
        nats, n_bases = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()  # pyright: ignore[reportAttributeAccessIssue]
        scored = LanguageScore(nats / max(1.0, n_bases), int(n_bases))
        values = {"val_loss": scored.nats, "val_bits": scored.bits, "val_perplexity": scored.perplexity}
        if self.markov_bits is not None and self.trainer.is_global_zero:
            markov = self.markov_bits(self.trainer.global_step)
            values |= {} if markov is None else {"markov_bits": markov}
        self.log_dict(values, rank_zero_only=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW that leaves norms, biases, A and D undecayed."""
        optim = self.optim
        settings = OptimSettings(
            lr=optim.lr,
            min_lr=optim.lr * optim.min_lr_fraction,
            warmup_steps=optim.warmup_steps,
            weight_decay=optim.weight_decay,
            betas=(optim.beta1, optim.beta2),
        )
        return build_optimizer(self, settings)


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
    on_gpu = train.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    kind = "gpu" if on_gpu or train.accelerator == "mps" else "cpu"
    n_devices = train.devices if isinstance(train.devices, int) else max(1, torch.cuda.device_count() if on_gpu else 1)
    if n_devices % train.context_parallel:
        raise UserError(
            f"{n_devices} device(s) cannot share windows in groups of {train.context_parallel}",
            accepted=f"a number of devices that {train.context_parallel} divides",
            fix=f"--devices {train.context_parallel}",
        )
    if train.context_parallel > 1 and (whole := sorted({"attention", "s4d"} & set(model.layers))):
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


def _within_memory(plan: BatchPlan, model: GenomeLM, settings: PretrainConfig) -> BatchPlan:
    """The plan, or one with smaller batches or chunks where the machine has too little memory for it.

    Raises:
        UserError: no window fits, however small the chunks.
    """
    train = settings.train
    on_gpu = train.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    work = Workload(
        model.backbone.config,
        model.n_parameters(),
        plan.batch_size,
        -(-settings.data.window // train.context_parallel),
        resolve_precision(train.precision, train.accelerator),
        tokens.VOCAB_SIZE,
        "cuda" if on_gpu else "cpu",
    )
    fitted = settle(work, plan.accumulation, plan.n_devices * train.context_parallel)
    if fitted.note:
        _note(fitted.note)
    model.backbone.config = fitted.work.config
    return BatchPlan(fitted.work.batch, fitted.accumulation, plan.n_devices)


def evaluate_windows(model: GenomeLM, windows: GenomeWindows, tokens_at_a_time: int = 2**14) -> LanguageScore:
    """Scores every window once, on the device where the model is."""
    device = next(model.parameters()).device
    total, n_bases = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for block in windows.blocks(tokens_at_a_time):
            ids = torch.from_numpy(block).to(device)
            nats, n_targets = next_base_nats(model(ids), ids)
            total, n_bases = total + float(nats), n_bases + int(n_targets)
    model.train(was_training)
    return LanguageScore(total / max(1, n_bases), n_bases)


def run_pretrain(
    *,
    out: Path,
    config: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Trains a language model in the run folder `out`, or goes on with the run there.

    Args:
        out: the run folder.
        config: preset or file; when resuming, None takes the run's own configuration.
        overrides: `KEY=VALUE` texts.
        flags: dotted keys and values of dedicated options (`fasta`, `train.max_steps`, ...); None values are left out.
        resume: go on from the last checkpoint.

    Returns:
        The result for programs, and under `text` for people; empty on all but the first of several processes.

    Raises:
        UserError: the configuration, the genome, the run folder or the machine is in the way.
        Interrupted: stopped by a signal; the run can be resumed.
    """
    settings = _resolve(out, config, overrides, flags, resume)
    genome = open_genome(settings.fasta)
    split = make_split(genome, settings.data, settings.bed)
    _audit(genome, split)
    settings = settings.model_copy(
        update={"content": {"genome": genome.fingerprint.xxh3_128, **split.description["digests"]}}
    )
    torch.manual_seed(settings.train.seed)
    model = GenomeLM(settings.model)
    plan = _within_memory(plan_batches(settings.train, settings.model, settings.data.window), model, settings)
    data = GenomeData(
        genome,
        split,
        settings.data,
        batch_size=plan.batch_size,
        seed=settings.train.seed,
        context_parallel=settings.train.context_parallel,
    )
    baseline = SeenMarkov(data.train, seed=settings.train.seed)

    def markov_bits(step: int) -> float | None:
        samples = step * plan.windows_per_step
        if baseline.to_come(samples) > _FOLLOWED_AT_VALIDATION:
            return None
        baseline.follow(samples)
        return baseline.result(data.valid).valid_bits

    module = Pretraining(model, settings.optim, markov_bits)
    run = fit(
        module,
        data,
        _run_settings(out, settings, plan, resume),
        config=settings.model_dump(mode="json"),
        may_change=("fasta", "bed", "train.validate_every"),
        units=_words,
    )
    if not is_first_process():
        return {}
    baseline.follow(run.step * plan.windows_per_step)
    return _finish(settings, genome, split, model, baseline, run)


def _resolve(
    out: Path, config: str | None, overrides: Sequence[str], flags: Mapping[str, Any] | None, resume: bool
) -> PretrainConfig:
    recorded = out / "config.yaml"
    source = str(recorded) if resume and config is None and recorded.is_file() else config
    settings = load_config(source, overrides, flags=flags)
    places = {
        key: str(Path(path).absolute()) for key in ("fasta", "bed") if (path := getattr(settings, key)) is not None
    }
    return settings.model_copy(update=places)


def _audit(genome: Genome, split: Split) -> None:
    report = audit(genome, split)
    if not report.ok:
        raise UserError(f"the split is not clean: {report}", path=genome.path, fix="see genomamba audit")
    windows = ", ".join(f"{len(table):,} {name}" for name, table in split.tables().items())
    copies = report.copies["test"]
    _note(
        f"{genome.path.name}: {len(genome):,} record(s), {int(genome.lengths.sum()):,} bases; windows of "
        f"{split.train.window:,}: {windows}; no base is in two splits, {copies.near:,} of {copies.compared:,} test "
        "windows repeat training sequence"
    )


def _run_settings(out: Path, settings: PretrainConfig, plan: BatchPlan, resume: bool) -> RunSettings:
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
    )


def _validation_share(train: TrainConfig, max_steps: int | None) -> float:
    """Twenty validations in a long run, four in a short one, where they would weigh."""
    share = 0.05
    if max_steps is not None:
        share = max(share, 50 / max_steps)
    if train.max_time is not None:
        share = max(share, 60 / parse_duration(train.max_time))
    return min(share, 0.25)


def _words(metrics: Mapping[str, float]) -> str:
    text = nats_and_bits(metrics)
    return f"{text} (Markov {metrics['markov_bits']:.4f})" if "markov_bits" in metrics else text


def _note(text: str) -> None:
    if is_first_process():
        print(text, file=sys.stderr)


def _finish(
    settings: PretrainConfig, genome: Genome, split: Split, model: GenomeLM, baseline: SeenMarkov, run: RunResult
) -> dict[str, Any]:
    """Scores the best weights once on validation and on test, and writes the bundle, its card and the picture."""
    _note("scoring the best weights on the validation and the test windows")
    valid = GenomeWindows(genome, frozen(split.valid, settings.data.final_bases))
    test = GenomeWindows(genome, frozen(split.test, settings.data.final_bases))
    on_gpu = settings.train.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    model.to("cuda" if on_gpu else "cpu")
    scores = {"valid": evaluate_windows(model, valid), "test": evaluate_windows(model, test)}
    markov = baseline.result(valid, test)
    result = _result(settings, model, scores, markov, run)
    provenance = card.provenance(settings, genome, split, result)
    bundle_config = {
        "format": 1,
        "kind": BUNDLE_KIND,
        "model": settings.model.model_dump(mode="json"),
        "window": settings.data.window,
        "training": provenance,
    }
    save_bundle(run.out / "model", model.state_dict(), bundle_config, card.model_card(provenance))
    card.draw_learning_curve(run.out / "metrics.csv", run.out / "learning_curve.png", title=run.out.name)
    return {**result, "text": card.summary(result)}


def _result(
    settings: PretrainConfig, model: GenomeLM, scores: dict[str, LanguageScore], markov: MarkovResult, run: RunResult
) -> dict[str, Any]:
    return {
        "status": run.status,
        "out": str(run.out),
        "model": str(run.out / "model"),
        "n_parameters": model.n_parameters(),
        "window": settings.data.window,
        "step": run.step,
        "best_step": run.best_step or run.step,
        "tokens": run.tokens,
        "seconds": round(run.seconds, 1),
        **{name: scored.to_dict() for name, scored in scores.items()},
        "markov": markov.to_dict(),
    }
