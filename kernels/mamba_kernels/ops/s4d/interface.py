"""`s4d`: a diagonal state space model over a sequence, and `s4d_update`: over one token.

Legend: B batch, L length, D channels, N complex states a channel, T steps in a block, S blocks.
"""

from typing import Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mamba_kernels.arguments import check_tensors, compute_dtype

MODES = ("convolution", "recurrent")
BLOCK = 256
"""Steps whose powers of the decay are tabulated; longer powers are products of two."""

CHUNK = 64
"""Steps whose states exist at once in recurrent mode."""


def _as_complex(pairs: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.view_as_complex(pairs.to(dtype).contiguous())


def _discretise(delta: Tensor, A: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Zero-order hold: dt A (D, N), whose exponential is the decay of a step, and (exp(dt A) - 1) / A."""
    rates = _as_complex(A, dtype)
    log_decay = rates * delta.to(dtype)[:, None]
    damping, angle = log_decay.real, log_decay.imag
    real = torch.expm1(damping) * torch.cos(angle) - 2 * torch.sin(angle / 2).square()
    return log_decay, torch.complex(real, torch.exp(damping) * torch.sin(angle)) / rates


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
) -> tuple[Tensor, Tensor | None]:
    """Run over x (B, L, D) by FFT; returns y (B, L, D) and the final state, complex (B, D, N)."""
    x = x.transpose(1, 2)
    length = x.shape[2]
    kernel = _read(c * drive, log_decay, length)
    size = 2 * length
    y = torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(kernel, size), size)[..., :length]
    if state is not None:
        y = y + _read(c * torch.exp(log_decay) * state, log_decay, length)
    final = None
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
    recompute = torch.is_grad_enabled() and any(t.requires_grad for t in (x, log_decay, drive, c, now))
    pieces: list[Tensor] = []
    for start in range(0, x.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        arguments = now, log_decay, drive, c, x[:, part], None if reset is None else reset[:, part]
        y, now = checkpoint(_recur_chunk, *arguments, use_reentrant=False) if recompute else _recur_chunk(*arguments)
        pieces.append(y)
    return torch.cat(pieces, dim=1), now


def _check(
    op: str, x: Tensor, delta: Tensor, A: Tensor, C: Tensor, D: Tensor | None, state: tuple[str, Tensor | None]
) -> None:
    channels, states = x.shape[-1], A.shape[1] if A.dim() == 3 else 0
    if A.dim() != 3 or states == 0:
        raise ValueError(f"{op}: A must be ({channels}, states, 2), real and imaginary parts, found {tuple(A.shape)}")
    expected = {
        "x": (x, x.shape),
        "delta": (delta, (channels,)),
        "A": (A, (channels, states, 2)),
        "C": (C, (channels, states, 2)),
        "D": (D, (channels,)),
        state[0]: (state[1], (x.shape[0], channels, states, 2)),
    }
    check_tensors(op, expected, x.device)


@overload
def s4d(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    mode: str | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: Literal[False] = False,
) -> Tensor: ...


@overload
def s4d(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    mode: str | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def s4d(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    mode: str | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run a diagonal state space model over a sequence: h_t = a h_{t-1} + b x_t, y_t = 2 Re(C . h_t) + D x_t.

    a = exp(delta A) and b = (a - 1) / A are the zero-order hold. Plain torch on any device, differentiable in every
    tensor, in float32 (float64 if an input is float64). Complex numbers are real pairs in a last dimension of 2.

    Args:
        x: (B, L, D).
        delta: (D,) step sizes.
        A: (D, N, 2) rates, with negative real parts for a stable system; each stands for a conjugate pair.
        C: (D, N, 2) output weights.
        D: (D,) weight of the skip connection.
        mode: "convolution" (FFT) or "recurrent", with the same output; None takes the convolution unless there are
            resets, which only the recurrence can follow.
        initial_state: (B, D, N, 2) before the first step; zero if left out.
        reset: (B, L) bool; True at t zeroes the state before step t, in scan order.
        reverse: Run from the right.
        return_final_state: Return the state after the last step as well.

    Returns:
        y (B, L, D) in x's dtype, or (y, final state (B, D, N, 2)).

    Raises:
        ValueError: A shape, a device or the mode does not fit.
        TypeError: A dtype does not fit.

    Source:
        Gu et al. 2022 (arXiv:2206.11893), equation 2 and section 3.
    """
    if x.dim() != 3:
        raise ValueError(f"s4d: x must be (batch, length, channels), found shape {tuple(x.shape)}")
    _check("s4d", x, delta, A, C, D, ("initial_state", initial_state))
    check_tensors("s4d", {"reset": (reset, x.shape[:2])}, x.device)
    mode = _mode(mode, reset)
    dtype = compute_dtype(x, delta, A, C, D, initial_state)
    log_decay, drive = _discretise(delta, A, dtype)
    state = None if initial_state is None else _as_complex(initial_state, dtype)
    u, c = x.to(dtype), _as_complex(C, dtype)
    u, reset = (tensor if tensor is None or not reverse else tensor.flip(1) for tensor in (u, reset))
    assert u is not None  # only reset may be
    final: Tensor | None = state
    if x.numel() == 0:
        y = u
    elif mode == "recurrent":
        y, final = _recur(u, log_decay, drive, c, state, reset)
    else:
        y, final = _convolve(u, log_decay, drive, c, state, return_final_state)
    y = y if D is None else y + D.to(dtype) * u
    y = (y.flip(1) if reverse else y).to(x.dtype)
    if not return_final_state:
        return y
    final = drive.new_zeros(x.shape[0], *drive.shape) if final is None else final
    return y, torch.view_as_real(final)


def _mode(mode: str | None, reset: Tensor | None) -> str:
    if mode is None:
        return "convolution" if reset is None else "recurrent"
    if mode not in MODES:
        raise ValueError(f"s4d: mode must be one of {', '.join(MODES)}, found {mode!r}")
    if mode == "convolution" and reset is not None:
        raise ValueError("s4d: a convolution cannot follow resets; use mode='recurrent'")
    return mode


def s4d_update(
    state: Tensor, x: Tensor, delta: Tensor, A: Tensor, C: Tensor, D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Advance `s4d` by one token; the state passed in is left alone.

    Args:
        state: (B, D, N, 2), as `s4d` returns it.
        x: (B, D), one token.
        delta: (D,).
        A: (D, N, 2).
        C: (D, N, 2).
        D: (D,).

    Returns:
        y (B, D) in x's dtype, and the new state in the state's dtype.

    Raises:
        ValueError: A shape or a device does not fit.
        TypeError: A dtype does not fit.
    """
    if x.dim() != 2:
        raise ValueError(f"s4d_update: x must be (batch, channels), found shape {tuple(x.shape)}")
    _check("s4d_update", x, delta, A, C, D, ("state", state))
    dtype = compute_dtype(state, x, delta, A, C, D)
    log_decay, drive = _discretise(delta, A, dtype)
    u = x.to(dtype)
    new_state = torch.exp(log_decay) * _as_complex(state, dtype) + drive * u.unsqueeze(-1)
    y = 2 * (_as_complex(C, dtype) * new_state).sum(-1).real
    y = y if D is None else y + D.to(dtype) * u
    return y.to(x.dtype), torch.view_as_real(new_state).to(state.dtype)
