"""A trained classifier scored on its held-out splits, each once, with a temperature fitted on validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from genomamba import tokens
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.metrics import fit_temperature, measure, softmax
from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.report import SeedResult
from genomamba.prediction.predictor import Predictor
from mamba_training.run import RunResult

_EVALUATION_BASES = 2**16


def judge_seed(
    network: SequenceClassifier, data: LabelledData, seed: int, folder: Path, run: RunResult, device: torch.device
) -> SeedResult:
    """Fit the temperature on validation, which the network keeps, and score both held-out splits.

    Args:
        network: trained; it is back on the CPU afterwards.
        data: the splits.
        seed: of the run.
        folder: of the run.
        run: how it ended.
        device: where to score.
    """
    network.to(device)
    valid, test = (logits_of(network, split, device) for split in (data.valid, data.test))
    network.cpu()
    temperature = fit_temperature(data.valid.labels, valid)
    network.config = replace(network.config, temperature=temperature)
    probabilities = softmax(test, temperature)
    return SeedResult(
        seed=seed, status=run.status, steps=run.step, seconds=run.seconds, temperature=temperature,
        valid=measure(data.valid.labels, softmax(valid, temperature)), test=measure(data.test.labels, probabilities),
        raw_ece=measure(data.test.labels, softmax(test)).ece, probabilities=probabilities, folder=folder,
    )  # fmt: skip


def logits_of(network: SequenceClassifier, examples: Examples, device: torch.device) -> np.ndarray:
    """Logits (M, C) of a split, read piece by piece."""
    predictor = Predictor(network, device, _EVALUATION_BASES)
    piece = max(4 * _EVALUATION_BASES // max(network.config.window, 1), 1)
    parts = [
        predictor.logits([tokens.encode(examples.fetch(i)) for i in range(first, min(first + piece, len(examples)))])
        for first in range(0, len(examples), piece)
    ]
    return np.concatenate(parts)
