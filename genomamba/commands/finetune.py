"""`genomamba finetune`: labelled sequences to a classifier, over one or more seeds, with an honest report."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genomamba import tokens
from genomamba.classifier.baselines import fit_baselines
from genomamba.classifier.config import DEFAULT_PRESET, PRETRAINED_PRESET, FinetuneConfig, StemConfig
from genomamba.classifier.data import FinetuneDataModule
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.metrics import fit_temperature, score, softmax
from genomamba.classifier.module import FinetuneModule
from genomamba.classifier.network import BUNDLE_KIND, ClassifierConfig, SequenceClassifier
from genomamba.classifier.report import SeedResult, build_report, chosen, comparison_table, write_report
from genomamba.classifier.tasks.genomes import promoter_files, promoter_genome, species_data
from genomamba.classifier.tasks.tasks import class_balance, named_files, table_data
from genomamba.config import load_config
from genomamba.language_model.model import BUNDLE_KIND as LM_KIND
from genomamba.prediction.predictor import Predictor
from genomamba.prediction.rows import ABSTAIN
from mamba_configs.settings import validated
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import fingerprint, versions
from mamba_training.bundle import Bundle, load_bundle, save_bundle
from mamba_training.preflight import Fitted, Workload, settle
from mamba_training.progress import is_first_process
from mamba_training.run import RunResult, fit, resolve_precision
from mamba_training.settings import RunSettings

_EVALUATION_BASES = 2**16
_ALIGNED_SHARE = 0.9
"""Sequences count as aligned, so that places may matter, when more than this share of them is as long as the window."""
_LONGEST_WITH_PLACES = 8192
_MUTATE = 0.1


def run_finetune(
    *,
    task: str,
    out: Path,
    config: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    from_model: Path | None = None,
    pooling: str | None = None,
    seeds: int = 1,
    resume: bool = False,
    **inputs: Any,
) -> dict[str, Any]:
    """Trains, chooses on validation, scores on test and writes run folder, bundle and report.

    Args:
        task: species, promoter or table.
        out: the run folder; with several seeds, each has its own under `seeds/`.
        config, overrides, flags: as `load_config` takes them.
        from_model: bundle or run folder to start from.
        seeds: how many models are trained, each with its own seed; the best on validation becomes `out/model`.
        inputs: the task's files, as the command line names them.

    Raises:
        UserError: something about the files or settings.
        Interrupted: stopped; resumable with `resume`.
    """
    start = _start_bundle(from_model)
    settings = _settings(config, overrides, {**(flags or {}), "head.pooling": pooling}, start)
    _check_out(out, resume, several=seeds > 1)
    data = _load(task, settings, inputs)
    if ABSTAIN in data.classes:
        raise UserError(f"A class may not be called {ABSTAIN!r}", fix="rename it")
    settings = settled(settings, data)
    _check_window(settings, start, data)
    for line in (*(f"note: {warning}" for warning in data.warnings), _overview(data)):
        _say(line)
    files = _paths(inputs)
    content = {str(path): fingerprint(path).to_dict() for path in files}
    recorded = {
        **settings.model_dump(mode="json"), "task": task, "inputs": _plain(inputs), "from": start and start.sha256,
        "content": [found["xxh3_128"] for found in content.values()],
    }  # fmt: skip
    trained = {}
    for seed in range(settings.train.seed, settings.train.seed + seeds):
        folder = out if seeds == 1 else out / "seeds" / str(seed)
        trained[seed] = _train_seed(settings, data, seed, folder, recorded, start, resume)
    if not is_first_process():
        return {}
    results = [result for result, _ in trained.values()]
    report = build_report(data, results, fit_baselines(data, _say))
    best = chosen(results)
    write_report(out, report, results, data)
    _save(out / "model", trained[best.seed][1], settings, report, best, content)
    return {"out": str(out), "model": str(out / "model"), **report, "text": _text(report, out)}


def _settings(
    config: str | None, overrides: Sequence[str], flags: Mapping[str, Any], start: Bundle | None
) -> FinetuneConfig:
    """The configuration; a pre-trained model decides the network's shape, everything else is as asked."""
    default = DEFAULT_PRESET if start is None else PRETRAINED_PRESET
    settings = load_config(config, overrides, schema=FinetuneConfig, flags=flags, default=default)
    if start is None:
        return settings
    stem = start.config.get("stem") or StemConfig().model_dump()
    if start.config["kind"] == LM_KIND and settings.stem.positions:
        stem = {**stem, "positions": settings.stem.positions}
    whole = {**settings.model_dump(), "model": start.config["model"], "stem": stem}
    return validated(FinetuneConfig, whole, path=start.path)


