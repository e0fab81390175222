"""The causal convolution as its definition reads, one position after another: the truth for every other backend."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels.arguments import compute_dtype


def causal_conv1d_reference(
    x: Float[Tensor, "B L D"],
    weight: Float[Tensor, "D K"],
    bias: Float[Tensor, " D"] | None,
    silu: bool,
    initial_state: Float[Tensor, "B D K-1"] | None,
    reset: Bool[Tensor, "B L"] | None,
    reverse: bool,
    return_final_state: bool,
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B D K-1"]]:
    """Convolve position by position in torch, on any device and in float64 if an input is float64.

    Returns:
        y (B, L, D) and the last K - 1 inputs in scan order (B, D, K - 1), both in x's dtype. The latter is empty
        (of no shape in particular) where a backend saves work by leaving it out and `return_final_state` is False.
    """
    dtype = compute_dtype(x, weight, bias, initial_state)
    batch, length, channels = x.shape
    taps = weight.shape[1]
    u, w = x.to(dtype), weight.to(dtype)
    state = u.new_zeros(batch, channels, taps - 1) if initial_state is None else initial_state.to(dtype)
    outputs = [state.new_empty(0)] * length
    for t in range(length - 1, -1, -1) if reverse else range(length):
        if reset is not None:
            state = torch.where(reset[:, t, None, None], 0.0, state)
        window = torch.cat([state, u[:, t, :, None]], dim=2)
        outputs[t] = (window * w).sum(2)
        state = window[:, :, 1:]
    y = torch.stack(outputs, dim=1) if length else torch.zeros_like(u)
    if bias is not None:
        y = y + bias.to(dtype)
    return (F.silu(y) if silu else y).to(x.dtype), state.to(x.dtype)
