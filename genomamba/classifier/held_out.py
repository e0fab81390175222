"""A trained classifier joined with its regression by validation, and scored on its held-out splits, each once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from genomamba import tokens
from genomamba.classifier.baselines import Baselines
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.linear import LinearPart
from genomamba.classifier.metrics import fit_temperature, measure, softmax
from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.report import SeedResult
from genomamba.classifier.shares import added, choose_shares
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
    baselines: Baselines,
) -> SeedResult:
    """Join the network with the baselines by the shares that validation says, which temper them too, and score it.

    Args:
        network: trained; it is back on the CPU afterwards, with the regression as its linear part.
        data: the splits.
        seed: of the run.
        folder: of the run.
        run: how it ended.
        device: where to score.
        baselines: fitted on the training split.
    """
    network.to(device)
    held_out = (data.valid, data.test)
    deep = [logits_of(network, split, device) for split in held_out]
    network.cpu()
    linear = LinearPart.of(baselines.regression.fit, baselines.regression.shape)
    cnn = None if baselines.cnn is None else baselines.cnn.network
    named: list[dict[str, np.ndarray]] = [{}, {}]
    for name in ("linear", "network", *([] if cnn is None else ["cnn"])):
        network.join(linear, cnn, {"linear": 0.0, "network": 0.0, "cnn": 0.0, name: 1.0})
        for found, split, own in zip(named, held_out, deep, strict=True):
            found[name] = own if name == "network" else logits_of(network, split, torch.device("cpu"))
    shares = choose_shares(data.valid.labels, named[0])
    network.join(linear, cnn, shares.factors)
    valid, test = (added(shares.factors, found) for found in named)
    probabilities = softmax(test)
    alone = softmax(deep[1], fit_temperature(data.valid.labels, deep[0]))
    return SeedResult(
        seed=seed, status=run.status, steps=run.step, seconds=run.seconds, shares=shares,
        valid=measure(data.valid.labels, softmax(valid)), test=measure(data.test.labels, probabilities),
        network=measure(data.test.labels, alone),
        without=measure(data.test.labels, softmax(added(shares.without, named[1]))),
        probabilities=probabilities, folder=folder,
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
