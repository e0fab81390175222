"""The number that is explained: the log-odds of a class, or the log-likelihood of a sequence.

Shapes: `B` sequences of the same length `L`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from genomamba import tokens
from genomamba.classifier.network import SequenceClassifier
from genomamba.language_model.model import GenomeLM, window_nats
from mamba_data_prep.errors import UserError


@dataclass
class ClassOdds:
    """Log-odds of one class against all others.

    Args:
        model: the classifier.
        class_name: one of its classes.

    Raises:
        UserError: it has no such class.
    """

    model: SequenceClassifier
    class_name: str

    def __post_init__(self) -> None:
        classes = self.model.config.classes
        if self.class_name not in classes:
            raise UserError("the model has no such class", found=self.class_name, accepted=", ".join(classes))
        self._number = classes.index(self.class_name)
        self.name = f"log-odds of {self.class_name}, bits"
        self.letters: nn.Module = self.model.stem.letters if self.model.config.stem.taps else self.model.embedding
        self.layers = self.model.backbone.blocks

    def __call__(self, ids: Integer[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """The log-odds in each sequence."""
        lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
        logits = self.model(ids, lengths).double() / self.model.config.temperature
        others = torch.cat([logits[:, : self._number], logits[:, self._number + 1 :]], dim=1)
        return (logits[:, self._number] - others.logsumexp(1)) / math.log(2)


@dataclass
class Likelihood:
    """Log-likelihood of the bases after the first one, each given those before it.

    Args:
        model: a causal language model.
    """

    model: GenomeLM

    def __post_init__(self) -> None:
        self.name = "log-likelihood, bits"
        self.letters: nn.Module = self.model.embedding
        self.layers = self.model.backbone.blocks

    def __call__(self, ids: Integer[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """The log-likelihood of each sequence."""
        return -window_nats(self.model(ids), ids)[0].double() / math.log(2)


Target = ClassOdds | Likelihood
"""A number for each sequence, in bits, that gradients tell of; `letters` turns ids into what the network reads."""


@dataclass
class HiddenBases:
    """Log-probabilities of single bases of which each alone is hidden; a masked model has no other number.

    Args:
        model: a masked language model.
    """

    model: GenomeLM

    def __post_init__(self) -> None:
        self.name = "log-probability of the hidden base, bits"
        self.layers = self.model.backbone.blocks

    def log_probabilities(self, ids: Integer[Tensor, " L"], places: Integer[Tensor, " n"]) -> Float[Tensor, "n 4"]:
        """Log-probabilities, in bits, of A, C, G and T at each of some places when that base is hidden."""
        hidden = ids.repeat(len(places), 1)
        rows = torch.arange(len(places), device=ids.device)
        hidden[rows, places] = tokens.MASK
        logits = self.model(hidden)[rows, places, tokens.FIRST_BASE : tokens.FIRST_BASE + 4]
        return logits.double().log_softmax(1) / math.log(2)
