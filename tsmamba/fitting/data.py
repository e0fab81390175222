"""Batches of windows: shuffled and resumable in training, in their order for choosing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from mamba_data_prep.sampler import ResumableBatchSampler, SequentialBatchSampler
from tsmamba.panel.windows import Batch, Origins, Windows


class PanelBatches(Dataset[Batch]):
    """Whole batches of windows, by (epoch, number) pairs."""

    def __init__(self, windows: Windows, origins: Origins) -> None:
        self.windows, self.origins = windows, origins

    def __getitem__(self, keys: list[tuple[int, int]]) -> Batch:
        """The windows of these numbers."""
        return self.windows.batch(self.origins.take(np.array([number for _, number in keys], dtype=np.int64)))


class PanelData(LightningDataModule):
    """Training windows without end from `start_batch` on, and the held-back windows once.

    Args:
        windows: where they are read.
        train: origins of training.
        valid: origins that choose; at most `most_valid` of them are used, spread evenly.
        batch_size: windows of a step.
        seed: of the order.
    """

    start_batch: int = 0

    def __init__(
        self, windows: Windows, train: Origins, valid: Origins, *, batch_size: int, seed: int, most_valid: int = 4096
    ) -> None:
        super().__init__()
        self.windows, self.train, self.batch_size, self.seed = windows, train, batch_size, seed
        n = min(len(valid), most_valid)
        self.valid = valid.take(np.linspace(0, len(valid) - 1, n).round().astype(np.int64))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless; every window once an epoch."""
        rank, world = self._place()
        sampler = ResumableBatchSampler(len(self.train), self.batch_size, self.seed, rank, world, self.start_batch)
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Gives every held-back window once."""
        rank, world = self._place()
        return self._loader(self.valid, SequentialBatchSampler(len(self.valid), self.batch_size, rank, world))

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loader(self, origins: Origins, sampler: Iterable[list[tuple[int, int]]]) -> DataLoader[Batch]:
        # A batch is one item, gathered at once; a generator of its own: a loader without one draws a seed from the
        # global generator.
        return DataLoader(
            PanelBatches(self.windows, origins),
            sampler=sampler,  # pyright: ignore[reportArgumentType]
            batch_size=None,
            generator=torch.Generator(),
        )
