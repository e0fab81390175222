"""The causal convolution and its gradient as Numba loops: channels are the vector lane, tiles stay in the first cache.

Rows are counted in scan order: row s is position s, or length - 1 - s of a reversed convolution, which is nothing but
a negative stride. A tile of rows is first copied to scratch as float32, with the state before the first row, so that
the arithmetic has one layout to deal with. Tap j of a row is the input j rows before it; resets limit how many taps a
row has. Every output, and every partial sum of the weights' gradient, belongs to one task: threads change no result.

Legend: B batch, L length, D channels, K taps. A "plane" is (flat array, elements between batches, between rows,
index of row 0); the last two carry the direction.
"""

from typing import Any

import numpy as np

from mamba_kernels.cpu.numba_elementwise import narrow, silu, silu_slope, widen
from mamba_kernels.cpu.numba_runtime import inlined, kernel

WIDTH = 256
"""Channels in a tile."""

ROWS = 32
"""Rows in a tile."""

TASK_ROWS = 256
"""Rows in a task, a multiple of `ROWS`: each has its own partial sum of the weights' gradient."""


@inlined
def _scratch(rows: Any) -> Any:
    """Return an uninitialised (rows, WIDTH) float32 array that starts a cache line, so that no vector straddles two."""
    flat = np.empty(rows * WIDTH + 16, np.float32)
    start = (-flat.ctypes.data % 64) // 4
    return flat[start : start + rows * WIDTH].reshape(rows, WIDTH)


@inlined
def _load_rows(
    tile: Any, plane: Any, state: Any, batch: Any, first: Any, count: Any, length: Any, d: Any, w: Any
) -> None:
    """Fill tile rows with plane rows first .. first + count - 1; before row 0 comes the state, after the end zeros."""
    array, batch_stride, row_stride, origin = plane
    carried = state.shape[2]
    for i in range(count):
        row = tile[i]
        s = first + i
        if 0 <= s < length:
            start = origin + batch * batch_stride + s * row_stride + d
            source = array[start : start + w]
            for c in range(w):
                row[c] = widen(source[c])
        elif -carried <= s < 0:
            for c in range(w):
                row[c] = state[batch, d + c, carried + s]
        else:
            row[:w] = np.float32(0.0)


@inlined
def _store_rows(plane: Any, tile: Any, batch: Any, first: Any, count: Any, d: Any, w: Any) -> None:
    """Write tile rows 0 .. count - 1 to plane rows first .. first + count - 1, in the plane's dtype."""
    array, batch_stride, row_stride, origin = plane
    for i in range(count):
        start = origin + batch * batch_stride + (first + i) * row_stride + d
        out, row = array[start : start + w], tile[i]
        for c in range(w):
            out[c] = narrow(row[c], out[c])


@inlined
def _taps_alive(reset: Any, batch: Any, s: Any, taps: Any) -> Any:
    """Count the taps of row s that reach back no further than the last reset at or before it."""
    if reset.shape[1]:
        for j in range(min(taps, s + 1)):
            if reset[batch, s - j]:
                return j + 1
    return taps


@inlined
def _rows_reached(reset: Any, batch: Any, s: Any, taps: Any, length: Any) -> Any:
    """Count the rows, from s on, that see row s: up to `taps`, before the end and before the next reset."""
    count = min(taps, length - s)
    if reset.shape[1]:
        for j in range(max(1, -s), count):
            if reset[batch, s + j]:
                return j
    return count


@inlined
def _convolve_row(out: Any, tile: Any, i: Any, weights: Any, alive: Any, w: Any) -> None:
    """Write bias + sum of taps to out; tap j multiplies tile row i - j with weight row taps - 1 - j."""
    taps = weights.shape[0] - 1
    bias = weights[taps]
    for c in range(w):
        out[c] = bias[c]
    for j in range(alive):
        x, weight = tile[i - j], weights[taps - 1 - j]
        for c in range(w):
            out[c] += x[c] * weight[c]


