"""The linear part of a classifier: the logistic regression that every network is compared with, as a part of the model.

A regression on k-mers, or on the letter at each place of aligned sequences, is hard to beat on short windows, and a
network need not learn again what it knows. So it is fitted first, its logits are added to the network's, and validation
decides with what shares:

    logits = a linear(x) + b network(x),

a part being left out unless the others are better with it by more than a standard error
(`genomamba.classifier.shares`). Standardisation is folded into the weights.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from genomamba import tokens
from genomamba.classifier.config import LinearShape
from genomamba.classifier.kmers import LogisticFit, merged_words


class LinearPart(nn.Module):
    """Logits of a fitted regression, from token ids.

    Args:
        shape: its features.
        n_classes: of its logits.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, shape: LinearShape, n_classes: int) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("weight", torch.zeros(n_classes, shape.n_features))
        self.register_buffer("bias", torch.zeros(n_classes))
        if shape.features == "kmers" and shape.both_strands:
            _, place = merged_words(shape.k)
            self.register_buffer("merged", torch.from_numpy(place), persistent=False)

    @classmethod
    def of(cls, fit: LogisticFit, shape: LinearShape) -> LinearPart:
        """The part that gives a fit's logits, up to a number that all classes of a sequence share."""
        part = cls(shape, fit.n_classes)
        weight, bias = fit.folded()
        part.weight.copy_(torch.from_numpy(weight))
        part.bias.copy_(torch.from_numpy(bias))
        return part

    def forward(self, ids: Integer[Tensor, "B L"], lengths: Integer[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Logits of sequences padded on the right."""
        if self.shape.features == "letters":
            features = letters_at_places(ids, lengths, self.shape.places).flatten(1)
        else:
            features = self._kmers(ids, lengths)
        return nn.functional.linear(features, self.weight, self.bias)

    def _kmers(self, ids: Integer[Tensor, "B L"], lengths: Integer[Tensor, " B"]) -> Float[Tensor, "B F"]:
        """Frequencies of the words, those with other letters left out."""
        base = ids.long() - tokens.FIRST_BASE
        known = (base >= 0) & (base < 4) & (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None])
        beyond = (0, self.shape.k - 1)  # words that go beyond the end hold what is no base
        base, known = nn.functional.pad(base, beyond), nn.functional.pad(known, beyond)
        word = torch.zeros_like(ids, dtype=torch.long)
        valid = torch.ones_like(ids, dtype=torch.bool)
        for offset in range(self.shape.k):
            place = slice(offset, offset + ids.shape[1])
            word = word * 4 + base[:, place].clamp(0, 3)
            valid = valid & known[:, place]
        if self.shape.both_strands:
            word = self.get_buffer("merged")[word]
        counts = torch.zeros(ids.shape[0], self.shape.n_features, dtype=torch.float64, device=ids.device)
        counts.scatter_add_(1, word, valid.double())
        return (counts / counts.sum(1, keepdim=True).clamp(min=1)).float()


def letters_at_places(
    ids: Integer[Tensor, "B L"], lengths: Integer[Tensor, " B"], places: int
) -> Float[Tensor, "B places 4"]:
    """One of four at each place; nothing where the letter is unknown, and none beyond the sequence's end."""
    base = ids.long() - tokens.FIRST_BASE
    inside = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    base = nn.functional.pad(torch.where(inside, base, -1), (0, places), value=-1)[:, :places]
    return (base[..., None] == torch.arange(4, device=ids.device)).float()
