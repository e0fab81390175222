"""Reverse-complement equivariance by parameter sharing (Caduceus-PS, arXiv 2403.03234, section 4).

The first half of the channels describes the sequence as given; the second half describes its reverse complement, read
from its own end and with its channels in opposite order. Taking the reverse complement of the input then flips a
representation along length and channels. Running one shared stack on both strands keeps that property at every
depth, and since flipping twice is nothing, the strands can ride side by side in the batch: two flips in all, not two a
layer.

Shapes: `B` batch, `L` length, `M` channels of both strands.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mamba_kernels.blocks.mamba import reset_from_right


def split_strands(x: Tensor, reset: Tensor | None, following: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """(B, L, M) to (2 B, L, M / 2): the strands as given, then the opposite strands read in their own direction.

    `reset` (B, L) marks the first token of each document, which on the opposite strand is the last; `following` (B, 1)
    says whether the token behind `x` is such a first one, where there is one.
    """
    given, opposite = x.chunk(2, dim=-1)
    both = torch.cat([given, opposite.flip(1, 2)], dim=0)
    if reset is None:
        return both, None
    last = reset_from_right(reset, following)
    return both, torch.cat([reset, last.flip(1)], dim=0)


def merge_strands(x: Tensor) -> Tensor:
    """(2 B, L, M / 2) back to (B, L, M)."""
    given, opposite = x.unflatten(0, (2, -1)).unbind()  # exporters know no chunks of what has no fixed size
    return torch.cat([given, opposite.flip(1, 2)], dim=-1)
