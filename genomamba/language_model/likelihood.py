"""The probability of every base given all bases before it, of a sequence that is given piece by piece.

A causal model carries a state from piece to piece, so that pieces give what the whole sequence gives, in memory that
does not grow with it. A beginning that several sequences share is read once: `LikelihoodState.rows` repeats its state.

Shapes: `B` sequences, `L` bases of a piece.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from genomamba import tokens
from genomamba.language_model.model import Carried, GenomeLM
from genomamba.language_model.objectives import is_base

PIECE: Final = 2**14
"""Bases that are read at a time: enough to keep a device busy, few enough to take little memory."""
_BASES: Final = slice(tokens.FIRST_BASE, tokens.FIRST_BASE + 4)


class LikelihoodState(NamedTuple):
    """What is known of sequences after some pieces of each.

    Attributes:
        following: (B, 4) log2 of the probability that A, C, G or T comes next.
        carried: the model's own state.
    """

    following: Float[Tensor, "B 4"]
    carried: Carried

    def rows(self, index: Integer[Tensor, " M"]) -> LikelihoodState:
        """The state of the sequences of these numbers, which may repeat: one beginning may have several ends."""
        return LikelihoodState(self.following[index], self.carried.rows(index))


class Likelihood(NamedTuple):
    """What a model says of a piece.

    Attributes:
        log2_p: (B, L) float64, log2 of the probability of each base given all before it; NaN where nothing can be said:
            at the first base of a sequence, which has nothing before it, and at N and padding, which are never scored.
        hidden: (B, L, D) the vector of each position, as `GenomeLM.embeddings` gives it.
        state: for the next piece.
    """

    log2_p: Float[Tensor, "B L"]
    hidden: Float[Tensor, "B L D"]
    state: LikelihoodState


@torch.inference_mode()
def log2_likelihood(model: GenomeLM, ids: Integer[Tensor, "B L"], before: LikelihoodState | None = None) -> Likelihood:
    """Scores the next piece of sequences under a causal model.

    Args:
        model: in evaluation mode.
        ids: token ids of the piece, at least one, on the model's device. Rows may be padded on the right; what is
            carried of a row is then known only after its padding.
        before: the state after the piece before; None at the beginning.

    Raises:
        ValueError: the model looks both ways; see `genomamba.language_model.pseudo_likelihood`.

    Example:
        >>> first = log2_likelihood(model, ids[:, :1000])
        >>> second = log2_likelihood(model, ids[:, 1000:], first.state)   # of the whole sequence, from base 1,000 on
    """
    logits, hidden, carried = model.advance(ids, None if before is None else before.carried)
    log2_p = logits[..., _BASES].double().log_softmax(dim=2) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    unknown = log2_p.new_full((len(ids), 1, 4), torch.nan)
    told = torch.cat([unknown if before is None else before.following[:, None], log2_p[:, :-1]], dim=1)
    known = is_base(ids)
    base = torch.where(known, ids.long() - tokens.FIRST_BASE, 0)
    own = torch.where(known, told.gather(2, base[..., None])[..., 0], torch.nan)
    return Likelihood(own, hidden, LikelihoodState(log2_p[:, -1], carried))
