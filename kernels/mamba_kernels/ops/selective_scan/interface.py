"""`selective_scan`: the public operator. Checks its arguments, chooses a backend, calls it.

Legend: B batch, L length, D channels, N state size, G groups of B and C (G divides D).
"""

from collections.abc import Callable
from typing import Literal, overload

import torch
from torch import Tensor

from mamba_kernels.arguments import check_tensors, compute_dtype
from mamba_kernels.ops.derivatives import backend_that_follows
from mamba_kernels.ops.selective_scan.reference import selective_scan_reference
from mamba_kernels.ops.selective_scan.torch import selective_scan_torch


def check_arguments(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
) -> None:
    """Check every argument against the others.

    Raises:
        ValueError: A shape or a device does not fit; the message names the argument, what was found and is accepted.
        TypeError: A dtype is not a real floating one (bool for `reset`).
    """
    if x.dim() != 3:
        raise ValueError(f"selective_scan: x must be (batch, length, channels), found shape {tuple(x.shape)}")
    batch, length, channels = x.shape
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] == 0:
        raise ValueError(f"selective_scan: A must be ({channels}, states), found shape {tuple(A.shape)}")
    states = A.shape[1]
    grouped = B.dim() == 4
    groups = B.shape[2] if grouped else 1
    if groups == 0 or channels % groups:
        raise ValueError(f"selective_scan: B has {groups} groups, which do not divide {channels} channels")
    parameter = (batch, length, groups, states) if grouped else (batch, length, states)
    expected = {
        "x": (x, (batch, length, channels)),
        "A": (A, (channels, states)),
        "delta": (delta, (batch, length, channels)),
        "B": (B, parameter),
        "C": (C, parameter),
        "D": (D, (channels,)),
        "z": (z, (batch, length, channels)),
        "delta_bias": (delta_bias, (channels,)),
        "initial_state": (initial_state, (batch, channels, states)),
        "reset": (reset, (batch, length)),
    }
    check_tensors("selective_scan", expected, x.device)


def _implementation(backend: str) -> Callable[..., tuple[Tensor, Tensor]]:
    if backend == "numba":
        from mamba_kernels.ops.selective_scan.numba_op import selective_scan_numba

        return selective_scan_numba
    if backend == "triton":
        from mamba_kernels.ops.selective_scan.triton_op import selective_scan_triton

        return selective_scan_triton
    return selective_scan_torch if backend == "torch" else selective_scan_reference


@overload
def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: Literal[False] = False,
    backend: str | None = None,
) -> Tensor: ...


@overload
def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: Literal[True],
    backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan x through the selective state space model of Mamba.

    With dt = delta + delta_bias, or softplus of that:
    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,  y_t = (C_t h_t + D x_t) silu(z_t).

    Differentiable in every tensor, the initial and the final state included. The state is float32 whatever the inputs
    are (float64 if one of them is), and the output has x's dtype. No (L, D, N) tensor is ever made.

    Args:
        x: (B, L, D). Any strides in all tensors; no copy is made as long as channels are neighbours, as in a half of
            a (B, L, 2D) tensor.
        delta: (B, L, D) step sizes.
        A: (D, N) continuous decay rates, negative for a stable system.
        B: (B, L, N), or (B, L, G, N) where each group of D / G neighbouring channels has its own.
        C: Shaped like B.
        D: (D,) weight of the skip connection.
        z: (B, L, D) gate.
        delta_bias: (D,) added to delta.
        delta_softplus: Take softplus of delta, after the bias.
        initial_state: (B, D, N) state before the first step; zero if left out. With `reverse` the first step is the
            rightmost.
        reset: (B, L) bool; True at t zeroes the state before step t, in scan order: packed sequences in one row.
        reverse: Scan from the right, without a copy.
        return_final_state: Return the state after the last step as well.
        backend: "reference", "torch", "numba", "triton"; chosen by device and dtype if left out.

    Returns:
        y (B, L, D), or (y, final state (B, D, N)). An empty sequence gives an empty y and the initial state.

    Raises:
        ValueError: A shape or a device does not fit, or the backend cannot run here.
        TypeError: A dtype does not fit.

    Source:
        Gu and Dao 2023 (arXiv:2312.00752), equations 2a and 2b and algorithm 2.
    """
    check_arguments(x, delta, A, B, C, D, z, delta_bias, initial_state, reset)
    tensors = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    run = _implementation(backend_that_follows("selective_scan", backend, *tensors))
    if x.is_meta or (not torch.compiler.is_exporting() and x.numel() == 0):
        run = _scan_nothing
    y, final_state = run(x, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reset, reverse)
    return (y, final_state) if return_final_state else y


def _scan_nothing(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *others: Tensor | bool | None
) -> tuple[Tensor, Tensor]:
    """Answer with shapes and the state as it was: for an empty batch or sequence, and on the meta device."""
    initial_state = others[4]
    shape = (x.shape[0], x.shape[2], A.shape[1])
    dtype = compute_dtype(x, delta, A, B, C)
    state = initial_state.to(dtype) if isinstance(initial_state, Tensor) else x.new_zeros(shape, dtype=dtype)
    return x.clone(), state
