"""The table of contexts of a network that looks both ways.

Counts on both strands foretell a base from either side: from the bases before it, and, read on the other strand, from
those after it. If each side told of the base by itself, the base between them had

    p(b | left, right) = p(b | left) p(b | right) / p(b) / sum,

so the network starts from

    logits = network + (1 + a_l) log p(b | left) + (1 + a_r) log p(b | right) - (1 - c) log p(b) + ...,

where the weights a, c and those of shorter contexts come from the hidden vector, zero before training. Hidden and
unknown bases end a context on their side. An equivariant network (Caduceus-PS) stays one: what a side is to one strand,
the other side is to the other.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional

from genomamba import tokens
from genomamba.config import ModelConfig, TableShape
from genomamba.language_model.context_table import (
    FEATURES,
    Codes,
    ContextTable,
    Counted,
    Finder,
    NextBaseTable,
    plain_features,
)

_WEIGHTS: Final = 3


class SidedCodes(NamedTuple):
    """The codewords of each position's base, from either side; those from the right are of the other strand's base."""

    left: Codes
    right: Codes

    def part(self, place: slice) -> SidedCodes:
        """The codes of some positions."""
        return SidedCodes(self.left.part(place), self.right.part(place))


class SidedCounted(NamedTuple):
    """What the table says about the base at each position, in nats.

    Attributes:
        left: from the bases before it.
        right: from those after it, about its complement, the base on the other strand.
        prior: (4,) log-probabilities without any context.
    """

    left: Counted
    right: Counted
    prior: Float[Tensor, " 4"]


class SidedTable(ContextTable[SidedCodes, SidedCounted]):
    """A table that tells a network that looks both ways of the base at each position.

    Args:
        shape: which contexts are held.
        model: the network that it is a part of.
    """

    complement: Tensor

    def __init__(self, shape: TableShape, model: ModelConfig) -> None:
        super().__init__(shape)
        self.equivariant = model.reverse_complement == "equivariant"
        halves = 2 if self.equivariant else 1
        self.inputs = nn.Linear(2 * FEATURES, model.d_model // halves, bias=False)
        nn.init.normal_(self.inputs.weight, std=0.02)
        self.weights = nn.Linear(model.d_model, 2 * _WEIGHTS // halves)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        self.register_buffer("complement", torch.from_numpy(tokens.COMPLEMENT), persistent=False)

    @torch.no_grad()
    def lookup(self, ids: Integer[Tensor, "B L"], find: Finder | None = None) -> SidedCodes:
        """The codewords of the base at each position, from either side."""
        other = self.complement[ids.flip(1).long()].to(ids.dtype)
        left, right = (self._moved(self.codes_of_the_next(strand, find)) for strand in (ids, other))
        return SidedCodes(left, Codes(*(values.flip(1) for values in right)))

    def _moved(self, codes: Codes) -> Codes:
        """Codewords moved to the position of the base that they foretell; the first has no context."""
        short = torch.cat([self.codes[:1].long().expand(codes.short.shape[0], 1), codes.short[:, :-1]], dim=1)
        return Codes(short, functional.pad(codes.long[:, :-1], (1, 0), value=-1), codes.told)

    def counted(self, codes: SidedCodes) -> SidedCounted:
        """What the codewords stand for."""
        prior = self.codebook[self.codes[0].long()]
        left, right = self.counted_of_the_next(codes.left), self.counted_of_the_next(codes.right)
        return SidedCounted(left, right, (prior + prior.flip(0)) / 2)

    def alone(self, counted: SidedCounted) -> Float[Tensor, "B L 4"]:
        """Logits of A, C, G and T without the network."""
        return counted.left.best + counted.right.best.flip(2) - counted.prior

    def features(self, counted: SidedCounted) -> Float[Tensor, "B L D"]:
        """What the network reads beside each base."""
        left, right = plain_features(counted.left), plain_features(counted.right)
        one = self.inputs(torch.cat([left, right], dim=2))
        return (
            torch.cat([one, self.inputs(torch.cat([right, left], dim=2)).flip(2)], dim=2) if self.equivariant else one
        )

    def share(self, hidden: Float[Tensor, "B L D"], counted: SidedCounted) -> Float[Tensor, "B L 4"]:
        """What the table adds to the logits of A, C, G and T."""
        if self.equivariant:
            left, right = self.weights(hidden).float(), self.weights(hidden.flip(2)).float()
        else:
            left, right = self.weights(hidden).float().split(_WEIGHTS, dim=2)
        told = _weighted(counted.left, left) + _weighted(counted.right, right).flip(2)
        return told - (1 - (left + right)[..., 2:] / 2) * counted.prior


def _weighted(side: Counted, weights: Float[Tensor, "B L 3"]) -> Float[Tensor, "B L 4"]:
    return (1 + weights[..., :1]) * side.best + weights[..., 1:2] * side.short


def context_table(shape: TableShape, model: ModelConfig) -> ContextTable[Any, Any]:
    """The table of contexts of a network: of both sides where it looks both ways."""
    causal = model.bidirectional == "none" and model.reverse_complement == "none"
    return NextBaseTable(shape, model.d_model) if causal else SidedTable(shape, model)
