"""The selective scan as its definition reads, one step after another: the truth that every other backend is held to."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels.arguments import compute_dtype


def per_channel(parameter: Tensor, channels: int) -> Tensor:
    """Spread B or C, (B, L, N) or (B, L, G, N), so that it broadcasts against (B, L, D, N)."""
    if parameter.dim() == 3:
        return parameter.unsqueeze(2)
    return parameter.repeat_interleave(channels // parameter.shape[2], dim=2)


def selective_scan_reference(
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
    """Scan step by step in torch, on any device and in float64 if an input is float64.

    Gu & Dao 2023 (arXiv:2312.00752), equation (2a, 2b) with the discretisation of section 3.6 as the authors'
    code has it: exp(delta A) for A, delta B for B.

    Returns:
        y (B, L, D) in x's dtype, and the state after the last step (B, D, N) in float32 or float64.
    """
    dtype = compute_dtype(x, delta, A, B, C, D, z, delta_bias, initial_state)
    batch, length, channels = x.shape
    u, dt, a = x.to(dtype), delta.to(dtype), A.to(dtype)
    if delta_bias is not None:
        dt = dt + delta_bias.to(dtype)
    if delta_softplus:
        dt = F.softplus(dt)
    b, c = per_channel(B.to(dtype), channels), per_channel(C.to(dtype), channels)
    state = u.new_zeros(batch, channels, A.shape[1]) if initial_state is None else initial_state.to(dtype)
    steps = range(length - 1, -1, -1) if reverse else range(length)
    outputs: list[Tensor] = [u[:, 0]] * length
    # Unbound at once: the gradient of a step's slice would be as large as the whole sequence.
    dt_at, u_at, b_at, c_at = (one.unbind(1) for one in (dt, u, b, c))
    for t in steps:
        if reset is not None:
            state = torch.where(reset[:, t, None, None], 0.0, state)
        state = torch.exp(dt_at[t][..., None] * a) * state + (dt_at[t] * u_at[t])[..., None] * b_at[t]
        outputs[t] = (state * c_at[t]).sum(-1)
    y = torch.stack(outputs, dim=1) if length else torch.zeros_like(u)
    if D is not None:
        y = y + D.to(dtype) * u
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(x.dtype), state
