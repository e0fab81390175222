"""SSD in matrix form in plain differentiable torch, on any device: chunks as small matrix products, states between.

Legend: B batch, L length, H heads, P channels a head, G groups, N states, Q positions in a chunk, K chunks of all rows.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mamba_kernels.ops.derivatives import recomputed_backward
from mamba_kernels.ops.exported import over_chunks
from mamba_kernels.ops.ssd.decays import boundary_decays, documents, pairwise_decays

PIECE = 512
"""Positions whose Q x Q matrices exist at once."""

EXPORTED_CHUNK = 64
"""Positions in a chunk of an exported program."""


def in_chunks(tensor: Tensor, chunk_size: int, dtype: torch.dtype | None = None) -> Tensor:
    """(B, T, ...) to (B * T / Q, Q, ...), the last chunk filled up with zeros: positions where nothing happens."""
    short = -tensor.shape[1] % chunk_size
    if short:
        tensor = F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, short))
    return tensor.to(dtype or tensor.dtype).reshape(-1, chunk_size, *tensor.shape[2:])


def chunk_states(own: Tensor, carried: Tensor, state: Tensor, reset: Tensor | None, reverse: bool) -> list[Tensor]:
    """Pass the state from chunk to chunk.

    Args:
        own: (B, chunks, H, P, N), what each chunk adds to the state by its end.
        carried: (B, chunks, H), how much of the entering state is left at its end.
        state: (B, H, P, N) before the first chunk.
        reset: (B, chunks, Q).
        reverse: The rightmost chunk is the first.

    Returns:
        The states before each chunk in the order of the tensors, then the state after the last one in time.
    """
    count = own.shape[1]
    before = [state] * count
    for c in range(count - 1, -1, -1) if reverse else range(count):
        if reset is not None:
            cut = reset[:, c, -1 if reverse else 0]
            state = torch.where(cut[:, None, None, None], 0.0, state)
        before[c] = state
        after = carried[:, c, :, None, None] * state + own[:, c]
        state = after if reset is None else torch.where(reset[:, c].any(1)[:, None, None, None], own[:, c], after)
    return [*before, state]


def _run_piece(
    state: Tensor,
    A: Tensor,
    dt: Tensor,
    x: Tensor,
    B: Tensor,
    C: Tensor,
    reset: Tensor | None,
    reverse: bool,
    size: int,
) -> tuple[Tensor, Tensor]:
    """Return y (B, T, H, P) and the state after the piece."""
    batch, length, heads, _ = x.shape
    groups, dtype = B.shape[2], dt.dtype
    dt, x, B, C = (in_chunks(tensor, size, dtype) for tensor in (dt, x, B, C))
    resets = None if reset is None else in_chunks(reset, size)
    steps = dt.transpose(1, 2)
    document = documents(resets, reverse)
    log_decay = steps * A[:, None]
    entering, leaving = boundary_decays(log_decay, document, reverse)
    pairs = pairwise_decays(log_decay, document, reverse) * steps.unsqueeze(2)
    shared = torch.einsum("kign,kjgn->kgij", C, B).repeat_interleave(heads // groups, dim=1)
    y = torch.einsum("khij,kjhp->kihp", shared * pairs, x)
    weighted = x * (leaving * steps).transpose(1, 2).unsqueeze(-1)
    own = torch.einsum("kjgep,kjgn->kgepn", weighted.unflatten(2, (groups, -1)), B).flatten(1, 2)
    carried = entering[:, :, 0 if reverse else -1]
    own, carried = (tensor.unflatten(0, (batch, -1)) for tensor in (own, carried))
    resets = None if resets is None else resets.unflatten(0, (batch, -1))
    *before, state = chunk_states(own, carried, state, resets, reverse)
    states = torch.stack(before, dim=1).flatten(0, 1).unflatten(1, (groups, -1))
    read = torch.einsum("kign,kgepn->kigep", C, states).flatten(2, 3)
    y = y + entering.transpose(1, 2).unsqueeze(-1) * read
    return y.unflatten(0, (batch, -1)).flatten(1, 2)[:, :length], state


def _run_exported(
    state: Tensor, A: Tensor, dt: Tensor, x: Tensor, B: Tensor, C: Tensor, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Return y (B, L, H, P) and the state after the last step, in a graph for every length."""

    def run(state: Tensor, _: Tensor, dt: Tensor, x: Tensor, B: Tensor, C: Tensor, *rest: Tensor) -> Any:
        *cuts, A = rest
        return _run_piece(state, A, dt, x, B, C, cuts[0] if cuts else None, False, EXPORTED_CHUNK)

    sequences = (dt, x, B, C) if reset is None else (dt, x, B, C, reset)
    return over_chunks(run, state, sequences, (A,), size=EXPORTED_CHUNK, reverse=reverse)


def ssd_torch(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Run piece by piece; arguments and result as in `ssd_reference`.

    Dao and Gu 2024 (arXiv:2405.21060), listing 1, with states in and out, resets and both directions. Where gradients
    are wanted each piece is recomputed in the backward pass. A NaN spreads through its whole chunk, to earlier
    positions and over resets too, since a matrix product meets it with a zero.
    """
    batch, length, heads, width = x.shape
    state = dt.new_zeros(batch, heads, width, B.shape[3]) if initial_state is None else initial_state.to(dt.dtype)
    if torch.compiler.is_exporting():
        return _run_exported(state, A, dt, x, B, C, reset, reverse)
    recompute = recomputed_backward(x, dt, A, B, C, state)
    size = min(chunk_size, length)
    piece = max(1, PIECE // size) * size
    pieces: list[Tensor] = []
    starts = range(0, length, piece)
    for start in reversed(starts) if reverse else starts:
        part = slice(start, min(start + piece, length))
        cuts = None if reset is None else reset[:, part]
        arguments = (state, A, dt[:, part], x[:, part], B[:, part], C[:, part], cuts, reverse, size)
        y, state = checkpoint(_run_piece, *arguments, use_reentrant=False) if recompute else _run_piece(*arguments)
        pieces.append(y)
    return torch.cat(pieces[::-1] if reverse else pieces, dim=1), state
