"""What lies between the matrix products of SSD on the CPU: the matrices of decays, and their gradients.

Every matrix is Q x Q for one head of one chunk; [i, j] is what position i receives from position j. The decay from j to
i is kept as a running sum of logarithms for each j, to which the next position's is added: its digits are those of
the sum itself, however strong the damping. Positions at and after a reset receive nothing from those before it, so a
row's loop begins at its document's first position, and no mask is needed.
"""

from typing import Any

import numpy as np

from mamba_kernels.cpu.numba_elementwise import LOG2_E, exp2
from mamba_kernels.cpu.numba_runtime import inlined, kernel

ZERO = np.float32(0.0)


@inlined
def _matrix(array: Any, index: Any, size: Any) -> Any:
    return array[index * size * size : (index + 1) * size * size]


@inlined
def _row(array: Any, index: Any, size: Any) -> Any:
    return array[index * size : (index + 1) * size]


@inlined
def _span(first: Any, i: Any, reverse: Any) -> Any:
    """Return the borders of the positions that i receives from, its own included."""
    return (i, first + 1) if reverse else (first, i + 1)


@inlined
def _advance(sums: Any, lo: Any, hi: Any, i: Any, log_decay: Any) -> None:
    """Let the decays from all positions lo .. hi - 1 pass through position i, the latest of them."""
    step = log_decay[i] * LOG2_E
    for j in range(lo, hi):
        sums[j] += step
    sums[i] = ZERO


@kernel
def mix_matrices(
    lo: int, hi: int, shared: Any, log_decay: Any, dt: Any, reset: Any, reverse: bool, heads: int, groups: int, out: Any
) -> None:
    """Write the matrices lo .. hi - 1 that map a chunk's inputs to its outputs: C_i . B_j decay_ij dt_j.

    Args:
        lo: First matrix, counted over chunks, then heads.
        hi: End of the matrices.
        shared: Flat (K, G, Q, Q), the products C_i . B_j.
        log_decay: (K * H, Q), dt A.
        dt: (K * H, Q).
        reset: (K, Q) bool, or (K, 0) for none.
        reverse: Time runs from the right.
        heads: H.
        groups: G.
        out: Flat (K, H, Q, Q), written.
    """
    size = log_decay.shape[1]
    sums = np.empty(size, np.float32)
    for k in range(lo, hi):
        chunk, group = k // heads, (k % heads) // (heads // groups)
        products, target = _matrix(shared, chunk * groups + group, size), _matrix(out, k, size)
        steps, first = dt[k], size - 1 if reverse else 0
        for n in range(size):
            i = size - 1 - n if reverse else n
            if reset.shape[1] and reset[chunk, i]:
                first = i
            begin, end = _span(first, i, reverse)
            _advance(sums, begin, end, i, log_decay[k])
            row, source = _row(target, i, size), _row(products, i, size)
            for j in range(begin):
                row[j] = ZERO
            for j in range(begin, end):
                row[j] = source[j] * exp2(sums[j]) * steps[j]
            for j in range(end, size):
                row[j] = ZERO


@inlined
def _differentiate_row(
    begin: Any, end: Any, sums: Any, steps: Any, products: Any, mixed: Any, by_decay: Any, by_step: Any, by_product: Any
) -> None:
    """Take the gradient of one row apart; `mixed` holds it and receives the row itself."""
    for j in range(begin, end):
        decay = exp2(sums[j])
        grad = mixed[j] * decay
        value = grad * products[j]
        by_step[j] += value
        by_decay[j] = value * steps[j]
        by_product[j] += grad * steps[j]
        mixed[j] = products[j] * decay * steps[j]


@inlined
def _sum_across(first_row: Any, by_decay: Any, columns: Any, grad: Any, size: Any, reverse: Any) -> None:
    """Sum at each position the gradients of all decays that pass through it: from earlier to it or later ones."""
    columns[:] = ZERO
    for n in range(size):
        i = n if reverse else size - 1 - n
        row = _row(by_decay, i, size)
        begin, end = _span(first_row[i], i, reverse)
        for j in range(begin, end):
            columns[j] += row[j]
        total = ZERO
        for j in range(begin + 1 if reverse else begin, end if reverse else end - 1):
            total += columns[j]
        grad[i] = total


@kernel
def mix_matrices_backward(
    lo: int,
    hi: int,
    shared: Any,
    log_decay: Any,
    dt: Any,
    reset: Any,
    reverse: bool,
    heads: int,
    groups: int,
    mixed: Any,
    by_product: Any,
    by_log_decay: Any,
    by_dt: Any,
) -> None:
    """Differentiate `mix_matrices` for the heads of the groups lo .. hi - 1, counted over chunks, then groups.

    Args:
        lo: First group.
        hi: End of the groups.
        shared: As for `mix_matrices`, as are the arguments up to `groups`.
        log_decay: (K * H, Q).
        dt: (K * H, Q).
        reset: (K, Q) or (K, 0).
        reverse: Time runs from the right.
        heads: H.
        groups: G.
        mixed: Flat (K, H, Q, Q): holds the matrices' gradients, receives the matrices themselves.
        by_product: Flat (K, G, Q, Q), zeros, receives the gradient of `shared`.
        by_log_decay: (K * H, Q), written.
        by_dt: (K * H, Q), zeros, receives the gradient of dt with the decays held fixed.
    """
    size, each = log_decay.shape[1], heads // groups
    sums, columns = np.empty(size, np.float32), np.empty(size, np.float32)
    by_decay, first_row = np.empty(size * size, np.float32), np.empty(size, np.int64)
    for kg in range(lo, hi):
        chunk = kg // groups
        products, product_grad = _matrix(shared, kg, size), _matrix(by_product, kg, size)
        for k in range(kg * each, (kg + 1) * each):
            target, first = _matrix(mixed, k, size), size - 1 if reverse else 0
            for n in range(size):
                i = size - 1 - n if reverse else n
                if reset.shape[1] and reset[chunk, i]:
                    first = i
                first_row[i] = first
                begin, end = _span(first, i, reverse)
                _advance(sums, begin, end, i, log_decay[k])
                row = _row(target, i, size)
                source, logs, by = _row(products, i, size), _row(by_decay, i, size), _row(product_grad, i, size)
                _differentiate_row(begin, end, sums, dt[k], source, row, logs, by_dt[k], by)
                row[:begin] = ZERO
                row[end:] = ZERO
            _sum_across(first_row, by_decay, columns, by_log_decay[k], size, reverse)
