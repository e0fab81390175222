"""`selective_state_update`: one token of `selective_scan`, in constant time and memory.

It is functional: the new state is returned and the old one left alone, so it can be differentiated through.
`mamba_kernels.compat.mamba_ssm` has the in-place form of mamba-ssm.

Legend: B batch, D channels, N state size, G groups of B and C (G divides D).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels.arguments import check_tensors, compute_dtype
from mamba_kernels.ops.derivatives import backend_that_follows


def _scan_step(
    state: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Advance the scan by one token in torch; `B` and `C` are (B, G, N)."""
    dtype = compute_dtype(state, x, delta, A, B, C, D, z, delta_bias)
    u, dt = x.to(dtype), delta.to(dtype)
    if delta_bias is not None:
        dt = dt + delta_bias.to(dtype)
    if delta_softplus:
        dt = F.softplus(dt)
    repeats = x.shape[1] // B.shape[1]
    b, c = (parameter.to(dtype).repeat_interleave(repeats, dim=1) for parameter in (B, C))
    new_state = torch.exp(dt.unsqueeze(2) * A.to(dtype)) * state.to(dtype) + (dt * u).unsqueeze(2) * b
    y = (new_state * c).sum(2)
    if D is not None:
        y = y + D.to(dtype) * u
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(x.dtype), new_state.to(state.dtype)


def _check_scan_step(
    state: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    op = "selective_state_update"
    if state.dim() != 3:
        raise ValueError(f"{op}: state must be (batch, channels, states), found shape {tuple(state.shape)}")
    batch, channels, states = state.shape
    grouped = B.dim() == 3
    groups = B.shape[1] if grouped else 1
    if groups == 0 or channels % groups:
        raise ValueError(f"{op}: B has {groups} groups, which do not divide {channels} channels")
    parameter_shape = (batch, groups, states) if grouped else (batch, states)
    expected = {
        "state": (state, (batch, channels, states)),
        "x": (x, (batch, channels)),
        "delta": (delta, (batch, channels)),
        "A": (A, (channels, states)),
        "B": (B, parameter_shape),
        "C": (C, parameter_shape),
        "D": (D, (channels,)),
        "z": (z, (batch, channels)),
        "delta_bias": (delta_bias, (channels,)),
    }
    check_tensors(op, expected, x.device)


def selective_state_update(
    state: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Advance a selective scan by one token.

    Differentiable in every tensor: where a gradient is asked for, "numba" and "triton" hand over to "torch".

    Args:
        state: (B, D, N), as `selective_scan` returns it.
        x: (B, D), one token.
        delta: (B, D), step sizes before bias and softplus.
        A: (D, N).
        B: (B, N) or (B, G, N).
        C: As B.
        D: (D,), skip connection.
        z: (B, D), gate.
        delta_bias: (D,).
        delta_softplus: Whether to apply softplus to delta + delta_bias.
        backend: "reference", "torch", "numba" or "triton"; None chooses, see `mamba_kernels.dispatch`.

    Returns:
        y (B, D) in x's dtype, and the new state (B, D, N) in the state's dtype.

    Raises:
        ValueError: A shape or the backend does not fit; the message says what is accepted.
        TypeError: A dtype does not fit.
    """
    _check_scan_step(state, x, delta, A, B, C, D, z, delta_bias)
    run = _scan_step
    tensors = (x, state, delta, A, B, C, D, z, delta_bias)
    chosen = backend_that_follows("selective_state_update", backend, *tensors, has_gradient=False)
    if chosen == "numba":
        from mamba_kernels.ops.selective_scan.numba_update import scan_step as run
    elif chosen == "triton":
        from mamba_kernels.ops.selective_scan.triton_update import scan_step as run
    b, c = (B, C) if B.dim() == 3 else (B.unsqueeze(1), C.unsqueeze(1))
    return run(state, x, delta, A, b, c, D, z, delta_bias, delta_softplus)
