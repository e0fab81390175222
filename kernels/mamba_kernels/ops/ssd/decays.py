"""The decays of a chunk: from each position to each later one, from its beginning, and to its end.

All sums of logarithms are formed directly over the positions that they cover, never as differences of running sums,
which lose their digits where damping is strong. `reverse` turns the order of time, not the tensors: with it a position
is later the further left it lies.

Legend: K chunks of all rows, Q positions in a chunk, H heads.
"""

import torch
from torch import Tensor


def documents(reset: Tensor | None, reverse: bool) -> Tensor | None:
    """Number each position's document within its chunk, 0 for the one that began before it: (K, Q) from (K, Q)."""
    if reset is None:
        return None
    counted = reset.to(torch.int32)
    return running_sum(counted, reverse).to(torch.int32)


def running_sum(values: Tensor, reverse: bool) -> Tensor:
    """Sum (..., Q) over each position and all earlier ones."""
    return values.flip(-1).cumsum(-1).flip(-1) if reverse else values.cumsum(-1)


def sum_of_later(values: Tensor, reverse: bool) -> Tensor:
    """Sum (..., Q) over all positions later than each."""
    zero = torch.zeros_like(values[..., :1])
    if reverse:
        return torch.cat([zero, running_sum(values[..., :-1], False)], dim=-1)
    return torch.cat([running_sum(values[..., 1:], True), zero], dim=-1)


def boundary_decays(log_decay: Tensor, document: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """Compute how much of the entering state each position sees, and how much of its own enters the leaving state.

    Args:
        log_decay: (K, H, Q), the step's dt A.
        document: (K, Q), see `documents`.
        reverse: Time runs from the right.

    Returns:
        entering (K, H, Q), the decay from before the chunk through each position, and leaving (K, H, Q), from after
        each position through the chunk's end; zero where a reset lies between.
    """
    entering = torch.exp(running_sum(log_decay, reverse))
    leaving = torch.exp(sum_of_later(log_decay, reverse))
    if document is None:
        return entering, leaving
    last = document[:, :1] if reverse else document[:, -1:]
    return (
        torch.where((document == 0).unsqueeze(1), entering, 0.0),
        torch.where((document == last).unsqueeze(1), leaving, 0.0),
    )


def pairwise_decays(log_decay: Tensor, document: Tensor | None, reverse: bool) -> Tensor:
    """Compute the decay (K, H, Q, Q) at [i, j] from after j through i; zero where j is later or a reset lies between.

    Dao and Gu 2024 (arXiv:2405.21060), listing 1, `segsum`.
    """
    size = log_decay.shape[-1]
    seen = torch.ones(size, size, dtype=torch.bool, device=log_decay.device).tril()
    seen = seen.T if reverse else seen
    after = seen & ~torch.eye(size, dtype=torch.bool, device=log_decay.device)
    spread = log_decay.unsqueeze(-1).expand(*log_decay.shape, size).masked_fill(~after, 0.0)
    sums = spread.flip(-2).cumsum(-2).flip(-2) if reverse else spread.cumsum(-2)
    if document is not None:
        seen = (seen & (document.unsqueeze(-1) == document.unsqueeze(-2))).unsqueeze(1)
    return torch.exp(sums.masked_fill(~seen, -torch.inf))
