"""`ssd`: the public operator of Mamba-2. Checks its arguments, chooses a backend, calls it.

Legend: B batch, L length, H heads, P channels a head, G groups of B and C (G divides H), N state size.
"""

from collections.abc import Callable
from typing import Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels.arguments import check_tensors, compute_dtype, without_autocast
from mamba_kernels.ops.derivatives import backend_that_follows
from mamba_kernels.ops.ssd.reference import ssd_reference
from mamba_kernels.ops.ssd.torch import ssd_torch

CHUNK_SIZE = 64
"""Positions of a chunk: as many as make the products inside chunks and those with the states cost about the same."""

LONG_CHUNK_SIZE = 256
"""On Triton, where products are cheap and each chunk's state goes to memory and back."""


def skip_shape(D: Tensor | None, heads: int, width: int) -> tuple[int, ...]:
    """Return the shape that the skip connection D must have: one weight a head, or one a channel."""
    return (heads, width) if D is not None and D.dim() == 2 else (heads,)


def _check_arguments(
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
    chunk_size: int | None,
) -> None:
    if x.dim() != 4:
        raise ValueError(f"ssd: x must be (batch, length, heads, channels of a head), found shape {tuple(x.shape)}")
    batch, length, heads, width = x.shape
    if B.dim() != 4 or B.shape[3] == 0:
        raise ValueError(f"ssd: B must be ({batch}, {length}, groups, states), found shape {tuple(B.shape)}")
    groups, states = B.shape[2:]
    if groups == 0 or heads % groups:
        raise ValueError(f"ssd: B has {groups} groups, which do not divide {heads} heads")
    if isinstance(chunk_size, bool) or (chunk_size is not None and chunk_size < 1):
        raise ValueError(f"ssd: chunk_size must be at least 1, found {chunk_size}")
    expected = {
        "x": (x, x.shape),
        "delta": (delta, (batch, length, heads)),
        "A": (A, (heads,)),
        "B": (B, (batch, length, groups, states)),
        "C": (C, (batch, length, groups, states)),
        "D": (D, skip_shape(D, heads, width)),
        "z": (z, x.shape),
        "delta_bias": (delta_bias, (heads,)),
        "initial_state": (initial_state, (batch, heads, width, states)),
        "reset": (reset, (batch, length)),
    }
    check_tensors("ssd", expected, x.device)


def _implementation(backend: str) -> Callable[..., tuple[Tensor, Tensor]]:
    if backend == "numba":
        from mamba_kernels.ops.ssd.numba_op import ssd_numba

        return ssd_numba
    if backend == "triton":
        from mamba_kernels.ops.ssd.triton_op import ssd_triton

        return ssd_triton
    return ssd_reference if backend == "reference" else ssd_torch


def step_sizes(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool, dtype: torch.dtype) -> Tensor:
    """Return dt = delta + bias, or softplus of that."""
    dt = delta.to(dtype)
    if delta_bias is not None:
        dt = dt + delta_bias.to(dtype)
    return F.softplus(dt) if delta_softplus else dt


def skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """Return (y + D x) silu(z) in x's dtype, computed in y's."""
    if D is not None:
        y = y + (D if D.dim() == 2 else D.unsqueeze(-1)).to(y.dtype) * x
    if z is not None:
        y = y * F.silu(z.to(y.dtype))
    return y.to(x.dtype)


@overload
def ssd(
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
    chunk_size: int | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: Literal[False] = False,
    backend: str | None = None,
) -> Tensor: ...


@overload
def ssd(
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
    chunk_size: int | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: Literal[True],
    backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...


def ssd(
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
    chunk_size: int | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the state space model of Mamba-2, where all channels and states of a head decay alike.

    With dt = delta + delta_bias, or softplus of that:
    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t',  y_t = (h_t C_t + D x_t) silu(z_t).

    Differentiable in every tensor, the initial and the final state included. Computes in float32 (float64 if an input
    is float64); y has x's dtype.

    Args:
        x: (B, L, H, P).
        delta: (B, L, H) step sizes.
        A: (H,) continuous decay rates, negative for a stable system.
        B: (B, L, G, N); each group serves H / G neighbouring heads.
        C: Shaped like B.
        D: (H,) or (H, P) weight of the skip connection.
        z: (B, L, H, P) gate.
        delta_bias: (H,) added to delta.
        delta_softplus: Take softplus of delta, after the bias.
        chunk_size: Positions taken together as one matrix, of no influence on the result but for rounding; if left out
            64, on Triton 256. Triton rounds it up to a power of two from 16 to 256.
        initial_state: (B, H, P, N) state before the first step; zero if left out. With `reverse` the first step is
            the rightmost.
        reset: (B, L) bool; True at t zeroes the state before step t, in scan order: packed sequences in one row.
        reverse: Scan from the right, without a copy.
        return_final_state: Return the state after the last step as well.
        backend: "reference", "torch", "numba" or "triton"; chosen by device and dtype if left out.

    Returns:
        y (B, L, H, P), or (y, final state (B, H, P, N)). An empty sequence gives an empty y and the initial state.

    Raises:
        ValueError: A shape, a device or the chunk size does not fit, or the backend cannot run here.
        TypeError: A dtype does not fit.

    Source:
        Dao and Gu 2024 (arXiv:2405.21060), section 6 and listing 1.
    """
    _check_arguments(x, delta, A, B, C, D, z, delta_bias, initial_state, reset, chunk_size)
    tensors = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    dtype = compute_dtype(*tensors)
    chosen = backend_that_follows("ssd", backend, *tensors)
    run = _implementation(chosen)
    if chunk_size is None:
        chunk_size = LONG_CHUNK_SIZE if chosen == "triton" else CHUNK_SIZE
    if x.is_meta or (not torch.compiler.is_exporting() and x.numel() == 0):
        run = _run_nothing
    with without_autocast(x.device):  # the matrix products are of states, which need float32
        dt = step_sizes(delta, delta_bias, delta_softplus, dtype)
        y, final_state = run(x, dt, A.to(dtype), B, C, initial_state, reset, reverse, chunk_size)
        y = skip_and_gate(y, x, D, z)
    return (y, final_state) if return_final_state else y


def _run_nothing(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None, *_: object
) -> tuple[Tensor, Tensor]:
    """Answer with shapes and the state as it was: for an empty batch or sequence, and on the meta device."""
    shape = (x.shape[0], x.shape[2], x.shape[3], B.shape[3])
    return x.to(dt.dtype), dt.new_zeros(shape) if initial_state is None else initial_state.to(dt.dtype)
