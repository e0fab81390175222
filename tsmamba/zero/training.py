"""Pre-training of the forecaster on synthetic series: batches without end, the loss, and one resumable run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mamba_training.optim import OptimSettings, build_optimizer
from mamba_training.run import RunResult, fit
from mamba_training.settings import RunSettings
from tsmamba.zero.features import Context, features
from tsmamba.zero.network import LEVELS, ZeroConfig, ZeroNetwork
from tsmamba.zero.prior import Drawn, draw

_VALIDATION_BATCHES = 48
_VALIDATION_SEED = 2**31 - 1
"""Batches that validate come from a seed of their own."""
_CALM = 0.25
_WILDEST = 1e4


class DrawnBatches(IterableDataset[Drawn]):
    """The prior's batches from one number on, dealt out over the processes of a run.

    Args:
        seed: of the prior.
        first: number of the first batch.
        step: how many processes draw.
        most: batches in all; None: without end.
    """

    def __init__(self, seed: int, first: int = 0, step: int = 1, most: int | None = None) -> None:
        self.seed, self.first, self.step, self.most = seed, first, step, most

    def __iter__(self) -> Iterator[Drawn]:
        """Draws one batch after another."""
        number = self.first
        while self.most is None or number < self.first + self.most * self.step:
            yield draw(self.seed, number)
            number += self.step


class PriorData(LightningDataModule):
    """Fresh synthetic series at every step, and the same few batches at every validation.

    Args:
        seed: of the prior.
    """

    start_batch: int = 0

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def train_dataloader(self) -> DataLoader[Drawn]:
        """Batches without end from `start_batch` on."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        return _loader(DrawnBatches(self.seed, self.start_batch * world + rank, world))

    def val_dataloader(self) -> DataLoader[Drawn]:
        """Batches of a seed of their own."""
        return _loader(DrawnBatches(_VALIDATION_SEED, most=_VALIDATION_BATCHES))


def _loader(batches: Iterable[Drawn]) -> DataLoader[Drawn]:
    # A loader without a generator of its own draws a seed from the global one.
    return DataLoader(batches, batch_size=None, generator=torch.Generator(), collate_fn=_itself)  # pyright: ignore[reportArgumentType]


def _itself(drawn: Drawn) -> Drawn:
    return drawn


class ZeroModule(LightningModule):
    """Trains a network on the pinball loss of its quantiles, in each series' own unit.

    Args:
        network: what is trained.
        lr: the highest learning rate.
    """

    levels: Tensor

    def __init__(self, network: ZeroNetwork, lr: float) -> None:
        super().__init__()
        self.network, self.lr = network, lr
        self.register_buffer("levels", torch.tensor(LEVELS), persistent=False)
        self._losses: list[Tensor] = []

    def training_step(self, batch: Drawn, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def loss(self, batch: Drawn) -> Float[Tensor, ""]:
        """Mean pinball loss (Koenker and Bassett 1978); series that move far from their base weigh less."""
        values = torch.from_numpy(batch.values).to(self.device)
        n_read = batch.seen.shape[1]
        seen, season, cycle = (torch.from_numpy(x).to(self.device) for x in (batch.seen, batch.season, batch.cycle))
        context, actual = Context(values[:, :n_read], seen, season, cycle), values[:, n_read:]
        horizon = actual.shape[1]
        found = features(context, horizon)
        error = (actual[..., None] - self.network(context, horizon)) / found.unit[..., None]
        losses = torch.maximum(self.levels * error, (self.levels - 1) * error).mean(dim=(1, 2))
        moved = ((actual - found.base) / found.unit).abs().mean(dim=1).clamp(max=_WILDEST)
        weight = (~found.constant[:, 0]) / (1 + _CALM * moved)
        return (losses * weight).mean()

    def tokens_in(self, batch: Drawn) -> int:
        """Counts the series of a batch."""
        return len(batch.values)

    def validation_step(self, batch: Drawn, batch_idx: int) -> None:
        """Collects the loss of a batch."""
        self._losses.append(self.loss(batch).double())

    def on_validation_epoch_end(self) -> None:
        """Logs the mean loss over the batches."""
        mean = torch.stack(self._losses).mean()
        self._losses.clear()
        self.log("val_loss", self.trainer.strategy.reduce(mean, reduce_op="mean"))  # pyright: ignore[reportArgumentType]

    def configure_optimizers(self) -> Any:
        """AdamW with a short warm-up and a cosine."""
        settings = OptimSettings(self.lr, self.lr * 0.01, warmup_fraction=0.01, weight_decay=0.02, betas=(0.9, 0.98))
        return build_optimizer(self, settings)


def train(network: ZeroNetwork, settings: RunSettings, lr: float, config: Mapping[str, Any]) -> RunResult:
    """One run, from its folder to the last weights.

    Args:
        network: what is trained; holds the trained weights afterwards, on the CPU.
        settings: of the run.
        lr: the highest learning rate.
        config: recorded in the run folder, and compared when the run is resumed.
    """
    result = fit(ZeroModule(network, lr), PriorData(settings.seed), settings, config=config, units=_words)
    network.to("cpu")
    return result


def run_settings(
    out: Path, *, max_steps: int | None, max_time: str | float | None, seed: int, device: str, resume: bool
) -> RunSettings:
    """How the run goes: a cosine to its end, whose last weights are kept."""
    return RunSettings(
        out=out, max_steps=max_steps, max_time=max_time, seed=seed, accelerator={"cuda": "gpu"}.get(device, device),
        devices=1, precision="32-true", grad_clip=1.0, val_every=0.02, resume=resume, checkpoint_every="60s",
        keep_best=False,
    )  # fmt: skip


def _words(metrics: Mapping[str, float]) -> str:
    """The progress line's words."""
    return ", ".join(f"{name} {metrics[name]:.4f}" for name in ("loss", "val_loss") if name in metrics)


def new_network(config: ZeroConfig, seed: int) -> ZeroNetwork:
    """A network with the initial weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ZeroNetwork(config)
