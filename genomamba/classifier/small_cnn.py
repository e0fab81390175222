"""A small convolutional network, trained where sequences are aligned, as promoters are: a baseline and a part.

Two convolutions and a dense layer over all places, of the kind of DeePromoter (Oubounyt et al. 2019): scanners of 15
bases, the strongest response of each 6 bases, scanners of 5 responses, dropout, 64 units. It stops when validation no
longer improves and keeps the weights that were best there.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional

from genomamba.classifier.linear import letters_at_places
from genomamba.classifier.metrics import Metrics, fit_temperature, measure, negative_log_likelihood, softmax

EPOCHS: Final = 20
PATIENCE: Final = 4
_BATCH: Final = 64
_RATE: Final = 1e-3


class SmallCnn(nn.Sequential):
    """Logits (B, C) of one-hot letters (B, 4, places)."""

    def __init__(self, places: int, n_classes: int) -> None:
        self.places = places
        super().__init__(
            nn.Conv1d(4, 64, 15, padding=7), nn.ReLU(), nn.MaxPool1d(6, ceil_mode=True), nn.Dropout(0.2),
            nn.Conv1d(64, 64, 5, padding=2), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(64 * -(-places // 6), 64), nn.ReLU(), nn.Linear(64, n_classes),
        )  # fmt: skip

    def of_ids(self, ids: Integer[Tensor, "B L"], lengths: Integer[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Logits of token ids padded on the right; what lies beyond the places is not looked at."""
        return self(letters_at_places(ids, lengths, self.places).transpose(1, 2))


@dataclass(frozen=True, eq=False)
class CnnResult:
    """A trained network and its scores.

    Attributes:
        network: in evaluation mode.
        epochs: passes over the training split until it stopped.
        temperature: divides the logits, fitted on validation.
        probabilities: of the test examples, (M, C).
    """

    network: SmallCnn
    epochs: int
    temperature: float
    validation: Metrics
    test: Metrics
    probabilities: np.ndarray

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON (probabilities left out)."""
        return {
            "epochs": self.epochs,
            "temperature": self.temperature,
            "validation": self.validation.to_dict(),
            "test": self.test.to_dict(),
        }


def cnn_baseline(
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    n_classes: int,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> CnnResult:
    """Trains on one split, stops and tempers on another, scores the third once.

    Args:
        train, valid, test: one-hot letters, float32 (M, 4 places), and labels.
        n_classes: of the logits.
        seed: of the weights and the order; the caller's random numbers stay as they were.
        epochs: at most so many passes.
    """
    rows = [torch.from_numpy(split[0]).reshape(len(split[0]), -1, 4).transpose(1, 2) for split in (train, valid, test)]
    labels = torch.from_numpy(train[1])
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        network = SmallCnn(rows[0].shape[2], n_classes)
        optimizer = torch.optim.Adam(network.parameters(), _RATE, weight_decay=1e-5)
        best, kept, since, epoch = np.inf, copy.deepcopy(network.state_dict()), 0, 0
        while epoch < epochs and since < PATIENCE:
            epoch += 1
            network.train()
            for part in torch.randperm(len(labels)).split(_BATCH):
                optimizer.zero_grad()
                functional.cross_entropy(network(rows[0][part]), labels[part]).backward()
                optimizer.step()
            lost = negative_log_likelihood(valid[1], softmax(_logits(network, rows[1])))
            since += 1
            if lost < best:
                best, kept, since = lost, copy.deepcopy(network.state_dict()), 0
        network.load_state_dict(kept)
    on_valid, on_test = (_logits(network, part) for part in rows[1:])
    temperature = fit_temperature(valid[1], on_valid)
    probabilities = softmax(on_test, temperature)
    return CnnResult(
        network.eval(), epoch, temperature, measure(valid[1], softmax(on_valid, temperature)),
        measure(test[1], probabilities), probabilities,
    )  # fmt: skip


@torch.no_grad()
def _logits(network: SmallCnn, rows: Tensor) -> np.ndarray:
    network.eval()
    return torch.cat([network(part) for part in rows.split(1024)]).double().numpy()