def _say(text: str) -> None:
    if is_first_process():
        print(text, file=sys.stderr)


def _start_bundle(from_model: Path | None) -> Bundle | None:
    if from_model is None:
        return None
    bundle = load_bundle(from_model)
    if bundle.config.get("kind") not in (LM_KIND, BUNDLE_KIND):
        raise UserError(
            "This model cannot be fine-tuned", path=from_model, found=bundle.config.get("kind"),
            accepted=f"{LM_KIND}, {BUNDLE_KIND}",
        )  # fmt: skip
    return bundle


def settled(settings: FinetuneConfig, data: LabelledData) -> FinetuneConfig:
    """Decides what was left to the data: whether places matter, strands are mixed and bases replaced in training."""
    aligned = data.stranded and float((data.train.lengths() == data.window).mean()) > _ALIGNED_SHARE
    stem, augment = settings.stem, settings.data
    if stem.positions == "auto":
        stem = stem.model_copy(update={"positions": aligned and data.window <= _LONGEST_WITH_PLACES})
    if augment.mutate == "auto":
        augment = augment.model_copy(update={"mutate": _MUTATE if stem.positions else 0.0})
    if augment.reverse_complement == "auto":
        augment = augment.model_copy(update={"reverse_complement": not data.stranded})
    return settings.model_copy(update={"stem": stem, "data": augment})


def _check_window(settings: FinetuneConfig, start: Bundle | None, data: LabelledData) -> None:
    if start is not None and settings.stem.positions and start.config["kind"] == BUNDLE_KIND:
        own = start.config.get("window")
        if own != data.window:
            raise UserError(
                "The model knows positions of another window", found=f"{data.window:,}", accepted=f"{own:,}",
                fix=f"--set data.window={own}, or train from scratch",
            )  # fmt: skip


def _check_out(out: Path, resume: bool, *, several: bool) -> None:
    """Refuses a folder with other things in it before any data is read; `fit` guards single runs itself."""
    if out.is_file():
        raise UserError("the run folder is a file", path=out, fix="give a folder that does not exist yet")
    present = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    if present and not resume:
        raise UserError(
            "the run folder is not empty", path=out, found=", ".join(present[:5]),
            fix="add --resume to go on with that run, or choose another --out",
        )  # fmt: skip
    if several and (out / "checkpoints").exists():
        raise UserError("This run was made with one seed", path=out, fix="leave --seeds out, or choose another --out")


def _load(task: str, settings: FinetuneConfig, inputs: Mapping[str, Any]) -> LabelledData:
    data = settings.data
    if task == "table":
        tables = inputs["table"] if isinstance(inputs["table"], list | tuple) else (inputs["table"],)
        return table_data(
            [Path(t) for t in tables], data, valid=inputs.get("valid"), test=inputs.get("test"), seed=data.split_seed
        )
    if task == "species":
        return species_data(named_files(inputs["classes"]), data)
    if task == "promoter" and inputs.get("positive"):
        return promoter_files(Path(inputs["positive"]), Path(inputs["negative"]), data, data.split_seed)
    if task == "promoter":
        return promoter_genome(Path(inputs["fasta"]), Path(inputs["tss"]), data, data.split_seed)
    raise ValueError(f"task must be species, promoter or table, not {task!r}")


