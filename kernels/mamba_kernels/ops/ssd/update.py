"""One token of `ssd`, in constant time and memory.

Legend: B batch, H heads, P channels a head, G groups (G divides H), N states.
"""

import torch
from torch import Tensor

from mamba_kernels.arguments import check_tensors, compute_dtype
from mamba_kernels.ops.derivatives import backend_that_follows
from mamba_kernels.ops.ssd.interface import skip_and_gate, skip_shape, step_sizes


def _check(
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
    if state.dim() != 4:
        raise ValueError(f"ssd_update: state must be (batch, heads, channels, states), found {tuple(state.shape)}")
    batch, heads, width, states = state.shape
    groups = B.shape[1] if B.dim() == 3 else 0
    if groups == 0 or heads % groups:
        raise ValueError(
            f"ssd_update: B must be ({batch}, groups, {states}) with groups that divide {heads} heads, "
            f"found shape {tuple(B.shape)}"
        )
    expected = {
        "state": (state, state.shape),
        "x": (x, (batch, heads, width)),
        "delta": (delta, (batch, heads)),
        "A": (A, (heads,)),
        "B": (B, (batch, groups, states)),
        "C": (C, (batch, groups, states)),
        "D": (D, skip_shape(D, heads, width)),
        "z": (z, (batch, heads, width)),
        "delta_bias": (delta_bias, (heads,)),
    }
    check_tensors("ssd_update", expected, x.device)


def ssd_update(
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
    """Advance `ssd` by one token; differentiable in every tensor, and the state passed in is left alone.

    Args:
        state: (B, H, P, N), as `ssd` returns it.
        x: (B, H, P), one token.
        delta: (B, H), step sizes before bias and softplus.
        A: (H,).
        B: (B, G, N).
        C: As B.
        D: (H,) or (H, P), skip connection.
        z: (B, H, P), gate.
        delta_bias: (H,).
        delta_softplus: Whether to apply softplus to delta + delta_bias.
        backend: As of any operator. Only "triton" has a kernel of its own, where no gradient is asked for; elsewhere
            the computation is the same few tensor operations.

    Returns:
        y (B, H, P) in x's dtype, and the new state (B, H, P, N) in the state's dtype.

    Raises:
        ValueError: A shape or the backend does not fit; the message says what is accepted.
        TypeError: A dtype does not fit.
    """
    _check(state, x, delta, A, B, C, D, z, delta_bias)
    tensors = (state, x, delta, A, B, C, D, z, delta_bias)
    chosen = backend_that_follows("ssd_update", backend, *tensors, has_gradient=False)
    if chosen == "triton":
        from mamba_kernels.ops.ssd.triton_update import ssd_step

        return ssd_step(*tensors, delta_softplus)
    dtype = compute_dtype(*tensors)
    dt = step_sizes(delta, delta_bias, delta_softplus, dtype)
    repeats = x.shape[1] // B.shape[1]
    b, c = (parameter.to(dtype).repeat_interleave(repeats, dim=1).unsqueeze(2) for parameter in (B, C))
    decay = torch.exp(dt * A.to(dtype))[..., None, None]
    new_state = decay * state.to(dtype) + (dt.unsqueeze(-1) * x).unsqueeze(-1) * b
    y = skip_and_gate((new_state * c).sum(-1), x, D, z)
    return y, new_state.to(state.dtype)
