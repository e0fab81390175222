"""The LightningModules that train forecasters, and the losses they minimise."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional

from mamba_training.optim import OptimSettings, build_optimizer, param_groups
from tsmamba.config import Note, TrainConfig
from tsmamba.fitting.shrinkage import SHRINKAGES, best_shrinkage, mean_errors, shrinkage_errors
from tsmamba.networks.base import ForecastModel
from tsmamba.networks.causal import CausalModel
from tsmamba.networks.residual import ResidualModel
from tsmamba.networks.tsmamba import TSMamba
from tsmamba.panel.windows import Batch

HUBER = 0.5
"""Where Huber's loss turns from square to straight, in scaled units."""

ENCODER_RATE = 0.1
BETAS = {"cosine": (0.9, 0.98), "halving": (0.9, 0.999)}
"""AdamW's betas for each schedule; halving the rate is the published long-horizon models' recipe, with Adam's own."""

_WARMUP = 0.1


def point_loss(kind: str, error: Float[Tensor, "*rows H"], known: Bool[Tensor, "*rows H"]) -> Float[Tensor, ""]:
    """Mean loss of the errors of observed values: square (mse), absolute (mae) or Huber's (huber)."""
    error = error * known  # no value, no loss: cheaper than picking out those that were observed
    if kind == "huber":
        total = functional.smooth_l1_loss(error, torch.zeros_like(error), beta=HUBER, reduction="sum")
    else:
        total = (error.square() if kind == "mse" else error.abs()).sum()
    return total / known.sum().clamp(min=1)


def pinball_loss(
    quantiles: Float[Tensor, "*rows H Q"], y: Float[Tensor, "*rows H"], known: Tensor, levels: Tensor
) -> Float[Tensor, ""]:
    """Mean pinball loss over levels and observed values (Koenker and Bassett 1978)."""
    error = (y[..., None] - quantiles) * known[..., None]
    losses = torch.maximum(levels * error, (levels - 1) * error).sum()
    return losses / (known.sum().clamp(min=1) * len(levels))


