"""The selective scan vectorised over channels, states and pieces of time: plain differentiable torch, on any device."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.ops.derivatives import recomputed_backward
from mamba_kernels.ops.exported import over_chunks
from mamba_kernels.ops.selective_scan.reference import per_channel

CHUNK = 64
"""Steps whose (B, D, N) states exist at once."""

EXPORTED_CHUNK = 8
"""The same in an exported program, where doubling more often would make a large graph of each layer."""


def _prefix(decay: Tensor, update: Tensor, reset: Tensor | None) -> Tensor:
    """Solve h_t = decay_t h_{t-1} + update_t along dimension 1, for h = 0 before the first, by recursive doubling.

    Only products of decays of neighbouring steps are formed, never quotients, so nothing overflows however strong the
    damping: Hillis & Steele 1986, with the operator of Blelloch 1990 (section 1.4). A reset selects instead of
    multiplying by zero, so that a NaN stays in its own sequence.
    """
    length, distance = update.shape[1], 1
    while distance < length:
        here, before = update[:, distance:], update[:, :-distance]
        reached = here + decay[:, distance:] * before
        if reset is not None:
            reached = torch.where(reset[:, distance:], here, reached)
            reset = torch.cat([reset[:, :distance], reset[:, distance:] | reset[:, :-distance]], dim=1)
        update = torch.cat([update[:, :distance], reached], dim=1)
        decay = torch.cat([decay[:, :distance], decay[:, distance:] * decay[:, :-distance]], dim=1)
        distance *= 2
    return update


def _scan_chunk(
    state: Tensor, A: Tensor, dt: Tensor, u: Tensor, B: Tensor, C: Tensor, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Return y (B, T, D) and the state after the chunk, for B and C of shape (B, T, N) or (B, T, G, N)."""
    if reverse:
        dt, u, B, C = (tensor.flip(1) for tensor in (dt, u, B, C))
        reset = None if reset is None else reset.flip(1)
    B, C = per_channel(B, dt.shape[2]), per_channel(C, dt.shape[2])
    decay = torch.exp(dt.unsqueeze(-1) * A)
    update = (dt * u).unsqueeze(-1) * B
    cuts = None if reset is None else reset[:, :, None, None]
    if cuts is not None:
        state = torch.where(cuts[:, 0], 0.0, state)
    first = update[:, :1] + (decay[:, 0] * state).unsqueeze(1)
    states = _prefix(decay, torch.cat([first, update[:, 1:]], dim=1), cuts)
    y = (states * C).sum(-1)
    return (y.flip(1) if reverse else y), states[:, -1].clone()  # a view would keep all states alive


def _run(
    state: Tensor, A: Tensor, dt: Tensor, u: Tensor, B: Tensor, C: Tensor, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Return y (B, L, D) and the state after the last step, chunk by chunk."""
    length = u.shape[1]
    recompute = recomputed_backward(dt, u, A, B, C, state)
    pieces: list[Tensor] = []
    starts = range(0, length, CHUNK)
    for start in reversed(starts) if reverse else starts:
        piece = slice(start, min(start + CHUNK, length))
        cuts = None if reset is None else reset[:, piece]
        arguments = (state, A, dt[:, piece], u[:, piece], B[:, piece], C[:, piece], cuts, reverse)
        y, state = checkpoint(_scan_chunk, *arguments, use_reentrant=False) if recompute else _scan_chunk(*arguments)
        pieces.append(y)
    y = torch.cat(pieces[::-1] if reverse else pieces, dim=1) if pieces else torch.zeros_like(u)
    return y, state


def _run_exported(
    state: Tensor, A: Tensor, dt: Tensor, u: Tensor, B: Tensor, C: Tensor, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """As `_run`, for every length; a step of size zero, beyond the end, leaves the state alone."""

    def run(state: Tensor, _: Tensor, dt: Tensor, u: Tensor, B: Tensor, C: Tensor, *rest: Tensor) -> Any:
        *cuts, A = rest
        return _scan_chunk(state, A, dt, u, B, C, cuts[0] if cuts else None, False)

    sequences = (dt, u, B, C) if reset is None else (dt, u, B, C, reset)
    return over_chunks(run, state, sequences, (A,), size=EXPORTED_CHUNK, reverse=reverse)


def selective_scan_torch(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Scan chunk by chunk; arguments and result as in `selective_scan_reference`.

    Where gradients are wanted each chunk is recomputed in the backward pass, so that the memory is that of one chunk
    of states, not of the whole length.
    """
    dtype = compute_dtype(x, delta, A, B, C, D, z, delta_bias, initial_state)
    u, dt, a, b, c = (tensor.to(dtype) for tensor in (x, delta, A, B, C))
    if delta_bias is not None:
        dt = dt + delta_bias.to(dtype)
    if delta_softplus:
        dt = F.softplus(dt)
    state = u.new_zeros(x.shape[0], *A.shape) if initial_state is None else initial_state.to(dtype)
    run = _run_exported if torch.compiler.is_exporting() else _run
    y, state = run(state, a, dt, u, b, c, reset, reverse)
    if D is not None:
        y = y + D.to(dtype) * u
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(x.dtype), state
