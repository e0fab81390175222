"""The DNA language model: embedding, backbone, and the embedding again as output layer.

Shapes: `B` windows, `L` positions, `D` channels of the residual stream, `V` = 16 rows of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional

from genomamba import tokens
from genomamba.config import ModelConfig, ObjectiveConfig, TableShape
from genomamba.language_model.context_table import LONG_ORDER, Codes, Counted
from genomamba.language_model.embedding import TokenEmbedding
from genomamba.language_model.objectives import Objective, asked_nats, next_base
from genomamba.language_model.sided_table import SidedCodes, SidedCounted, context_table
from mamba_configs.settings import validated
from mamba_data_prep.errors import UserError
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_kernels.blocks.backbone import BackboneState

BUNDLE_KIND: Final = "genomamba-lm"
NEVER: Final = -1e4
"""Added to the logits of tokens that are never targets, so that a softmax over all tokens is one over A, C, G, T."""


class Carried(NamedTuple):
    """What a causal model keeps of a sequence from one piece to the next.

    Attributes:
        recent: (B, R) the last tokens, as many as the table's contexts reach back; R is less only at the beginning.
        layers: the state of each layer.
    """

    recent: Integer[Tensor, "B R"]
    layers: BackboneState

    def rows(self, index: Integer[Tensor, " M"]) -> Carried:
        """What is kept of the rows of these numbers, which may repeat: one beginning may have several ends."""
        return Carried(self.recent[index], tuple(tuple(part[index] for part in layer) for layer in self.layers))


class Advanced(NamedTuple):
    """What a causal model makes of a piece.

    Attributes:
        logits: (B, L, V) as of `GenomeLM.forward`.
        hidden: (B, L, D) as of `GenomeLM.embeddings`.
        carried: for the next piece.
    """

    logits: Float[Tensor, "B L V"]
    hidden: Float[Tensor, "B L D"]
    carried: Carried


class GenomeLM(nn.Module):
    """Predicts the next base from all bases before it, or, masked, hidden bases from those on both sides.

    The output layer is the embedding (tied), unless the configuration says otherwise: then it is `lm_head`. With a
    table of contexts it is `lm_head` too, and starts at zero: before training the model says what the table says.

    Args:
        config: the network's shape.
        table: the shape of the table of contexts, or None for a network alone.
        objective: what it is asked; by default the next base.
    """

    never: Tensor

    def __init__(
        self, config: ModelConfig, table: TableShape | None = None, objective: ObjectiveConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.objective = Objective(objective or ObjectiveConfig())
        self.embedding = TokenEmbedding(config)
        self.backbone = Backbone(backbone_config(config))
        tied = config.tie_embeddings and table is None
        self.lm_head = None if tied else _output_layer(config)
        self.table = None if table is None else context_table(table, config)
        if self.table is not None and self.lm_head is not None:
            nn.init.zeros_(self.lm_head.weight)
        never = torch.full((tokens.VOCAB_SIZE,), NEVER)
        never[tokens.FIRST_BASE : tokens.FIRST_BASE + 4] = 0.0
        self.register_buffer("never", never, persistent=False)

    def embeddings(self, ids: Integer[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The normalised hidden vector of each position; it knows that base and those before it."""
        return self._hidden(ids, self.counted(ids))[0]

    def counted(self, ids: Integer[Tensor, "B L"]) -> Counted | SidedCounted | None:
        """What the table of contexts says at each position; None for a network alone."""
        return None if self.table is None else self.table.counted(self.table.lookup(ids))

    def forward(self, ids: Integer[Tensor, "B L"], codes: Codes | SidedCodes | None = None) -> Float[Tensor, "B L V"]:
        """Logits: those at position t predict the base at t + 1, of a masked model that at t; never what is no base.

        Args:
            ids: token ids.
            codes: codewords of the table at each position where they are known already, as in training, where a
                window's own words are left out; None looks them up.
        """
        counted = self.counted(ids) if codes is None or self.table is None else self.table.counted(codes)
        return self._logits(self._hidden(ids, counted)[0], counted)

    def advance(self, ids: Integer[Tensor, "B L"], before: Carried | None = None) -> Advanced:
        """Reads the next piece of sequences: in pieces, a causal model gives what it gives on the whole, any length.

        Args:
            ids: token ids of the piece, at least one.
            before: what is carried from the piece before; None at the beginning.

        Raises:
            ValueError: the model looks both ways, and has to see a sequence whole.
        """
        if not self.backbone.config.causal:
            raise ValueError("a model that looks both ways has no state to carry: give it the whole sequence")
        known = ids if before is None else torch.cat([before.recent.to(ids.dtype), ids], dim=1)
        counted = None
        if self.table is not None:
            codes = self.table.lookup(known)
            counted = self.table.counted(codes.part(slice(known.shape[1] - ids.shape[1], None)))
        hidden, layers = self._hidden(ids, counted, None if before is None else before.layers)
        assert layers is not None
        return Advanced(self._logits(hidden, counted), hidden, Carried(known[:, -LONG_ORDER:].clone(), layers))

    def _logits(self, hidden: Float[Tensor, "B L D"], counted: Counted | SidedCounted | None) -> Float[Tensor, "B L V"]:
        output = self.embedding if self.lm_head is None else self.lm_head
        weight = output.vectors if isinstance(output, TokenEmbedding) else output.weight
        logits = functional.linear(hidden, weight) + self.never
        if self.table is None or counted is None:
            return logits
        return logits + self._of_vocabulary(self.table.share(hidden, counted))

    def counts_alone(self, ids: Integer[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """Logits of the table of contexts without the network.

        Raises:
            ValueError: the model has no table.
        """
        counted = self.counted(ids)
        if self.table is None or counted is None:
            raise ValueError("the model has no table of contexts")
        return self._of_vocabulary(self.table.alone(counted)) + self.never

    @staticmethod
    def _of_vocabulary(logits: Float[Tensor, "B L 4"]) -> Float[Tensor, "B L V"]:
        return functional.pad(logits, (tokens.FIRST_BASE, tokens.VOCAB_SIZE - tokens.FIRST_BASE - 4))

    def _hidden(
        self, ids: Integer[Tensor, "B L"], counted: Counted | SidedCounted | None, state: BackboneState | None = None
    ) -> tuple[Float[Tensor, "B L D"], BackboneState | None]:
        x = self.embedding(ids)
        if self.table is not None and counted is not None:
            x = x + self.table.features(counted)
        if state is not None and x.shape[1] == 1:
            y, state = self.backbone.step(x[:, 0], state)
            return y[:, None], state
        return self.backbone(x, state)

    def n_parameters(self) -> int:
        """Trainable numbers in the model."""
        return sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def from_bundle(cls, path: str | Path) -> GenomeLM:
        """Reads a language model from a bundle or a run folder, in evaluation mode.

        Raises:
            UserError: there is no bundle, it is damaged, or it holds another kind of model.
        """
        from mamba_training.bundle import load_bundle

        bundle = load_bundle(path)
        kind = bundle.config.get("kind")
        if kind != BUNDLE_KIND:
            raise UserError("not a language model", path=path, found=kind, accepted=BUNDLE_KIND)
        shape = bundle.config.get("model")
        if not isinstance(shape, dict):
            raise UserError("holds no model settings", path=bundle.path / "config.json")
        path = bundle.path / "config.json"
        asked = validated(ObjectiveConfig, bundle.config.get("objective") or {}, path=path)
        model = cls(validated(ModelConfig, shape, path=path), table_shape(bundle.config, path), asked)
        bundle.check(model.state_dict())
        model.load_state_dict(bundle.state)
        return model.eval()


def _output_layer(config: ModelConfig) -> nn.Linear | TokenEmbedding:
    """An output layer of its own; an equivariant one where the network is."""
    if config.reverse_complement == "equivariant":
        return TokenEmbedding(config)
    return nn.Linear(config.d_model, tokens.VOCAB_SIZE, bias=False)


def table_shape(config: Mapping[str, Any], path: str | Path) -> TableShape | None:
    """The table of contexts that a bundle's configuration tells of, or None.

    Raises:
        UserError: its shape is damaged.
    """
    shape = config.get("table")
    return None if shape is None else validated(TableShape, shape, path=path)


def backbone_config(config: ModelConfig) -> BackboneConfig:
    """The backbone that a model's configuration describes.

    Raises:
        UserError: its values do not fit each other, such as heads that do not divide the channels.
    """
    named = config.model_dump(exclude={"n_layers", "pattern", "embedding_std", "tie_embeddings"})
    try:
        return BackboneConfig(layers=config.layers, **named)
    except ValueError as error:
        raise UserError(str(error), fix="change it with --set model.NAME=VALUE") from None


def next_base_nats(
    logits: Float[Tensor, "B L V"], ids: Integer[Tensor, "B L"]
) -> tuple[Float[Tensor, ""], Integer[Tensor, ""]]:
    """Cross-entropy of predicting each base from those before it.

    The first position has nothing before it and is no target; neither is anything but A, C, G and T (N, PAD).

    Returns:
        The sum of the losses in nats, in float32, and the number of targets.
    """
    nats, n_targets = window_nats(logits, ids)
    return nats.sum(), n_targets.sum()


def window_nats(
    logits: Float[Tensor, "B L V"], ids: Integer[Tensor, "B L"]
) -> tuple[Float[Tensor, " B"], Integer[Tensor, " B"]]:
    """As `next_base_nats`, of each window by itself."""
    return asked_nats(logits, next_base(ids).targets)


def bits(nats: float) -> float:
    """Converts nats to bits."""
    return nats / math.log(2)