def _train_seed(
    settings: FinetuneConfig,
    data: LabelledData,
    seed: int,
    folder: Path,
    recorded: dict[str, Any],
    start: Bundle | None,
    resume: bool,
) -> tuple[SeedResult, SequenceClassifier]:
    torch.manual_seed(seed)
    own = ClassifierConfig(
        settings.model, settings.stem, settings.head, data.classes, data.window, stranded=data.stranded
    )
    network = SequenceClassifier(own)
    if start is not None:
        network.load_pretrained(start.state, start.path)
    weights = None
    if settings.head.class_weights == "balanced":
        weights = torch.from_numpy(class_balance(data.train.labels, len(data.classes)))
    module = FinetuneModule(network, settings.optim, weights)
    size = batch_size(settings, data)
    fitted = _within_memory(network, settings, data, size)
    augment = settings.data
    loader = FinetuneDataModule(
        data, fitted.work.batch, seed=seed, flip=bool(augment.reverse_complement), mutate=float(augment.mutate),
        workers=augment.workers,
    )  # fmt: skip
    moved = [f"inputs.{name}" for name in recorded["inputs"]]  # what the files hold is recorded too, and may not differ
    record = {**recorded, "train": {**recorded["train"], "seed": seed}}
    folder.parent.mkdir(parents=True, exist_ok=True)
    result = fit(
        module,
        loader,
        replace(run_settings(settings, data, seed, folder, size, resume), grad_accumulation=fitted.accumulation),
        config=record,
        may_change=moved,
        units=_words,
    )
    network = module.model.eval()
    return _scored(network, data, seed, folder, result)


