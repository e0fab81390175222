"""`s4d`: a diagonal state space model over a sequence. Checks its arguments, chooses a backend, calls it.

Legend: B batch, L length, D channels, N complex states a channel.
"""

from typing import Literal, overload

import torch
from torch import Tensor

from mamba_kernels.arguments import check_tensors
from mamba_kernels.ops.derivatives import backend_that_follows
from mamba_kernels.ops.s4d.reference import s4d_reference
from mamba_kernels.ops.s4d.torch import s4d_torch

MODES = ("convolution", "recurrent")


def check_arguments(
    op: str, x: Tensor, delta: Tensor, A: Tensor, C: Tensor, D: Tensor | None, state: tuple[str, Tensor | None]
) -> None:
    """Check every argument against x; `state` is the state's name in the caller's signature, and the state.

    Raises:
        ValueError: A shape or a device does not fit; the message names the argument, what was found and is accepted.
        TypeError: A dtype is not a real floating one.
    """
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
    backend: str | None = None,
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
    backend: str | None = None,
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
    backend: str | None = None,
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
        backend: "torch", or "reference", which goes step by step whatever the mode; None chooses "torch".

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
    check_arguments("s4d", x, delta, A, C, D, ("initial_state", initial_state))
    check_tensors("s4d", {"reset": (reset, x.shape[:2])}, x.device)
    recurrent = _mode(mode, reset) == "recurrent"
    chosen = backend_that_follows("s4d", backend, x, delta, A, C, D, initial_state)
    if chosen == "reference" or (not torch.compiler.is_exporting() and x.numel() == 0):
        y, final_state = s4d_reference(x, delta, A, C, D, initial_state, reset, reverse)
    else:
        y, final_state = s4d_torch(x, delta, A, C, D, initial_state, reset, reverse, recurrent, return_final_state)
    return (y, final_state) if return_final_state else y


def _mode(mode: str | None, reset: Tensor | None) -> str:
    if mode is None:
        return "convolution" if reset is None else "recurrent"
    if mode not in MODES:
        raise ValueError(f"s4d: mode must be one of {', '.join(MODES)}, found {mode!r}")
    if mode == "convolution" and reset is not None:
        raise ValueError("s4d: a convolution cannot follow resets; use mode='recurrent'")
    return mode
