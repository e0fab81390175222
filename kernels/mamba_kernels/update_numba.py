"""One-token updates as Numba loops: generating one token at a time is made of calls that should cost microseconds."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mamba_kernels.cpu.numba_elementwise import LOG2_E, exp2, silu
from mamba_kernels.cpu.numba_runtime import inlined, kernel, parallel_for

TASK_ROWS = 1024
"""Rows (batch and channel) in a task: a small model's whole update is one, run without waking a thread."""

ZERO = np.float32(0.0)


def _float32(tensor: Tensor | None) -> np.ndarray:
    """Return a contiguous float32 array, empty for None; a copy only where the tensor is not one already."""
    if tensor is None:
        return np.empty(0, np.float32)
    if tensor.dtype != torch.float32 or not tensor.is_contiguous():
        tensor = tensor.to(torch.float32).contiguous()
    return tensor.detach().numpy()


@inlined
def _softplus(x: Any) -> Any:
    return x if x > np.float32(20.0) else np.float32(math.log1p(math.exp(x)))


@kernel
def _scan_rows(
    lo: int,
    hi: int,
    state: Any,
    x: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    z: Any,
    bias: Any,
    softplus: bool,
    y: Any,
    new_state: Any,
) -> None:
    """Advance the rows of tasks lo .. hi - 1; B and C are (B, G, N), the rest as in `selective_state_update`."""
    batch, channels, states = state.shape
    group = channels // B.shape[1]
    for row in range(lo * TASK_ROWS, min(hi * TASK_ROWS, batch * channels)):
        b, d = row // channels, row % channels
        step = delta[b, d]
        if bias.size:
            step += bias[d]
        if softplus:
            step = _softplus(step)
        drive, rate = step * x[b, d], step * LOG2_E
        before, after, decay = state[b, d], new_state[b, d], A[d]
        into, out = B[b, d // group], C[b, d // group]
        for n in range(states):
            after[n] = exp2(rate * decay[n]) * before[n] + drive * into[n]
        total = ZERO
        for n in range(states):  # a loop of its own: see `rms_norm.numba_kernels`
            total += after[n] * out[n]
        if D.size:
            total += D[d] * x[b, d]
        if z.size:
            total *= silu(z[b, d])
        y[b, d] = total


def scan_step(
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
    """Advance the scan by one token, without gradients; `B` and `C` are (B, G, N)."""
    y, new_state = torch.empty(x.shape), torch.empty(state.shape)
    inputs = [_float32(tensor) for tensor in (state, x, delta, A, B, C)]
    if x.numel():
        optional = _float32(D), _float32(z).reshape(-1, x.shape[1]), _float32(delta_bias)
        outputs = y.numpy(), new_state.numpy()
        parallel_for(_scan_rows, -(-x.numel() // TASK_ROWS), *inputs, *optional, delta_softplus, *outputs)
    return y.to(x.dtype), new_state.to(state.dtype)


@kernel
def _convolve_rows(
    lo: int, hi: int, x: Any, state: Any, weight: Any, bias: Any, activate: bool, y: Any, new_state: Any
) -> None:
    """Convolve the newest input of the rows of tasks lo .. hi - 1 and push it into their states."""
    batch, channels, carried = state.shape
    for row in range(lo * TASK_ROWS, min(hi * TASK_ROWS, batch * channels)):
        b, d = row // channels, row % channels
        newest = x[b, d]
        total = newest * weight[d, carried]
        for k in range(carried):
            total += state[b, d, k] * weight[d, k]
        for k in range(carried):
            new_state[b, d, k] = state[b, d, k + 1] if k + 1 < carried else newest
        if bias.size:
            total += bias[d]
        y[b, d] = silu(total) if activate else total


def conv_step(x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> tuple[Tensor, Tensor]:
    """Advance the convolution by one token, without gradients."""
    y, new_state = torch.empty(x.shape), torch.empty(conv_state.shape)
    if x.numel():
        inputs = _float32(x), _float32(conv_state), _float32(weight), _float32(bias)
        outputs = y.numpy(), new_state.numpy()
        parallel_for(_convolve_rows, -(-x.numel() // TASK_ROWS), *inputs, silu, *outputs)
    return y.to(x.dtype), new_state.to(conv_state.dtype)
