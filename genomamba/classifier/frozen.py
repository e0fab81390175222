"""Classifiers on a frozen model: its features are computed once and kept in the run folder, then a head takes seconds.

Each sequence becomes the means of the backbone's outputs over its whole and over its halves, quarters and eighths
(`Pooling("scales")`). The head is a logistic regression on them; whether it reads the whole's mean alone or all scales,
and how strongly it is held back, is chosen on validation.

What is computed is appended to `features/SPLIT.f32`, rows of float32, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from genomamba import tokens
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.kmers import LogisticFit, fit_logistic
from genomamba.classifier.metrics import fit_temperature, negative_log_likelihood, softmax
from genomamba.classifier.network import SCALES, ClassifierConfig, SequenceClassifier
from genomamba.classifier.report import FROZEN
from genomamba.prediction.predictor import length_batches, padded
from mamba_data_prep.errors import Interrupted
from mamba_data_prep.provenance import recorded_command
from mamba_training.progress import clock, say
from mamba_training.run import RunResult
from mamba_training.run_folder import RunFolder
from mamba_training.signals import StopSignals

STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1)
MOST_EXAMPLES: Final = 50_000
"""Training examples whose features are computed, evenly thinned; a head needs no more."""
_LOWEST_TEMPERATURE: Final = 0.01
_BATCH_BASES: Final = 2**16
_TOLD_EVERY: Final = 20.0


def train_frozen(
    network: SequenceClassifier, data: LabelledData, folder: RunFolder, device: torch.device
) -> tuple[RunResult, SequenceClassifier]:
    """Computes what is not yet kept of the features, and fits the head.

    Args:
        network: with the weights that are frozen; its head is replaced.
        data: the splits; training and validation are used.
        folder: of the run, open.
        device: where features are computed.

    Returns:
        How the run ended, and the classifier with its head.

    Raises:
        Interrupted: by a signal; what was computed is kept.
    """
    began = time.monotonic()
    train, valid = data.train.thinned(MOST_EXAMPLES), data.valid.thinned(MOST_EXAMPLES)
    wide = SequenceClassifier(_with_pooling(network.config, "scales"))
    wide.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("head.")}, strict=False)
    wide.to(device).eval()
    place = folder.path / "features"
    place.mkdir(exist_ok=True)
    with StopSignals(say) as signals:
        parts = [
            features(wide, split, place / f"{name}.f32", name, lambda: signals.requested)
            for name, split in (("train", train), ("valid", valid))
        ]
    fit, columns = _best_head(parts[0], train.labels, parts[1], valid.labels, len(data.classes))
    whole = columns < parts[0].shape[1]
    fitted = SequenceClassifier(_with_pooling(network.config, "mean" if whole else "scales"))
    fitted.load_state_dict({k: v for k, v in wide.state_dict().items() if not k.startswith("head.")}, strict=False)
    weight, bias = fit.folded()
    with torch.no_grad():
        fitted.head.weight.copy_(torch.from_numpy(weight))
        fitted.head.bias.copy_(torch.from_numpy(bias))
    seconds = time.monotonic() - began
    n_bases = int(train.lengths().sum() + valid.lengths().sum())
    return RunResult(FROZEN, 0, n_bases, seconds, {}, None, 0, folder.path), fitted.eval()


def features(
    network: SequenceClassifier, examples: Examples, path: Path, name: str, stopped: Callable[[], str]
) -> np.ndarray:
    """Pooled outputs (M, F) of the frozen backbone, read from `path` as far as they are there, and kept there.

    Raises:
        Interrupted: `stopped` says by what.
    """
    width = network.head.in_features
    kept = path.stat().st_size // (4 * width) if path.exists() else 0
    device = next(network.parameters()).device
    rows_at_a_time = max(1, 8 * _BATCH_BASES // max(1, network.config.window))
    began, told, first = time.monotonic(), time.monotonic(), kept
    with path.open("r+b" if path.exists() else "w+b") as file, torch.inference_mode():
        file.truncate(4 * width * kept)  # a row that was cut off
        file.seek(0, 2)
        while kept < len(examples):
            last = min(kept + rows_at_a_time, len(examples))
            windows = [tokens.encode(examples.fetch(index)) for index in range(kept, last)]
            block = np.empty((len(windows), width), np.float32)
            for chosen in length_batches([len(window) for window in windows], _BATCH_BASES):
                ids, lengths = padded([windows[index] for index in chosen])
                block[chosen] = network.pooled(ids.to(device), lengths.to(device)).float().cpu().numpy()
            file.write(block.tobytes())
            file.flush()
            kept = last
            if stopped() and kept < len(examples):
                again = recorded_command("--resume")
                done = f"{kept:,} of {len(examples):,} sequences are done"
                raise Interrupted(f"stopped by {stopped()}; {done}. Go on with: {again}")
            now = time.monotonic()
            if now - told > _TOLD_EVERY:
                left = (now - began) / (kept - first) * (len(examples) - kept)
                say(f"features of {name}: {kept:,} of {len(examples):,} sequences, {clock(left)} left")
                told = now
    return np.fromfile(path, np.float32).reshape(-1, width)[: len(examples)]


def _best_head(
    train: np.ndarray, train_labels: np.ndarray, valid: np.ndarray, valid_labels: np.ndarray, n_classes: int
) -> tuple[LogisticFit, int]:
    """The regression under which validation is likeliest, and how many columns it reads."""
    found: list[tuple[float, LogisticFit, int]] = []
    for columns in sorted({train.shape[1] // SCALES, train.shape[1]}):
        for strength in STRENGTHS:
            fit = fit_logistic(train[:, :columns], train_labels, n_classes, strength)
            logits = fit.logits(valid[:, :columns])
            temperature = fit_temperature(valid_labels, logits, lowest=_LOWEST_TEMPERATURE)
            lost = negative_log_likelihood(valid_labels, softmax(logits, temperature))
            found.append((lost, fit, columns))
    _, fit, columns = min(found, key=lambda one: one[0])
    return fit, columns


def _with_pooling(config: ClassifierConfig, pooling: str) -> ClassifierConfig:
    return replace(config, head=config.head.model_copy(update={"pooling": pooling}))
