"""RMSNorm and its gradient as Numba loops: a row stays in the first cache while it is summed, normed and written.

Arrays are flat, with the elements between rows beside them: see `numba_tensors`. Every partial sum of the weight's
gradient belongs to one task, so results do not depend on threads. No loop both sums and writes: LLVM would sum in
another order where what is written lies close behind what is read, and the bits would depend on where memory was free.
"""

from typing import Any

import numpy as np

from mamba_kernels.cpu.numba_elementwise import ONE, narrow, widen
from mamba_kernels.cpu.numba_runtime import inlined, kernel

TASK_ROWS = 64
"""Rows in a task: each task has its own partial sum of the weight's gradient."""

ZERO = np.float32(0.0)


@inlined
def _row(array: Any, row: Any, stride: Any, channels: Any) -> Any:
    return array[row * stride : row * stride + channels]


@kernel
def normalise(
    lo: int,
    hi: int,
    x: Any,
    x_stride: int,
    residual: Any,
    residual_stride: int,
    weight: Any,
    eps: float,
    total: Any,
    normed: Any,
    rows: int,
) -> None:
    """Compute the tasks lo .. hi - 1 of a norm over rows.

    Args:
        lo: First task, of `TASK_ROWS` rows.
        hi: End of the tasks.
        x: Flat rows of D channels.
        x_stride: Elements between rows of x.
        residual: Flat rows to be added first; empty for none.
        residual_stride: Elements between rows of the residual.
        weight: (D,) float32.
        eps: Added to the mean square.
        total: Written: flat contiguous float32 rows x + residual; empty without a residual.
        normed: Written: flat contiguous rows.
        rows: Number of rows.
    """
    channels = weight.shape[0]
    scratch = np.empty(channels, np.float32)
    for r in range(lo * TASK_ROWS, min(hi * TASK_ROWS, rows)):
        source, out = _row(x, r, x_stride, channels), _row(normed, r, channels, channels)
        kept = _row(total, r, channels, channels) if total.size else scratch
        if residual.size:
            before = _row(residual, r, residual_stride, channels)
            for c in range(channels):
                kept[c] = widen(source[c]) + widen(before[c])
        else:
            for c in range(channels):
                kept[c] = widen(source[c])
        squares = ZERO
        for c in range(channels):
            squares += kept[c] * kept[c]
        scale = ONE / np.sqrt(squares / np.float32(channels) + np.float32(eps))
        for c in range(channels):
            out[c] = narrow(kept[c] * scale * weight[c], out[c])


@kernel
def normalise_backward(
    lo: int,
    hi: int,
    grad: Any,
    grad_stride: int,
    carry: Any,
    carry_stride: int,
    total: Any,
    total_stride: int,
    weight: Any,
    eps: float,
    total_grad: Any,
    partials: Any,
    rows: int,
) -> None:
    """Compute the gradients of the tasks lo .. hi - 1.

    Args:
        lo: First task, of `TASK_ROWS` rows.
        hi: End of the tasks.
        grad: Flat rows, the gradient of the normed rows.
        grad_stride: Elements between rows of `grad`.
        carry: Flat rows, the gradient of the sum that was returned beside them; empty for none.
        carry_stride: Elements between rows of `carry`.
        total: Flat rows that were normed.
        total_stride: Elements between rows of `total`.
        weight: (D,) float32.
        eps: Added to the mean square.
        total_grad: Written: flat contiguous rows, the gradient of `total`.
        partials: (tasks, D) float32, written: each task's share of the weight's gradient.
        rows: Number of rows.
    """
    channels = weight.shape[0]
    slope, value = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for task in range(lo, hi):
        partial = partials[task]
        for c in range(channels):
            partial[c] = ZERO
        for r in range(task * TASK_ROWS, min((task + 1) * TASK_ROWS, rows)):
            outer, source = _row(grad, r, grad_stride, channels), _row(total, r, total_stride, channels)
            for c in range(channels):
                value[c] = widen(source[c])
                slope[c] = widen(outer[c])
            squares, projection = ZERO, ZERO
            for c in range(channels):
                squares += value[c] * value[c]
                projection += slope[c] * weight[c] * value[c]
            scale = ONE / np.sqrt(squares / np.float32(channels) + np.float32(eps))
            shrink = scale * scale * scale * projection / np.float32(channels)
            out = _row(total_grad, r, channels, channels)
            if carry.size:
                added = _row(carry, r, carry_stride, channels)
                for c in range(channels):
                    out[c] = narrow(scale * slope[c] * weight[c] - shrink * value[c] + widen(added[c]), out[c])
            else:
                for c in range(channels):
                    out[c] = narrow(scale * slope[c] * weight[c] - shrink * value[c], out[c])
            for c in range(channels):
                partial[c] += scale * slope[c] * value[c]
