"""The LightningModule that trains a language model, and validates it in bits beside the baseline."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Integer
from lightning.pytorch import LightningModule
from torch import Tensor

from genomamba.config import OptimConfig
from genomamba.language_model.context_table import Codes
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.objectives import IGNORED, Question, asked_nats
from genomamba.language_model.scoring import LanguageScore
from genomamba.language_model.sided_table import SidedCodes
from mamba_training.context_parallel import ContextPlace
from mamba_training.optim import configured


class Pretraining(LightningModule):
    """A model's objective with AdamW.

    Args:
        model: what is trained.
        optim: rates and decay.
        left_out: gives the codewords of the table of contexts at each position of what is read of training windows,
            from the counts of all other windows; None for a model without a table.
        markov_bits: gives the baseline's bits per base on the validation windows after so many optimizer steps, or None
            when that would take too long.
    """

    def __init__(
        self,
        model: GenomeLM,
        optim: OptimConfig,
        markov_bits: Callable[[int], float | None] | None = None,
        left_out: Callable[[Tensor, Tensor], Codes | SidedCodes] | None = None,
    ) -> None:
        super().__init__()
        self.left_out = left_out
        self.model, self.optim, self.markov_bits = model, optim, markov_bits
        self.context = ContextPlace()
        self._validation: list[Tensor] = []

    def training_step(self, batch: Integer[Tensor, "B L"], batch_idx: int) -> Float[Tensor, ""]:
        """Mean nats per base of a batch; of a part of its windows, so that the mean over all parts is that."""
        question = self.model.objective.training(batch)
        total, n_targets = self._nats(
            question, None if self.left_out is None else self.left_out(batch, question.inputs)
        )
        if self.context.size > 1:
            total, n_targets = self.context.size * total, (question.targets != IGNORED).sum()
        return total / n_targets.clamp(min=1)

    def _nats(
        self, question: Question, codes: Codes | SidedCodes | None
    ) -> tuple[Float[Tensor, ""], Integer[Tensor, ""]]:
        """The nats of this rank's part of the windows, and the bases asked for there."""
        if self.context.size > 1:
            part = self.context.part(question.inputs.shape[1] - int(self.model.objective.looks_ahead))
            if codes is None and self.model.table is not None:
                codes = self.model.table.lookup(question.inputs)
            question, codes = question.part(part), None if codes is None else codes.part(part)
        nats, n_targets = asked_nats(self.model(question.inputs, codes), question.targets)
        return nats.sum(), n_targets.sum()

    def tokens_in(self, batch: Integer[Tensor, "B L"]) -> int:
        """Counts the positions of a batch."""
        return batch.numel()

    def validation_step(self, batch: Integer[Tensor, "B L"], batch_idx: int) -> None:
        """Adds up a batch's nats and its bases."""
        question = self.model.objective.scoring(batch)
        self._validation.append(torch.stack([part.double() for part in self._nats(question, None)]))

    def on_validation_epoch_end(self) -> None:
        """Logs loss (nats per base), bits per base, perplexity, and the Markov model's bits per base."""
        sums = torch.stack([*self._validation, torch.zeros(2, dtype=torch.float64, device=self.device)]).sum(dim=0)
        self._validation.clear()
        nats, n_bases = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()  # pyright: ignore[reportAttributeAccessIssue]
        scored = LanguageScore(nats / max(1.0, n_bases), int(n_bases))
        values = {"val_loss": scored.nats, "val_bits": scored.bits, "val_perplexity": scored.perplexity}
        if self.markov_bits is not None and self.trainer.is_global_zero:
            markov = self.markov_bits(self.trainer.global_step)
            values |= {} if markov is None else {"markov_bits": markov}
        self.log_dict(values, rank_zero_only=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW that leaves norms, biases, A and D undecayed."""
        return configured(self, self.optim)