class ForecastModule(LightningModule):
    """A forecaster with its loss; validation logs the mean square and absolute error.

    Args:
        model: what is trained.
        train: loss, rate and decay.
    """

    def __init__(self, model: ForecastModel, train: TrainConfig) -> None:
        super().__init__()
        self.model, self.train_config = model, train
        self._errors: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch in scaled units."""
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Computes the point forecast's loss."""
        return point_loss(self.train_config.loss, self.model.point(batch) - batch.y, batch.known)

    def tokens_in(self, batch: Batch) -> int:
        """Counts the observed values to forecast."""
        return max(int(batch.known.sum()), 1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds up the errors of a batch."""
        error = (self.model.point(batch) - batch.y)[batch.known].double()
        self._errors.append(torch.stack([error.square().sum(), error.abs().sum(), error.new_tensor(len(error))]))

    def on_validation_epoch_end(self) -> None:
        """Logs MSE and MAE; the loss is the one that is trained for, or MSE where that is Huber's."""
        square, absolute, n = self._summed().tolist()
        mse, mae = square / max(n, 1.0), absolute / max(n, 1.0)
        self.log_dict({"val_loss": mae if self.train_config.loss == "mae" else mse, "val_mse": mse, "val_mae": mae})

    def _summed(self) -> Tensor:
        sums = torch.stack(self._errors).sum(dim=0)
        self._errors.clear()
        return self.trainer.strategy.reduce(sums, reduce_op="sum")  # pyright: ignore[reportReturnType]

    def configure_optimizers(self) -> Any:
        """AdamW; the run sets the learning rate at each step."""
        groups = param_groups(self, self.train_config.weight_decay)
        if self.train_config.schedule == "halving":
            groups = [{**group, "stretches": self.train_config.epochs} for group in groups]
        return build_optimizer(self, self._optim(), groups=groups)

    def _optim(self) -> OptimSettings:
        train = self.train_config
        return OptimSettings(
            lr=train.lr, min_lr=train.lr * 0.01, warmup_fraction=_WARMUP, weight_decay=train.weight_decay,
            betas=BETAS[train.schedule],
        )  # fmt: skip


class TellSteps(Callback):
    """Tells after each step how far training has come.

    Args:
        note: is told.
        total: steps of the run.
    """

    def __init__(self, note: Note, total: int | None) -> None:
        self.note, self.total = note, total

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Counts one more step as done."""
        done = getattr(trainer, "datamodule").start_batch + batch_idx + 1  # noqa: B009  (Lightning does not declare it)
        self.note(f"step {done:,}" + ("" if self.total is None else f" of {self.total:,}"))


class ResidualModule(ForecastModule):
    """Trains what is added to the ridge, and the quantiles' spread; validation finds the best shrinkage.

    Args:
        model: what is trained; its ridge stays as it is.
        train: loss, rate and decay.
        levels: of the quantiles.
    """

    model: ResidualModel
    levels: Tensor

    def __init__(self, model: ResidualModel, train: TrainConfig, levels: tuple[float, ...]) -> None:
        super().__init__(model, train)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The point forecast's loss, and the pinball loss of quantiles around the point forecast as it stands."""
        base, added, log_spread = self.model.parts(batch)
        point = base + added
        quantiles = self.model.output(point.detach(), log_spread).quantiles
        spread = pinball_loss(quantiles, batch.y, batch.known, self.levels)
        return point_loss(self.train_config.loss, point - batch.y, batch.known) + spread

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds up the errors at each shrinkage."""
        self._errors.append(shrinkage_errors(self.model, batch).sum(dim=0))

    def on_validation_epoch_end(self) -> None:
        """Logs the errors at the best shrinkage."""
        mse, mae = mean_errors(self._summed())
        best = best_shrinkage(mse, mae)
        self.log_dict(
            {
                "val_loss": float(mae[best]), "val_mse": float(mse[best]), "val_mae": float(mae[best]),
                "val_shrinkage": SHRINKAGES[best],
            }
        )  # fmt: skip


class CausalModule(ForecastModule):
    """Trains a causal forecaster on the forecasts after every row of a window at once."""

    model: CausalModel

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The loss over all rows after the first few, which have too little behind them."""
        horizon, lookback = self.model.shape.horizon, self.model.shape.lookback
        first = lookback // 8
        rows = torch.cat([batch.x, batch.y], dim=-1)[..., 1:].unfold(-1, horizon, 1)
        known = torch.cat([batch.seen, batch.known], dim=-1)[..., 1:].unfold(-1, horizon, 1)
        error = self.model.every_row(batch)[:, :, first:] - rows[:, :, first:]
        return point_loss(self.train_config.loss, error, known[:, :, first:])


class PretrainModule(ForecastModule):
    """Stage 1 of TSMamba: the forward encoder predicts the next rows, the backward one those before."""

    model: TSMamba

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The sum of both encoders' losses."""
        ahead, back = self.model.self_supervised_errors(batch)
        everywhere = torch.ones((), dtype=torch.bool, device=ahead.device)
        parts = [point_loss(self.train_config.loss, part, everywhere.expand(part.shape)) for part in (ahead, back)]
        return parts[0] + parts[1]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds up both encoders' errors."""
        error = torch.cat([part.flatten() for part in self.model.self_supervised_errors(batch)]).double()
        self._errors.append(torch.stack([error.square().sum(), error.abs().sum(), error.new_tensor(len(error))]))


class HeadModule(ForecastModule):
    """Stages 2 and 3 of TSMamba: head, alignment and attention at the full rate, the encoders at a small one."""

    model: TSMamba

    def configure_optimizers(self) -> Any:
        """AdamW with a tenth of the rate for what stage 1 trained."""
        train, trained = self.train_config, ("embed", "forward_encoder", "backward_encoder")
        slow = [p for name, p in self.model.named_parameters() if name.startswith(trained)]
        fast = [p for name, p in self.model.named_parameters() if not name.startswith(trained)]
        groups = [
            {"params": slow, "max_lr": train.lr * ENCODER_RATE, "min_lr": train.lr * ENCODER_RATE * 0.01},
            {"params": fast, "max_lr": train.lr, "min_lr": train.lr * 0.01},
        ]
        for group in groups:
            group["weight_decay"] = train.weight_decay
        return build_optimizer(self, self._optim(), groups=groups)


def module_for(model: ForecastModel, train: TrainConfig, levels: tuple[float, ...]) -> ForecastModule:
    """The module that trains a model."""
    if isinstance(model, ResidualModel):
        return ResidualModule(model, train, levels)
    return CausalModule(model, train) if isinstance(model, CausalModel) else ForecastModule(model, train)