@inlined
def _convolve_four_rows(out: Any, x: Any, weights: Any, w: Any) -> None:
    """Write four rows of a convolution of four taps, the usual number: inputs and weights are loaded once for all."""
    for c in range(w):
        w0, w1, w2, w3, bias = weights[0, c], weights[1, c], weights[2, c], weights[3, c], weights[4, c]
        x0, x1, x2, x3, x4, x5, x6 = x[0, c], x[1, c], x[2, c], x[3, c], x[4, c], x[5, c], x[6, c]
        out[0, c] = bias + x0 * w0 + x1 * w1 + x2 * w2 + x3 * w3
        out[1, c] = bias + x1 * w0 + x2 * w1 + x3 * w2 + x4 * w3
        out[2, c] = bias + x2 * w0 + x3 * w1 + x4 * w2 + x5 * w3
        out[3, c] = bias + x3 * w0 + x4 * w1 + x5 * w2 + x6 * w3


@inlined
def _convolve_tile(sums: Any, tile: Any, weights: Any, reset: Any, batch: Any, first: Any, count: Any, w: Any) -> None:
    """Convolve tile rows into sums[:count], whose row i is scan row first + i and tile row i + taps - 1."""
    taps = weights.shape[0] - 1
    i = 0
    while i < count:
        whole = taps == 4 and i + 4 <= count
        if whole and reset.shape[1]:
            for k in range(4):
                whole = whole and _taps_alive(reset, batch, first + i + k, taps) == taps
        if whole:
            _convolve_four_rows(sums[i : i + 4], tile[i : i + 7], weights, w)
            i += 4
        else:
            _convolve_row(sums[i], tile, i + taps - 1, weights, _taps_alive(reset, batch, first + i, taps), w)
            i += 1


@kernel
def convolve(
    lo: int, hi: int, x: Any, y: Any, state: Any, reset: Any, packed: Any, activate: bool, length: int, channels: int
) -> None:
    """Compute the tasks lo .. hi - 1 of a convolution.

    Args:
        lo: First task; task i covers `TASK_ROWS` rows of batch i // ceil(length / TASK_ROWS).
        hi: End of the tasks.
        x: Input plane.
        y: Output plane.
        state: (B, D, K - 1) float32 inputs before row 0, oldest first; (B, D, 0) for none.
        reset: (B, L) bool in scan order; (B, 0) for none.
        packed: (K + 1, D) float32: the taps, oldest first, then the bias.
        activate: Whether to apply silu.
        length: L.
        channels: D.
    """
    taps = packed.shape[0] - 1
    blocks = (length + TASK_ROWS - 1) // TASK_ROWS
    tile = _scratch(ROWS + taps - 1)
    weights = _scratch(taps + 1)
    sums = _scratch(ROWS)
    for task in range(lo, hi):
        batch, first = task // blocks, (task % blocks) * TASK_ROWS
        last = min(first + TASK_ROWS, length)
        for d in range(0, channels, WIDTH):
            w = min(WIDTH, channels - d)
            weights[:, :w] = packed[:, d : d + w]
            for r in range(first, last, ROWS):
                count = min(ROWS, last - r)
                _load_rows(tile, x, state, batch, r - taps + 1, count + taps - 1, length, d, w)
                _convolve_tile(sums, tile, weights, reset, batch, r, count, w)
                if activate:
                    for i in range(count):
                        row = sums[i]
                        for c in range(w):
                            row[c] = silu(row[c])
                _store_rows(y, sums, batch, r, count, d, w)


@inlined
def _add_weight_gradient(
    partial: Any, slopes: Any, tile: Any, reset: Any, batch: Any, first: Any, count: Any, w: Any
) -> None:
    """Add what `count` rows give to the gradient of the packed weights: slope times input, and slope for the bias."""
    taps = partial.shape[0] - 1
    bias = partial[taps]
    for i in range(count):
        slope = slopes[i]
        for c in range(w):
            bias[c] += slope[c]
        for j in range(_taps_alive(reset, batch, first + i, taps)):
            x, out = tile[i + taps - 1 - j], partial[taps - 1 - j]
            for c in range(w):
                out[c] += slope[c] * x[c]


