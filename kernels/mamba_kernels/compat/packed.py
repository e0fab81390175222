"""Packed sequences, several in one row: how mamba-ssm and causal-conv1d name them, as the `reset` of our operators."""

import torch
from torch import Tensor
from torch.nn import functional as F


def reset_from_lengths(cu_seqlens: Tensor | None, rows: int, length: int) -> Tensor | None:
    """Turn cumulative lengths (S + 1,) into marks (rows, length) at the first position of each sequence."""
    if cu_seqlens is None:
        return None
    starts = cu_seqlens[:-1].long()
    marks = torch.zeros(length + 1, dtype=torch.bool, device=cu_seqlens.device)
    marks[starts] = True  # an empty last sequence starts where the row ends
    return marks[:length].expand(rows, length).contiguous()


def reset_from_numbers(seq_idx: Tensor | None) -> Tensor | None:
    """Mark each position (B, L) whose sequence is another than its predecessor's."""
    return None if seq_idx is None else F.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0))


def reset_of(op: str, seq_idx: Tensor | None, cu_seqlens: Tensor | None, rows: int, length: int) -> Tensor | None:
    """Return where sequences begin (rows, length), told either way; numbers come first, as they can mark padding.

    Raises:
        ValueError: The numbers are not (rows, length).
    """
    if seq_idx is None:
        return reset_from_lengths(cu_seqlens, rows, length)
    if tuple(seq_idx.shape) != (rows, length):
        raise ValueError(f"{op}: seq_idx must have shape {(rows, length)}, found {tuple(seq_idx.shape)}")
    return reset_from_numbers(seq_idx)
