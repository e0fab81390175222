"""One token of the convolution as a Numba loop: a model that generates makes calls that should cost microseconds."""

from typing import Any

import torch
from torch import Tensor

from mamba_kernels.cpu.numba_elementwise import silu
from mamba_kernels.cpu.numba_runtime import kernel, parallel_for
from mamba_kernels.cpu.numba_tensors import float32_array

TASK_ROWS = 1024
"""Rows (batch and channel) in a task: a small model's whole update is one, run without waking a thread."""


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
        inputs = float32_array(x), float32_array(conv_state), float32_array(weight), float32_array(bias)
        outputs = y.numpy(), new_state.numpy()
        parallel_for(_convolve_rows, -(-x.numel() // TASK_ROWS), *inputs, silu, *outputs)
    return y.to(x.dtype), new_state.to(conv_state.dtype)