@inlined
def _add_four_weight_gradients(partial: Any, slopes: Any, x: Any, w: Any) -> None:
    """Do the same for four rows of a convolution of four taps, none of them cut by a reset."""
    for c in range(w):
        g0, g1, g2, g3 = slopes[0, c], slopes[1, c], slopes[2, c], slopes[3, c]
        x0, x1, x2, x3, x4, x5, x6 = x[0, c], x[1, c], x[2, c], x[3, c], x[4, c], x[5, c], x[6, c]
        partial[0, c] += g0 * x0 + g1 * x1 + g2 * x2 + g3 * x3
        partial[1, c] += g0 * x1 + g1 * x2 + g2 * x3 + g3 * x4
        partial[2, c] += g0 * x2 + g1 * x3 + g2 * x4 + g3 * x5
        partial[3, c] += g0 * x3 + g1 * x4 + g2 * x5 + g3 * x6
        partial[4, c] += g0 + g1 + g2 + g3


@inlined
def _spread_row(out: Any, slopes: Any, i: Any, weights: Any, begin: Any, end: Any, w: Any) -> None:
    """Write the gradient of one input: the slopes of the rows i + begin .. i + end - 1 that saw it, by their taps."""
    taps = weights.shape[0] - 1
    for c in range(w):
        out[c] = np.float32(0.0)
    for j in range(begin, end):
        slope, weight = slopes[i + j], weights[taps - 1 - j]
        for c in range(w):
            out[c] += slope[c] * weight[c]


@inlined
def _spread_four_rows(out: Any, slopes: Any, weights: Any, w: Any) -> None:
    """Write the gradients of four inputs of a convolution of four taps."""
    for c in range(w):
        w0, w1, w2, w3 = weights[0, c], weights[1, c], weights[2, c], weights[3, c]
        g0, g1, g2, g3 = slopes[0, c], slopes[1, c], slopes[2, c], slopes[3, c]
        g4, g5, g6 = slopes[4, c], slopes[5, c], slopes[6, c]
        out[0, c] = g0 * w3 + g1 * w2 + g2 * w1 + g3 * w0
        out[1, c] = g1 * w3 + g2 * w2 + g3 * w1 + g4 * w0
        out[2, c] = g2 * w3 + g3 * w2 + g4 * w1 + g5 * w0
        out[3, c] = g3 * w3 + g4 * w2 + g5 * w1 + g6 * w0


@inlined
def _add_carried(out: Any, carry: Any, batch: Any, s: Any, seen: Any, length: Any, d: Any, w: Any) -> None:
    """Add the final state's gradient to input s, if it lies in that state: near the end, with no reset after it."""
    carried = carry.shape[2]
    if carried and s >= length - carried and s + seen == length:
        for c in range(w):
            out[c] += carry[batch, d + c, s - length + carried]


@inlined
def _slope_tile(slopes: Any, grad: Any, activate: Any, batch: Any, first: Any, count: Any, d: Any, w: Any) -> None:
    """Turn sums before the activation, in place, into the gradient with respect to them."""
    array, batch_stride, row_stride, origin = grad
    for i in range(count):
        start = origin + batch * batch_stride + (first + i) * row_stride + d
        outer, slope = array[start : start + w], slopes[i]
        if activate:
            for c in range(w):
                slope[c] = widen(outer[c]) * silu_slope(slope[c])
        else:
            for c in range(w):
                slope[c] = widen(outer[c])


@inlined
def _spread_tile(
    grads: Any,
    slopes: Any,
    weights: Any,
    reset: Any,
    carry: Any,
    batch: Any,
    first: Any,
    count: Any,
    length: Any,
    d: Any,
    w: Any,
) -> None:
    """Write the gradients of the inputs first .. first + count - 1 to grads."""
    taps = weights.shape[0] - 1
    i = 0
    while i < count:
        s = first + i
        whole = taps == 4 and i + 4 <= count and s + 7 <= length
        if whole and reset.shape[1]:
            for k in range(4):
                whole = whole and _rows_reached(reset, batch, s + k, taps, length) == taps
        if whole:
            _spread_four_rows(grads[i : i + 4], slopes[i : i + 7], weights, w)
            i += 4
        else:
            seen = _rows_reached(reset, batch, s, taps, length)
            _spread_row(grads[i], slopes, i, weights, 0, seen, w)
            _add_carried(grads[i], carry, batch, s, seen, length, d, w)
            i += 1


