"""The causal convolution in plain torch, one pass for each tap: any device, differentiable, and it compiles."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels.arguments import compute_dtype


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
        state = _without_ended(state, F.pad(recent, (carried - taken, 0)))
    return state.contiguous()


def _without_ended(state: Float[Tensor, "B D P"], reset: Bool[Tensor, "B P"]) -> Float[Tensor, "B D P"]:
    """Zero the inputs before the last reset."""
    later = reset.flip(1).cumsum(1).flip(1) - reset.int()
    return torch.where((later > 0).unsqueeze(1), 0.0, state)


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
    ends = None if marks is None else F.pad(marks, (taps - 1, 0))
    cut = None
    w = weight.to(dtype)
    y = u * w[:, taps - 1]
    for j in range(1, taps):
        shifted = padded[:, taps - 1 - j : taps - 1 - j + length]
        if ends is not None:  # what lies j back is seen unless one of the last j positions is a reset
            begun = ends[:, taps - j : taps - j + length].unsqueeze(2)
            cut = begun if cut is None else cut | begun
            shifted = torch.where(cut, 0.0, shifted)
        y = y + shifted * w[:, taps - 1 - j]
    if bias is not None:
        y = y + bias.to(dtype)
    y = F.silu(y) if silu else y
    y = (y.flip(1) if reverse else y).to(x.dtype)
    if not return_final_state:
        return y, x.new_empty(0)
    state = padded[:, length:].transpose(1, 2).to(x.dtype)
    state = state if ends is None else _without_ended(state, ends[:, length:])
    return y, state.contiguous()
