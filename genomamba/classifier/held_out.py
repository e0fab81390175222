"""A trained classifier joined with its regression by validation, and scored on its held-out splits, each once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from genomamba import tokens
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.kmers import Regression
from genomamba.classifier.linear import LinearPart
from genomamba.classifier.metrics import fit_temperature, measure, softmax
from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.report import SeedResult
from genomamba.classifier.shares import choose_shares
from genomamba.prediction.predictor import Predictor
from mamba_training.run import RunResult

_EVALUATION_BASES = 2**16


def judge_seed(
    network: SequenceClassifier,
    data: LabelledData,
    seed: int,
    folder: Path,
    run: RunResult,
    device: torch.device,
    regression: Regression,
) -> SeedResult:
    """Join network and regression by the shares that validation says, which temper them too, and score both splits.

    Args:
        network: trained; it is back on the CPU afterwards, with the regression as its linear part.
        data: the splits.
        seed: of the run.
        folder: of the run.
        run: how it ended.
        device: where to score.
        regression: fitted on the training split.
    """
    network.to(device)
    deep = [logits_of(network, split, device) for split in (data.valid, data.test)]
    network.cpu()
    linear = LinearPart.of(regression.fit, regression.shape)
    network.join(linear, (1.0, 0.0))
    flat = [logits_of(network, split, torch.device("cpu")) for split in (data.valid, data.test)]
    shares = choose_shares(data.valid.labels, flat[0], deep[0])
    network.join(linear, (shares.linear, shares.network))
    valid, test = (shares.linear * one + shares.network * other for one, other in zip(flat, deep, strict=True))
    probabilities = softmax(test)
    alone = softmax(deep[1], fit_temperature(data.valid.labels, deep[0]))
    return SeedResult(
        seed=seed, status=run.status, steps=run.step, seconds=run.seconds, shares=shares,
        valid=measure(data.valid.labels, softmax(valid)), test=measure(data.test.labels, probabilities),
        network=measure(data.test.labels, alone), probabilities=probabilities, folder=folder,
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