@inlined
def _weigh_tile(partial: Any, slopes: Any, tile: Any, reset: Any, batch: Any, first: Any, count: Any, w: Any) -> None:
    """Add a tile's share of the gradient of the packed weights."""
    taps = partial.shape[0] - 1
    fast = count // 4 * 4 if taps == 4 and not reset.shape[1] else 0
    for i in range(0, fast, 4):
        _add_four_weight_gradients(partial, slopes[i : i + 4], tile[i : i + 7], w)
    _add_weight_gradient(partial, slopes[fast:], tile[fast:], reset, batch, first + fast, count - fast, w)


@inlined
def _spread_to_state(
    state_grad: Any,
    row: Any,
    slopes: Any,
    weights: Any,
    reset: Any,
    carry: Any,
    batch: Any,
    length: Any,
    d: Any,
    w: Any,
) -> None:
    """Write the gradient of the state before row 0, from the slopes of the first rows."""
    taps, carried = weights.shape[0] - 1, state_grad.shape[2]
    for s in range(-carried, 0):
        seen = _rows_reached(reset, batch, s, taps, length)
        _spread_row(row, slopes, s, weights, -s, seen, w)
        _add_carried(row, carry, batch, s, seen, length, d, w)
        for c in range(w):
            state_grad[batch, d + c, carried + s] = row[c]


@kernel
def convolve_backward(
    lo: int, hi: int, grad: Any, x: Any, x_grad: Any, state: Any, carry: Any, state_grad: Any, reset: Any, packed: Any,
    partials: Any, activate: bool, length: int, channels: int
) -> None:  # fmt: skip
    """Compute the gradients of the tasks lo .. hi - 1; sums before the activation are computed again, not stored.

    What is not described here is as in `convolve`.

    Args:
        lo: First task.
        hi: End of the tasks.
        grad: Plane of the output's gradient.
        x: Input plane.
        x_grad: Plane that the input's gradient is written to.
        state: (B, D, K - 1) float32 inputs before row 0, or (B, D, 0).
        carry: (B, D, K - 1) float32 gradient of the final state, or (B, D, 0).
        state_grad: Written: the gradient of `state`, of its shape.
        reset: (B, L) bool in scan order, or (B, 0).
        packed: (K + 1, D) float32: the taps, oldest first, then the bias.
        partials: (tasks, K + 1, D) float32, written: each task's share of the gradient of `packed`.
        activate: Whether silu was applied.
        length: L.
        channels: D.
    """
    taps = packed.shape[0] - 1
    blocks = (length + TASK_ROWS - 1) // TASK_ROWS
    tile = _scratch(ROWS + 2 * (taps - 1))
    slopes = _scratch(ROWS + taps - 1)
    grads = _scratch(ROWS)
    weights = _scratch(taps + 1)
    partial = _scratch(taps + 1)
    for task in range(lo, hi):
        batch, first = task // blocks, (task % blocks) * TASK_ROWS
        last = min(first + TASK_ROWS, length)
        for d in range(0, channels, WIDTH):
            w = min(WIDTH, channels - d)
            weights[:, :w] = packed[:, d : d + w]
            partial[:] = np.float32(0.0)
            for r in range(first, last, ROWS):
                count = min(ROWS, last - r)
                reach = min(count + taps - 1, length - r)
                _load_rows(tile, x, state, batch, r - taps + 1, reach + taps - 1, length, d, w)
                if activate:
                    _convolve_tile(slopes, tile, weights, reset, batch, r, reach, w)
                _slope_tile(slopes, grad, activate, batch, r, reach, d, w)
                _weigh_tile(partial, slopes, tile, reset, batch, r, count, w)
                _spread_tile(grads, slopes, weights, reset, carry, batch, r, count, length, d, w)
                _store_rows(x_grad, grads, batch, r, count, d, w)
                if r == 0:
                    _spread_to_state(state_grad, grads[0], slopes, weights, reset, carry, batch, length, d, w)
            partials[task, :, d : d + w] = partial[:, :w]
