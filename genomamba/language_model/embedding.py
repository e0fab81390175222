"""Vectors of the letters, the same for a base on either strand where the network treats strands alike."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional

from genomamba import tokens
from genomamba.config import ModelConfig


class TokenEmbedding(nn.Embedding):
    """One vector for each row of the vocabulary.

    With an equivariant backbone (Caduceus-PS, arXiv 2403.03234, section 4) only half of the channels are learned: the
    other half of a base's vector is that of its complement with the channels in opposite order. So the reverse
    complement of a sequence has the vectors of the sequence, flipped along length and channels, and the output
    layer that shares these vectors gives each base what its complement gets on the other strand.
    """

    complement: Tensor

    def __init__(self, config: ModelConfig) -> None:
        equivariant = config.reverse_complement == "equivariant"
        super().__init__(tokens.VOCAB_SIZE, config.d_model // 2 if equivariant else config.d_model)
        self.equivariant = equivariant
        nn.init.normal_(self.weight, std=config.embedding_std)
        self.register_buffer("complement", torch.from_numpy(tokens.COMPLEMENT).long(), persistent=False)

    @property
    def vectors(self) -> Float[Tensor, "V D"]:
        """The vectors of all rows."""
        if not self.equivariant:
            return self.weight
        return torch.cat([self.weight, self.weight[self.complement].flip(1)], dim=1)

    def forward(self, input: Integer[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The vectors of token ids."""
        return functional.embedding(input.long(), self.vectors)
