"""Batches of labelled sequences: resumable in training, in a fixed order in validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genomamba import tokens
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.prediction.predictor import padded
from mamba_data_prep.sampler import ResumableBatchSampler, SequentialBatchSampler, hashes


class Batch(NamedTuple):
    """Token ids (B, L) padded on the right, lengths (B,), labels (B,)."""

    ids: Tensor
    lengths: Tensor
    labels: Tensor


class LabelledDataset(Dataset[tuple[np.ndarray, int]]):
    """Examples as token ids, augmented anew in each epoch.

    Every draw is made from a hash of (seed, epoch, index), so it does not depend on workers or on where a run was
    resumed.

    Args:
        examples: the sequences.
        seed: of the augmentation.
        flip: give half of the examples as their reverse complement.
        mutate: share of the bases that random ones replace.
    """

    def __init__(self, examples: Examples, *, seed: int = 0, flip: bool = False, mutate: float = 0.0) -> None:
        self.examples, self.seed, self.flip, self.mutate = examples, seed, flip, mutate

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, int]:
        """Token ids and label of (epoch, index)."""
        epoch, index = key
        ids = tokens.encode(self.examples.fetch(index))
        draw = int(hashes(self.seed, epoch, np.array([index], np.uint64))[0])
        if self.flip and draw & 1:
            ids = tokens.reverse_complement(ids)
        if self.mutate:
            rng = np.random.default_rng(draw)
            random = rng.integers(tokens.FIRST_BASE, tokens.FIRST_BASE + 4, len(ids), dtype=np.uint8)
            ids = np.where(rng.random(len(ids)) < self.mutate, random, ids)
        return ids, int(self.examples.labels[index])


def collate(items: Sequence[tuple[np.ndarray, int]]) -> Batch:
    """Pads sequences to the longest of the batch."""
    ids, lengths = padded([ids for ids, _ in items])
    return Batch(ids, lengths, torch.tensor([label for _, label in items]))


class FinetuneDataModule(LightningDataModule):
    """Training batches without end from `start_batch` on, and the validation split in its own order."""

    def __init__(
        self, data: LabelledData, batch_size: int, *, seed: int, flip: bool, mutate: float, workers: int
    ) -> None:
        super().__init__()
        self.data, self.batch_size, self.seed, self.workers = data, batch_size, seed, workers
        self.flip, self.mutate = flip, mutate
        self.start_batch = 0

    def train_dataloader(self) -> DataLoader[tuple[np.ndarray, int]]:
        """Endless; every example once an epoch."""
        rank, world = self._place()
        sampler = ResumableBatchSampler(len(self.data.train), self.batch_size, self.seed, rank, world, self.start_batch)
        return self._loader(
            LabelledDataset(self.data.train, seed=self.seed, flip=self.flip, mutate=self.mutate), sampler
        )

    def val_dataloader(self) -> DataLoader[tuple[np.ndarray, int]]:
        """Gives every validation example once."""
        rank, world = self._place()
        sampler = SequentialBatchSampler(len(self.data.valid), self.batch_size, rank, world)
        return self._loader(LabelledDataset(self.data.valid), sampler)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loader(
        self, dataset: LabelledDataset, sampler: ResumableBatchSampler | SequentialBatchSampler
    ) -> DataLoader[tuple[np.ndarray, int]]:
        # A generator of its own: a loader without one draws a seed from the global generator.
        return DataLoader(
            dataset,
            batch_sampler=sampler,  # pyright: ignore[reportArgumentType]
            collate_fn=collate,
            num_workers=self.workers,
            generator=torch.Generator(),
        )
