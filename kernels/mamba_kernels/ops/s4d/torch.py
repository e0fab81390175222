"""S4D in plain torch, on any device: as one convolution by FFT, or as a recurrence by recursive doubling.

Legend: B batch, L length, D channels, N complex states a channel, T steps in a block, S blocks.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.ops.derivatives import recomputed_backward
from mamba_kernels.ops.s4d.pairs import discretise_pairs, run_exported

BLOCK = 256
"""Steps whose powers of the decay are tabulated; longer powers are products of two."""

CHUNK = 64
"""Steps whose states exist at once in recurrent mode."""


def as_complex(pairs: Tensor, dtype: torch.dtype) -> Tensor:
    """Complex numbers from real pairs (..., 2), in the complex type of a real dtype."""
    return torch.view_as_complex(pairs.to(dtype).contiguous())


def discretise(delta: Tensor, A: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Zero-order hold: dt A (D, N), whose exponential is the decay of a step, and (exp(dt A) - 1) / A."""
    log_decay, drive = discretise_pairs(delta, A, dtype)
    return torch.view_as_complex(log_decay), torch.view_as_complex(drive)


def _powers(log_decay: Tensor, exponents: Tensor) -> Tensor:
    """exp(dt A e) for each exponent: (D, E, N)."""
    return torch.exp(log_decay.unsqueeze(1) * exponents.to(log_decay.real.dtype)[:, None])


def _real_of_product(left: Tensor, right: Tensor) -> Tensor:
    """Re(left right') of complex (..., S, N) and (..., T, N), as one real product: (..., S, T)."""
    both = torch.cat([left.real, -left.imag], dim=-1), torch.cat([right.real, right.imag], dim=-1)
    return both[0] @ both[1].transpose(-1, -2)


def _read(weights: Tensor, log_decay: Tensor, length: int) -> Tensor:
    """2 Re(sum_n weights a^t) for t = 0 .. length - 1: (..., D, length) from complex (..., D, N)."""
    blocks = -(-length // BLOCK)
    inner = _powers(log_decay, torch.arange(min(BLOCK, length), device=weights.device))
    outer = _powers(log_decay, BLOCK * torch.arange(blocks, device=weights.device))
    return 2 * _real_of_product(weights.unsqueeze(-2) * outer, inner).flatten(-2)[..., :length]


def _accumulate(x: Tensor, log_decay: Tensor) -> Tensor:
    """sum_j a^(L - 1 - j) x_j: complex (B, D, N) from (B, D, L)."""
    length = x.shape[2]
    size = min(BLOCK, length)
    blocks = F.pad(x, (-length % size, 0)).unflatten(2, (-1, size))
    inner = torch.view_as_real(_powers(log_decay, torch.arange(size - 1, -1, -1, device=x.device)))
    sums = torch.view_as_complex((blocks @ inner.flatten(-2)).unflatten(-1, (-1, 2)).contiguous())
    outer = _powers(log_decay, size * torch.arange(blocks.shape[2] - 1, -1, -1, device=x.device))
    return (sums * outer).sum(2)


def _convolve(
    x: Tensor, log_decay: Tensor, drive: Tensor, c: Tensor, state: Tensor | None, want_state: bool
) -> tuple[Tensor, Tensor]:
    """Run over x (B, L, D) by FFT; returns y (B, L, D) and, if wanted, the final state, complex (B, D, N)."""
    x = x.transpose(1, 2)
    length = x.shape[2]
    kernel = _read(c * drive, log_decay, length)
    size = 2 * length
    y = torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(kernel, size), size)[..., :length]
    if state is not None:
        y = y + _read(c * torch.exp(log_decay) * state, log_decay, length)
    final = drive.new_empty(0)
    if want_state:
        final = drive * _accumulate(x, log_decay)
        final = final if state is None else final + torch.exp(log_decay * length) * state
    return y.transpose(1, 2), final


def _recur_chunk(
    state: Tensor, log_decay: Tensor, drive: Tensor, c: Tensor, x: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run over x (B, T, D) from a state, by recursive doubling."""
    update = drive * x.unsqueeze(-1)
    cut = None if reset is None else reset[:, :, None, None]
    if cut is not None:
        state = torch.where(cut[:, 0], 0.0, state)
    states = torch.cat([update[:, :1] + (torch.exp(log_decay) * state).unsqueeze(1), update[:, 1:]], dim=1)
    distance = 1
    while distance < x.shape[1]:
        here = states[:, distance:]
        reached = here + torch.exp(distance * log_decay) * states[:, :-distance]
        if cut is not None:
            reached = torch.where(cut[:, distance:], here, reached)
            cut = torch.cat([cut[:, :distance], cut[:, distance:] | cut[:, :-distance]], dim=1)
        states = torch.cat([states[:, :distance], reached], dim=1)
        distance *= 2
    return 2 * (c * states).sum(-1).real, states[:, -1].clone()  # a view would keep all states alive


def _recur(
    x: Tensor, log_decay: Tensor, drive: Tensor, c: Tensor, state: Tensor | None, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run over x (B, L, D) chunk by chunk, each recomputed in the backward pass."""
    now = drive.new_zeros(x.shape[0], *drive.shape) if state is None else state
    recompute = recomputed_backward(x, log_decay, drive, c, now)
    pieces: list[Tensor] = []
    for start in range(0, x.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        arguments = now, log_decay, drive, c, x[:, part], None if reset is None else reset[:, part]
        y, now = checkpoint(_recur_chunk, *arguments, use_reentrant=False) if recompute else _recur_chunk(*arguments)
        pieces.append(y)
    return torch.cat(pieces, dim=1), now


def _exported(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(x, delta, A, C, D, initial_state)
    log_decay, drive = discretise_pairs(delta, A, dtype)
    u, c = x.to(dtype), C.to(dtype)
    state = c.new_zeros(x.shape[0], *C.shape) if initial_state is None else initial_state.to(dtype)
    y, final = run_exported(u, log_decay, drive, c, state, reset, reverse)
    y = y if D is None else y + D.to(dtype) * u
    return y.to(x.dtype), final


def s4d_torch(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    recurrent: bool,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    """Run as a convolution, or as a recurrence, which alone follows resets; result as of `s4d_reference`.

    A convolution saves the work of a final state that is not asked for: an empty tensor is in its place.
    """
    dtype = compute_dtype(x, delta, A, C, D, initial_state)
    if torch.compiler.is_exporting():
        return _exported(x, delta, A, C, D, initial_state, reset, reverse)
    log_decay, drive = discretise(delta, A, dtype)
    state = None if initial_state is None else as_complex(initial_state, dtype)
    c = as_complex(C, dtype)
    u = (x.flip(1) if reverse else x).to(dtype)
    if recurrent:
        y, final = _recur(u, log_decay, drive, c, state, reset.flip(1) if reset is not None and reverse else reset)
    else:
        y, final = _convolve(u, log_decay, drive, c, state, return_final_state)
    y = y if D is None else y + D.to(dtype) * u
    return (y.flip(1) if reverse else y).to(x.dtype), torch.view_as_real(final)
