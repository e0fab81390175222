"""S4D as its definition reads, one step after another: the truth that both of torch's ways are held to."""

import torch
from torch import Tensor

from mamba_kernels.arguments import compute_dtype


def s4d_reference(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Run step by step in torch, on any device and in float64 if an input is float64; arguments as of `s4d`.

    Gu et al. 2022 (arXiv:2206.11893), equation 2 with the zero-order hold.

    Returns:
        y (B, L, D) in x's dtype, and the state after the last step (B, D, N, 2) in float32 or float64.
    """
    dtype = compute_dtype(x, delta, A, C, D, initial_state)
    rates, weights = (torch.view_as_complex(pairs.to(dtype).contiguous()) for pairs in (A, C))
    steps = delta.to(dtype)[:, None] * rates
    decay, drive = torch.exp(steps), torch.expm1(steps) / rates
    batch, length, _ = x.shape
    u = x.to(dtype)
    if initial_state is None:
        state = decay.new_zeros(batch, *decay.shape)
    else:
        state = torch.view_as_complex(initial_state.to(dtype).contiguous())
    outputs = [u.new_empty(0)] * length
    for t in range(length - 1, -1, -1) if reverse else range(length):
        if reset is not None:
            state = torch.where(reset[:, t, None, None], 0.0, state)
        state = decay * state + drive * u[:, t, :, None]
        outputs[t] = 2 * (weights * state).sum(-1).real
    y = torch.stack(outputs, dim=1) if length else torch.zeros_like(u)
    y = y if D is None else y + D.to(dtype) * u
    return y.to(x.dtype), torch.view_as_real(state)
