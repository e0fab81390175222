"""One classifier trained: what the data decide of its settings, its start from a pre-trained model, and its run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genomamba.classifier.config import FinetuneConfig, StemConfig
from genomamba.classifier.data import FinetuneDataModule
from genomamba.classifier.examples import LabelledData
from genomamba.classifier.frozen import train_frozen
from genomamba.classifier.module import FinetuneModule
from genomamba.classifier.network import BUNDLE_KIND, ClassifierConfig, SequenceClassifier
from genomamba.classifier.pace import learn_last, paced, time_limit
from genomamba.classifier.request import Request
from genomamba.classifier.tasks.tasks import class_balance
from genomamba.config import unknown_before
from genomamba.language_model.model import BUNDLE_KIND as LM_KIND
from mamba_configs.settings import validated
from mamba_data_prep.errors import UserError
from mamba_training.bundle import Bundle, load_bundle
from mamba_training.devices import device_count, scoring_device
from mamba_training.folders import read_config
from mamba_training.preflight import within_memory
from mamba_training.progress import say
from mamba_training.run import RunResult, fit
from mamba_training.run_folder import RunFolder
from mamba_training.settings import RunSettings

_MUTATE = 0.1


@dataclass(frozen=True)
class Start:
    """What training starts from, and what the run records.

    Attributes:
        settings: with nothing left to the data.
        bundle: the pre-trained model, or None.
        recorded: the run's `config.yaml`, its seed apart.
        steps: optimizer steps that there is time for, as was measured.
    """

    settings: FinetuneConfig
    bundle: Bundle | None
    recorded: Mapping[str, Any]
    steps: int | None = None


def start_bundle(from_model: Path | None) -> Bundle | None:
    """The model to start from.

    Raises:
        UserError: it is neither a language model nor a classifier.
    """
    if from_model is None:
        return None
    bundle = load_bundle(from_model)
    if bundle.config.get("kind") not in (LM_KIND, BUNDLE_KIND):
        raise UserError(
            "this model cannot be fine-tuned", path=from_model, found=bundle.config.get("kind"),
            accepted=f"{LM_KIND}, {BUNDLE_KIND}",
        )  # fmt: skip
    return bundle


def shaped(settings: FinetuneConfig, start: Bundle | None) -> FinetuneConfig:
    """The settings with the network's shape as the pre-trained model has it; everything else is as asked.

    Raises:
        UserError: that model's shape cannot be read.
    """
    if start is None:
        return settings
    stem = start.config.get("stem") or StemConfig().model_dump()
    if start.config["kind"] == LM_KIND and settings.stem.positions:
        stem = {**stem, "positions": settings.stem.positions}
    decided = {"model": start.config["model"], "stem": stem, "table": start.config.get("table")}
    whole = {**settings.model_dump(), **decided}
    return validated(FinetuneConfig, whole, path=start.path)


def settled(settings: FinetuneConfig, data: LabelledData) -> FinetuneConfig:
    """Decides what was left to the data: whether places matter, strands are mixed and bases replaced in training."""
    stem, augment = settings.stem, settings.data
    if stem.positions == "auto":
        stem = stem.model_copy(update={"positions": data.aligned})
    if augment.mutate == "auto":
        augment = augment.model_copy(update={"mutate": _MUTATE if stem.positions else 0.0})
    if augment.reverse_complement == "auto":
        augment = augment.model_copy(update={"reverse_complement": not data.stranded})
    return settings.model_copy(update={"stem": stem, "data": augment})


def make_start(
    request: Request, settings: FinetuneConfig, data: LabelledData, bundle: Bundle | None, content: Mapping[str, Any]
) -> Start:
    """Settle what was left to the data, and write down what the run is made from.

    Args:
        request: what was asked.
        settings: shaped by the pre-trained model.
        data: the splits.
        bundle: that model.
        content: file -> what `Fingerprint.to_dict` says of it.

    Raises:
        UserError: the model knows positions of another window.
    """
    own = settled(settings, data)
    if bundle is not None and own.stem.positions and bundle.config["kind"] == BUNDLE_KIND:
        window = bundle.config.get("window")
        if window != data.window:
            raise UserError(
                "the model knows positions of another window", found=f"{data.window:,}", accepted=f"{window:,}",
                fix=f"--set data.window={window}, or train from scratch",
            )  # fmt: skip
    started = bundle is not None or request.from_sha256 is not None
    network = SequenceClassifier(classifier_config(own, data))
    own, steps, text = paced(own, data, network, batch_size(own, data), started)
    say(text)
    recorded = {
        **own.model_dump(mode="json"), "task": request.task, "inputs": _plain(request.inputs),
        "from": bundle.sha256 if bundle is not None else request.from_sha256,
        "from_path": None if request.from_model is None else str(request.from_model.absolute()),
        "seeds": request.seeds, "content": [found["xxh3_128"] for found in content.values()],
    }  # fmt: skip
    if "hash" in str(data.description["split"]):  # another rule would move rows that were trained on into test
        recorded["split"] = data.description["split"]
    return Start(own, bundle, recorded, steps or None)


def classifier_config(settings: FinetuneConfig, data: LabelledData) -> ClassifierConfig:
    """The network that some settings and data ask for."""
    return ClassifierConfig(
        settings.model, settings.stem, settings.head, data.classes, data.window, stranded=data.stranded,
        table=settings.table,
    )  # fmt: skip


def train_seed(
    start: Start, data: LabelledData, seed: int, folder: Path, resume: bool
) -> tuple[RunResult, SequenceClassifier]:
    """Train one classifier in its run folder, or go on with the run there.

    Raises:
        UserError: the folder or the machine is in the way, or the model to start from is gone.
        Interrupted: stopped; the run can be resumed.
    """
    settings = start.settings
    torch.manual_seed(seed)
    network = SequenceClassifier(classifier_config(settings, data))
    if start.bundle is not None:
        network.load_pretrained(start.bundle.state, start.bundle.path)
    elif start.recorded["from"] is not None and not (folder / "checkpoints" / "last.ckpt").is_file():
        raise UserError("the model that this run starts from is not where it was", fix="say where it is: --from MODEL")
    learn_last(network, settings.train.layers if isinstance(settings.train.layers, int) else "all")
    if settings.train.freeze:
        return _train_frozen(network, start, data, seed, folder, resume)
    weights = None
    if settings.head.class_weights == "balanced":
        weights = torch.from_numpy(class_balance(data.train.labels, len(data.classes)))
    module = FinetuneModule(network, settings.optim, weights)
    size = batch_size(settings, data)
    fitted = within_memory(
        network.backbone,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        batch=size,
        length=-(-data.window // settings.stem.stride),
        outputs=len(data.classes),
        precision=settings.train.precision,
        accelerator=settings.train.accelerator,
        processes=device_count(settings.train.devices, settings.train.accelerator),
    )
    augment = settings.data
    loader = FinetuneDataModule(
        data, fitted.work.batch, seed=seed, flip=bool(augment.reverse_complement), mutate=float(augment.mutate),
        workers=augment.workers,
    )  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    how = run_settings(settings, data, seed, folder, size, resume, start.steps)
    run = fit(
        module,
        loader,
        replace(how, grad_accumulation=fitted.accumulation),
        config={**start.recorded, "train": {**start.recorded["train"], "seed": seed}},
        may_change=_moved(start, folder),
        units=_words,
    )
    return run, module.model.eval()


def _moved(start: Start, folder: Path) -> list[str]:
    """What the files hold is recorded, and may not differ; where they lie may, and what a record is too old to name."""
    recorded = read_config(folder) if (folder / "config.yaml").is_file() else None
    newer = [] if recorded is None else unknown_before(recorded, start.settings)
    if recorded is not None and "layers" not in recorded.get("train", {}):
        newer.append("train.layers")
    return ["from_path", "seeds", *(f"inputs.{name}" for name in start.recorded["inputs"]), *newer]


def _train_frozen(
    network: SequenceClassifier, start: Start, data: LabelledData, seed: int, folder: Path, resume: bool
) -> tuple[RunResult, SequenceClassifier]:
    """Fit a head on features of the frozen network, in the run folder."""
    if start.bundle is None:
        raise UserError("there is nothing to freeze", fix="say which model to start from: --from MODEL")
    folder.parent.mkdir(parents=True, exist_ok=True)
    run = RunFolder(folder)
    config = {**start.recorded, "train": {**start.recorded["train"], "seed": seed}}
    run.open(config, resume=resume, may_change=_moved(start, folder), note=lambda _: None)
    try:
        return train_frozen(network, data, run, scoring_device(start.settings.train.accelerator))
    finally:
        run.close()


def batch_size(settings: FinetuneConfig, data: LabelledData) -> int:
    """Sequences a step: as asked, or as `tokens_per_step` asks; otherwise about 2^16 bases, between 4 and 64."""
    train = settings.train
    if train.batch_size != "auto":
        return train.batch_size
    if train.tokens_per_step != "auto":
        return max(train.tokens_per_step // data.window, 1)
    return int(np.clip(2**16 // data.window, 4, 64))


def run_settings(
    settings: FinetuneConfig, data: LabelledData, seed: int, folder: Path, size: int, resume: bool, steps: int | None
) -> RunSettings:
    """How the run goes: epochs become steps; validation comes once an epoch, or four times where a run has none.

    Args:
        settings: of the run.
        data: the splits.
        seed: of this training.
        folder: of the run.
        size: sequences a step.
        resume: go on with the run there.
        steps: that there is time for, if that was measured.
    """
    train = settings.train
    epoch = math.ceil(len(data.train) / size)
    max_steps = train.max_steps
    if max_steps is None and train.epochs is not None:
        max_steps = train.epochs * epoch
    every = train.validate_every
    if every == "auto":
        few = max_steps if steps is None or steps >= epoch else steps
        every = epoch if few is None else min(epoch, max(few // 4, 1))
    return RunSettings(
        out=folder, max_steps=max_steps, max_time=time_limit(settings), seed=seed, accelerator=train.accelerator,
        devices=train.devices, strategy=train.strategy, precision=train.precision, grad_clip=settings.optim.grad_clip,
        val_every=every, checkpoint_every=float(train.checkpoint_seconds), monitor="val_loss", mode="min",
        patience=train.patience, keep_best=True, resume=resume,
    )  # fmt: skip


def _words(metrics: Mapping[str, Any]) -> str:
    """The progress line's words."""
    text = f"loss {metrics.get('loss', math.nan):.4f} nats"
    if "val_loss" in metrics:
        text += f", validation {metrics['val_loss']:.4f}, MCC {metrics.get('val_mcc', math.nan):.3f}"
    return text


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: [str(v) for v in value] if isinstance(value, list | tuple) else str(value or "")
        for k, value in inputs.items()
    }
