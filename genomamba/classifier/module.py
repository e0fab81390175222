"""The LightningModule that trains a classifier: weighted cross-entropy, validation by likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional

from genomamba.classifier.data import Batch
from genomamba.classifier.metrics import measure, softmax
from genomamba.classifier.network import SequenceClassifier
from genomamba.config import OptimConfig
from mamba_training.optim import configured

_WARMUP = 0.05
"""Share of the run in which the rate rises, where `warmup_steps` is null."""


class FinetuneModule(LightningModule):
    """One classifier and its loss.

    Args:
        model: the classifier.
        optim: AdamW's settings.
        class_weights: (C,), or None for none.
    """

    class_weights: Tensor | None

    def __init__(self, model: SequenceClassifier, optim: OptimConfig, class_weights: Tensor | None) -> None:
        super().__init__()
        self.model, self.optim = model, optim
        self.register_buffer("class_weights", class_weights, persistent=False)
        self._seen: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean weighted cross-entropy in nats."""
        logits = self.model(batch.ids, batch.lengths).float()
        loss = functional.cross_entropy(
            logits, batch.labels, self.class_weights, label_smoothing=self.model.config.head.label_smoothing
        )
        self.log("loss", loss)
        return loss

    def tokens_in(self, batch: Batch) -> int:
        """Bases in a batch, padding excluded."""
        return int(batch.lengths.sum())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps logits until the split is complete."""
        self._seen.append((self.model(batch.ids, batch.lengths).float(), batch.labels))

    def on_validation_epoch_end(self) -> None:
        """Logs loss (weighted as in training), accuracy and MCC of the whole validation split."""
        logits = self._gathered(torch.cat([part for part, _ in self._seen]))
        labels = self._gathered(torch.cat([part for _, part in self._seen]))
        self._seen.clear()
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        metrics = measure(labels.cpu().numpy(), softmax(logits.cpu().numpy().astype(np.float64)))
        loss = functional.cross_entropy(logits, labels, weights)
        self.log_dict({"val_loss": loss, "val_accuracy": metrics.accuracy, "val_mcc": metrics.mcc}, prog_bar=True)

    def _gathered(self, part: Tensor) -> Tensor:
        """The rows of all ranks; ranks may hold different numbers of them."""
        if self.trainer.world_size == 1:
            return part
        counts = torch.as_tensor(self.all_gather(torch.tensor(len(part), device=part.device))).tolist()
        padded = functional.pad(part, (0, 0) * (part.ndim - 1) + (0, max(counts) - len(part)))
        rows = torch.as_tensor(self.all_gather(padded))
        return torch.cat([rank[:count] for rank, count in zip(rows, counts, strict=True)])

    def configure_optimizers(self) -> Any:
        """AdamW; the run sets the learning rate at each step."""
        return configured(self, self.optim, warmup_fraction=_WARMUP)