def _within_memory(network: SequenceClassifier, settings: FinetuneConfig, data: LabelledData, size: int) -> Fitted:
    """A step on `size` sequences, in smaller batches or chunks where the machine has too little memory for it.

    Raises:
        UserError: no sequence fits, however small the chunks.
    """
    train = settings.train
    on_gpu = train.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    devices = train.devices if isinstance(train.devices, int) else max(1, torch.cuda.device_count() if on_gpu else 1)
    work = Workload(
        network.backbone.config,
        sum(parameter.numel() for parameter in network.parameters()),
        size,
        -(-data.window // settings.stem.stride),
        resolve_precision(train.precision, train.accelerator),
        len(data.classes),
        "cuda" if on_gpu else "cpu",
    )
    fitted = settle(work, 1, devices)
    if fitted.note:
        _say(fitted.note)
    network.backbone.config = fitted.work.config
    return fitted


def _words(metrics: Mapping[str, Any]) -> str:
    """The progress line's words."""
    text = f"loss {metrics.get('loss', math.nan):.4f} nats"
    if "val_loss" in metrics:
        text += f", validation {metrics['val_loss']:.4f}, MCC {metrics.get('val_mcc', math.nan):.3f}"
    return text


def batch_size(settings: FinetuneConfig, data: LabelledData) -> int:
    """Sequences a step: as asked, or as `tokens_per_step` asks; otherwise about 2^16 bases, between 4 and 64."""
    train = settings.train
    if train.batch_size != "auto":
        return train.batch_size
    if train.tokens_per_step != "auto":
        return max(train.tokens_per_step // data.window, 1)
    return int(np.clip(2**16 // data.window, 4, 64))


def run_settings(
    settings: FinetuneConfig, data: LabelledData, seed: int, folder: Path, size: int, resume: bool
) -> RunSettings:
    """How the run goes, from the configuration: epochs become steps, and validation comes once an epoch."""
    train = settings.train
    epoch = math.ceil(len(data.train) / size)
    max_steps = train.max_steps
    if max_steps is None and train.epochs is not None:
        max_steps = train.epochs * epoch
    every = train.validate_every
    if every == "auto":
        every = epoch if max_steps is None else min(epoch, max(max_steps // 4, 1))
    return RunSettings(
        out=folder, max_steps=max_steps, max_time=train.max_time, seed=seed, accelerator=train.accelerator,
        devices=train.devices, strategy=train.strategy, precision=train.precision, grad_clip=settings.optim.grad_clip,
        val_every=every, checkpoint_every=float(train.checkpoint_seconds), monitor="val_loss", mode="min",
        patience=train.patience, keep_best=True, resume=resume,
    )  # fmt: skip


def _scored(
    network: SequenceClassifier, data: LabelledData, seed: int, folder: Path, result: RunResult
) -> tuple[SeedResult, SequenceClassifier]:
    """Fits the temperature on validation and scores both held-out splits, each once."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)
    valid, test = (logits_of(network, split, device) for split in (data.valid, data.test))
    temperature = fit_temperature(data.valid.labels, valid)
    network.config = replace(network.config, temperature=temperature)
    probabilities = softmax(test, temperature)
    scored = SeedResult(
        seed=seed, status=result.status, steps=result.step, seconds=result.seconds, temperature=temperature,
        valid=score(data.valid.labels, softmax(valid, temperature)), test=score(data.test.labels, probabilities),
        raw_ece=score(data.test.labels, softmax(test)).ece, probabilities=probabilities, folder=folder,
    )  # fmt: skip
    return scored, network.cpu()


def logits_of(network: SequenceClassifier, examples: Examples, device: torch.device) -> np.ndarray:
    """Logits (M, C) of a split, read piece by piece."""
    predictor = Predictor(network, device, _EVALUATION_BASES)
    piece = max(4 * _EVALUATION_BASES // max(network.config.window, 1), 1)
    parts = [
        predictor.logits([tokens.encode(examples.fetch(i)) for i in range(first, min(first + piece, len(examples)))])
        for first in range(0, len(examples), piece)
    ]
    return np.concatenate(parts)


def _save(
    path: Path, network: SequenceClassifier, settings: FinetuneConfig, report: Mapping[str, Any], best: SeedResult,
    content: Mapping[str, Any],
) -> None:  # fmt: skip
    training = {
        "seed": best.seed,
        "steps": best.steps,
        "status": best.status,
        "data": report["data"],
        "inputs": dict(content),
        "test": best.test.headline(),
        "settings": settings.model_dump(mode="json"),
        "versions": versions(),
        "command": " ".join(sys.argv),
    }
    network.config = replace(network.config, training=training)
    save_bundle(path, network.state_dict(), network.config.to_dict(), model_card(network.config, report))


def model_card(config: ClassifierConfig, report: Mapping[str, Any]) -> str:
    """What the model is, what it was made from, and what it can and cannot do."""
    training = config.training
    files = "\n".join(
        f"| `{Path(name).name}` | {found['size']:,} | `{found['xxh3_128']}` |"
        for name, found in training["inputs"].items()
    )
    versions_used = ", ".join(f"{name} {number}" for name, number in training["versions"].items())
    verdicts = "\n".join(f"* {line}" for line in report["verdict"])
    return (
        f"# Classifier of DNA: {', '.join(config.classes)}\n\n"
        f"Made by `genomamba finetune` ({report['data'].get('task')}), seed {training['seed']}, "
        f"{training['steps']:,} steps. "
        f"It reads up to {config.window:,} bases at a time; temperature {config.temperature:.3f}.\n\n"
        f"## What to expect\n\n{verdicts}\n\n{comparison_table(report)}\n"
        f"Split: {report['data'].get('split')}.\n\n"
        f"## Data\n\n| file | bytes | xxh3-128 |\n|---|---:|---|\n{files}\n\n"
        f"## Versions\n\n{versions_used}\n"
    )


def _paths(inputs: Mapping[str, Any]) -> list[Path]:
    """Every input file, in the order given."""
    found: list[Path] = []
    for name, value in inputs.items():
        if name == "classes":
            found += [path for paths in named_files(value).values() for path in paths]
        elif value is not None:
            found += [Path(item) for item in (value if isinstance(value, list | tuple) else [value])]
    return found


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: [str(v) for v in value] if isinstance(value, list | tuple) else str(value or "")
        for k, value in inputs.items()
    }


def _overview(data: LabelledData) -> str:
    counts = "; ".join(
        f"{split} {sum(row.values()):,} ({', '.join(f'{name} {n:,}' for name, n in row.items())})"
        for split, row in data.counts().items()
    )
    return f"{len(data.classes)} classes, window {data.window:,}: {counts}"


def _text(report: Mapping[str, Any], out: Path) -> str:
    return "\n".join(
        [comparison_table(report), *report["verdict"], f"report: {out / 'report.md'}", f"model:  {out / 'model'}"]
    )
