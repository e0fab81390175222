"""The causal convolution in plain torch, one pass for each tap: any device, differentiable, and it compiles."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels.arguments import compute_dtype


def positions_since_reset(reset: Bool[Tensor, "B L"], memory: int) -> Int[Tensor, "B L"]:
    """Count the positions from the last reset at or before each position; at least `memory` where there was none."""
    position = torch.arange(reset.shape[1], device=reset.device)
    last = torch.where(reset, position, -memory)
    return position - (last.cummax(1).values if reset.shape[1] else last)


def final_state(
    x: Float[Tensor, "B L D"],
    initial_state: Float[Tensor, "B D P"] | None,
    reset: Bool[Tensor, "B L"] | None,
    taps: int,
    reverse: bool,
) -> Float[Tensor, "B D P"]:
    """Return the last P = K - 1 inputs in scan order, oldest first, in x's dtype; what lies before a reset is zero."""
    batch, length, channels = x.shape
    carried, taken = taps - 1, min(taps - 1, length)
    state = (x[:, :taken].flip(1) if reverse else x[:, length - taken :]).transpose(1, 2)
    if taken < carried:
        if initial_state is None:
            before = x.new_zeros(batch, channels, carried - taken)
        else:
            before = initial_state[:, :, taken:].to(x.dtype)
        state = torch.cat([before, state], dim=2)
    if reset is not None and taken:
        recent = reset[:, :taken].flip(1) if reverse else reset[:, length - taken :]
        later = (
            F.pad(recent, (carried - taken, 0)).flip(1).cumsum(1).flip(1) - F.pad(recent, (carried - taken, 0)).int()
        )
        state = torch.where((later > 0).unsqueeze(1), 0.0, state)
    return state.contiguous()


def causal_conv1d_torch(
    x: Float[Tensor, "B L D"],
    weight: Float[Tensor, "D K"],
    bias: Float[Tensor, " D"] | None,
    silu: bool,
    initial_state: Float[Tensor, "B D K-1"] | None,
    reset: Bool[Tensor, "B L"] | None,
    reverse: bool,
    return_final_state: bool,
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "..."]]:
    """Convolve as a sum of shifted copies of x. Returns as `causal_conv1d_reference` does."""
    dtype = compute_dtype(x, weight, bias, initial_state)
    batch, length, channels = x.shape
    taps = weight.shape[1]
    u = (x.flip(1) if reverse else x).to(dtype)
    marks = reset.flip(1) if reset is not None and reverse else reset
    before = (
        u.new_zeros(batch, taps - 1, channels) if initial_state is None else initial_state.to(dtype).transpose(1, 2)
    )
    padded = torch.cat([before, u], dim=1)
    since = None if marks is None else positions_since_reset(marks, length + taps)
    w = weight.to(dtype)
    y = u * w[:, taps - 1]
    for j in range(1, taps):
        shifted = padded[:, taps - 1 - j : taps - 1 - j + length]
        if since is not None:
            shifted = torch.where((since >= j).unsqueeze(2), shifted, 0.0)
        y = y + shifted * w[:, taps - 1 - j]
    if bias is not None:
        y = y + bias.to(dtype)
    y = F.silu(y) if silu else y
    y = (y.flip(1) if reverse else y).to(x.dtype)
    return y, final_state(x, initial_state, reset, taps, reverse) if return_final_state else x.new_empty(0)
