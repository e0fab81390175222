"""A tiny model and a tiny stream of tokens; programs that tests start and kill train them too."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from mamba_training.optim import OptimSettings, build_optimizer

LENGTH, VOCABULARY = 12, 7


class ToyModel(LightningModule):
    """An embedding, dropout (so that random numbers matter) and a linear layer that predict the next token."""

    def __init__(self, width: int = 8, dropout: float = 0.2, optim: OptimSettings | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.mixer = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, VOCABULARY)
        self.optim = optim or OptimSettings(lr=1e-2, warmup_steps=3)
        self.seen: list[tuple[int, int]] = []

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.dropout(torch.tanh(self.mixer(self.embedding(ids)))))

    def loss(self, ids: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append((batch_idx, int(batch.sum())))
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        torch.rand(3)
        self.log("val_loss", self.loss(batch), batch_size=len(batch))

    def tokens_in(self, batch: Tensor) -> int:
        return batch[:, 1:].numel()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self, self.optim)


class Tokens(Dataset[Tensor]):
    """Random sequences, each a function of its index alone."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Tensor:
        return torch.randint(0, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(index))


class Endless(Sampler[list[int]]):
    """Shuffled batches without an end, from `start_batch` on; each of `world_size` ranks has its part of a batch."""

    def __init__(self, batch_size: int, start_batch: int, rank: int, world_size: int) -> None:
        self.batch_size, self.start_batch, self.rank, self.world_size = batch_size, start_batch, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        stride = self.batch_size * self.world_size
        position = self.start_batch * stride + self.rank * self.batch_size
        while True:
            batch = []
            for where in range(position, position + self.batch_size):
                epoch, index = divmod(where, 40)
                batch.append(int(torch.randperm(40, generator=torch.Generator().manual_seed(epoch))[index]))
            yield batch
            position += stride


class ToyData(LightningDataModule):
    """Tokens in shuffled batches, and eight sequences held out."""

    def __init__(self, batch_size: int = 3, workers: int = 0) -> None:
        super().__init__()
        self.batch_size, self.workers, self.start_batch = batch_size, workers, 0

    def train_dataloader(self) -> DataLoader[Tensor]:
        assert self.trainer is not None
        sampler = Endless(self.batch_size, self.start_batch, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(Tokens(), batch_sampler=sampler, num_workers=self.workers)

    def batches(self) -> Iterator[Tensor]:
        """The training batches of a single process, from the first on."""
        for indices in Endless(self.batch_size, 0, 0, 1):
            yield torch.stack([Tokens()[index] for index in indices])

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(Subset(Tokens(), range(8)), batch_size=4)
