"""One token of the selective scan as a Numba loop: a model that generates makes calls that should cost microseconds."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mamba_kernels.cpu.numba_elementwise import LOG2_E, exp2, silu
from mamba_kernels.cpu.numba_runtime import inlined, kernel, parallel_for
from mamba_kernels.cpu.numba_tensors import float32_array

TASK_ROWS = 1024
"""Rows (batch and channel) in a task: a small model's whole update is one, run without waking a thread."""

ZERO = np.float32(0.0)


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
    inputs = [float32_array(tensor) for tensor in (state, x, delta, A, B, C)]
    if x.numel():
        optional = float32_array(D), float32_array(z).reshape(-1, x.shape[1]), float32_array(delta_bias)
        outputs = y.numpy(), new_state.numpy()
        parallel_for(_scan_rows, -(-x.numel() // TASK_ROWS), *inputs, *optional, delta_softplus, *outputs)
    return y.to(x.dtype), new_state.to(state.dtype)
