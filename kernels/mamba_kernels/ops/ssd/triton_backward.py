"""Triton kernels of SSD's backward pass: see `triton_forward` for the legend and README.md for the derivation.

GRAD is dL/dy; BEFORE are the states before the chunks, AFTER the gradients of those after them, both (B, K, H, P, N).
Sums over channels and states go to a row of each block's own; those over the heads of a group run in registers, in
order: no atomics.
"""
# ruff: noqa: ANN001, ANN201, RUF059  (Triton's compiler reads annotations, and tuples are taken apart whole)

from typing import no_type_check

import triton
import triton.language as tl

from mamba_kernels.ops.ssd.triton_forward import (
    chunk_rows,
    decay_from_start,
    decay_to_end,
    inner,
    load_rows,
    load_state,
    load_steps,
    locate,
    pair_decays,
    plane,
    product,
    weights,
)


@no_type_check
@triton.jit
def state_back(
    rows_p,
    row_stride,
    parameter_p,
    parameter_stride,
    t,
    weighed,
    state_p,
    p,
    left,
    widths,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Return the state times rows of B or C, each as far as `weighed` says, and its product with other rows."""
    P, N = widths
    T: tl.constexpr = SHAPE[1]
    PB: tl.constexpr = SHAPE[2]
    NB: tl.constexpr = SHAPE[3]
    ACC: tl.constexpr = MATH[2]
    found = tl.zeros((T, PB), ACC)
    for n0 in range(0, N, NB):
        n = n0 + tl.arange(0, NB)
        parameter = load_rows(parameter_p, parameter_stride, t, left, n, N, REVERSE, MATH)
        found = product(parameter, tl.trans(load_state(state_p, p, P, n, N, MATH)), found, MATH)
    seen, weight = weighed
    found = tl.where(seen[:, None], found * weight[:, None], 0.0)
    rows = load_rows(rows_p, row_stride, t, left, p, P, REVERSE, MATH)
    return found, tl.sum(tl.where(seen[:, None], found * rows, 0.0), axis=1)


@no_type_check
@triton.jit(do_not_specialize=["sizes"])
def ssd_backward_inputs(
    inputs,
    GRAD,
    states,
    steps,
    outputs,
    sizes,
    widths,
    strides,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Write dx of one tile, head and block of channels.

    Of (blocks, B, H, K Q) each, DLEAVE gets this block's share of the gradient of each position's log decay to the
    chunk's end, DSTEP the same without the factor dt, which is dt's gradient as a weight there, and DENTER that of the
    log decay from the chunk's beginning.
    """
    X, B, C = inputs
    BEFORE, AFTER = states
    DX, DSTEP, DLEAVE, DENTER = outputs
    L, H, G, K, batches = sizes
    P, N = widths
    Q: tl.constexpr = SHAPE[0]
    T: tl.constexpr = SHAPE[1]
    PB: tl.constexpr = SHAPE[2]
    NB: tl.constexpr = SHAPE[3]
    block, head, tile, chunk, batch = locate(sizes, tl.cdiv(P, PB), H, Q // T)
    p = (block * PB).to(tl.int32) + tl.arange(0, PB)
    group = head // (H // G)
    start, left = chunk_rows(sizes, chunk, Q, REVERSE)
    x_p = X + batch * strides[0] + head * strides[2] + start * strides[1]
    b_p = B + batch * strides[3] + group * strides[5] + start * strides[4]
    c_p = C + batch * strides[6] + group * strides[8] + start * strides[7]
    g_p = GRAD + batch * strides[9] + head * strides[11] + start * strides[10]
    t = tile * T + tl.arange(0, T)
    own = load_steps(steps, batch, head, chunk, t, sizes, Q)
    dx = tl.zeros((T, PB), MATH[2])
    for k in range(tile, Q // T):
        t2 = k * T + tl.arange(0, T)
        other = load_steps(steps, batch, head, chunk, t2, sizes, Q)
        mix = inner(b_p, strides[4], c_p, strides[7], t, t2, left, N, NB, T, REVERSE, MATH)
        seen, decay = pair_decays(own, other, False)
        mix = tl.where(seen, mix * decay, 0.0)
        dx = product(mix, load_rows(g_p, strides[10], t2, left, p, P, REVERSE, MATH), dx, MATH)
    at = block * plane(sizes, Q) + ((batch * H + head) * K + chunk) * Q
    state = ((batch * K + chunk) * H + head) * P * N
    enter = decay_from_start(own)
    read, stored = state_back(
        g_p, strides[10], c_p, strides[7], t, enter, BEFORE + state, p, left, widths, REVERSE, SHAPE, MATH
    )
    tl.store(DENTER + at + t, stored)
    leave = decay_to_end(own, load_steps(steps, batch, head, chunk, Q - 1, sizes, Q))
    wanted, stored = state_back(
        x_p, strides[1], b_p, strides[4], t, leave, AFTER + state, p, left, widths, REVERSE, SHAPE, MATH
    )
    tl.store(DSTEP + at + t, stored)
    tl.store(DLEAVE + at + t, own[3] * stored)
    dx = (dx + wanted) * own[3][:, None]
    row = -t if REVERSE else t
    dx_p = DX + ((batch * L + start) * H + head) * P + (row[:, None] * (H * P) + p[None, :])
    tl.store(dx_p, dx.to(DX.dtype.element_ty), mask=(t < left)[:, None] & (p < P)[None, :])


@no_type_check
@triton.jit(do_not_specialize=["sizes"])
def ssd_backward_pairs(
    inputs,
    GRAD,
    steps,
    outputs,
    sizes,
    widths,
    strides,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Differentiate the pairs of positions of which the earlier lies in one tile, for one head.

    DLOG (tiles, B, H, K Q) gets, at each position from the tile on, the gradient of the position's log decay through
    these pairs. The later positions are walked from the last, so that the sums over pairs grow and nothing is ever
    taken off them. DPAIR (B, H, K Q) gets the gradient of the earlier positions' dt as a weight.
    """
    X, B, C = inputs
    DLOG, DPAIR = outputs
    L, H, G, K, batches = sizes
    P, N = widths
    Q: tl.constexpr = SHAPE[0]
    T: tl.constexpr = SHAPE[1]
    TILES: tl.constexpr = Q // T
    block, head, tile, chunk, batch = locate(sizes, 1, H, TILES)
    group = head // (H // G)
    start, left = chunk_rows(sizes, chunk, Q, REVERSE)
    x_p = X + batch * strides[0] + head * strides[2] + start * strides[1]
    b_p = B + batch * strides[3] + group * strides[5] + start * strides[4]
    c_p = C + batch * strides[6] + group * strides[8] + start * strides[7]
    g_p = GRAD + batch * strides[9] + head * strides[11] + start * strides[10]
    t = tile * T + tl.arange(0, T)
    own = load_steps(steps, batch, head, chunk, t, sizes, Q)
    total = tl.zeros((T,), MATH[2])
    at = ((batch * H + head) * K + chunk) * Q
    for k in range(TILES - tile):
        t2 = (TILES - 1 - k) * T + tl.arange(0, T)
        other = load_steps(steps, batch, head, chunk, t2, sizes, Q)
        e = inner(b_p, strides[4], c_p, strides[7], t, t2, left, N, SHAPE[3], T, REVERSE, MATH)
        e *= inner(x_p, strides[1], g_p, strides[10], t, t2, left, P, SHAPE[2], T, REVERSE, MATH)
        seen, decay = pair_decays(own, other, False)
        e = tl.where(seen, e * decay, 0.0)
        past = t[:, None] < t2[None, :]
        later = tl.cumsum(tl.where(past, e * own[3][:, None], 0.0), axis=1, reverse=True) + (total * own[3])[:, None]
        tl.store(DLOG + tile * plane(sizes, Q) + at + t2, tl.sum(tl.where(past, later, 0.0), axis=0))
        total += tl.sum(e, axis=1)
    tl.store(DPAIR + at + t, total)


@no_type_check
@triton.jit
def project_back(
    total,
    own,
    other,
    pointers,
    row_strides,
    n,
    left,
    widths,
    OF_C: tl.constexpr,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Add to total (T, NB) the sum over the other tile of (dL/dy_i . x_j) exp(s_ij) dt_j times its B_j or C_i."""
    own_p, other_p, parameter_p = pointers
    P, N = widths
    T: tl.constexpr = SHAPE[1]
    PB: tl.constexpr = SHAPE[2]
    mix = inner(own_p, row_strides[0], other_p, row_strides[1], own[0], other[0], left, P, PB, T, REVERSE, MATH)
    seen, decay = pair_decays(own, other, OF_C)
    mix = tl.where(seen, mix * decay * (other[3][None, :] if OF_C else own[3][:, None]), 0.0)
    return product(mix, load_rows(parameter_p, row_strides[2], other[0], left, n, N, REVERSE, MATH), total, MATH)


@no_type_check
@triton.jit
def project_state(
    total,
    own,
    last,
    rows_p,
    stride,
    state_p,
    n,
    left,
    widths,
    OF_C: tl.constexpr,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Add to total the rows of one head, as far as they are tied to the entering or leaving state, times a state."""
    P, N = widths
    PB: tl.constexpr = SHAPE[2]
    seen, weight = weights(own, last, OF_C)
    for p0 in range(0, P, PB):
        p = p0 + tl.arange(0, PB)
        v = load_rows(rows_p, stride, own[0], left, p, P, REVERSE, MATH)
        v = tl.where(seen[:, None], v * weight[:, None], 0.0)
        total = product(v, load_state(state_p, p, P, n, N, MATH), total, MATH)
    return total


@no_type_check
@triton.jit(do_not_specialize=["sizes", "each"])
def ssd_backward_projections(
    rows,
    PARAMETER,
    STATES,
    steps,
    SHARES,
    sizes,
    widths,
    strides,
    each,
    OF_C: tl.constexpr,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Write dC (OF_C) or dB of one tile and block of states, summed over `each` neighbouring heads of a group.

    For dC the rows are dL/dy and x, PARAMETER is B, and STATES are those before the chunks; for dB the rows are x and
    dL/dy, PARAMETER is C, and STATES the gradients after the chunks. SHARES (splits, B, L, G, N) gets the sum.
    """
    L, H, G, K, batches = sizes
    P, N = widths
    Q: tl.constexpr = SHAPE[0]
    T: tl.constexpr = SHAPE[1]
    NB: tl.constexpr = SHAPE[3]
    ACC: tl.constexpr = MATH[2]
    splits = tl.cdiv(H // G, each)
    block, place, tile, chunk, batch = locate(sizes, tl.cdiv(N, NB), G * splits, Q // T)
    group, split = place // splits, place % splits
    n = (block * NB).to(tl.int32) + tl.arange(0, NB)
    t = tile * T + tl.arange(0, T)
    start, left = chunk_rows(sizes, chunk, Q, REVERSE)
    first = group * (H // G) + split * each
    final = tl.minimum(first + each, (group + 1) * (H // G))
    own_rows = rows[0] + batch * strides[0] + start * strides[1]
    other_rows = rows[1] + batch * strides[3] + start * strides[4]
    parameter_p = PARAMETER + batch * strides[6] + group * strides[8] + start * strides[7]
    row_strides = (strides[1], strides[4], strides[7])
    total = tl.zeros((T, NB), ACC)
    for k in range((final - first).to(tl.int32)):
        head = first + k
        pointers = (own_rows + head * strides[2], other_rows + head * strides[5], parameter_p)
        own = load_steps(steps, batch, head, chunk, t, sizes, Q)
        for i in range(0 if OF_C else tile, tile + 1 if OF_C else Q // T):
            other = load_steps(steps, batch, head, chunk, i * T + tl.arange(0, T), sizes, Q)
            total = project_back(total, own, other, pointers, row_strides, n, left, widths, OF_C, REVERSE, SHAPE, MATH)
        last = load_steps(steps, batch, head, chunk, Q - 1, sizes, Q)
        state_p = STATES + ((batch * K + chunk) * H + head) * P * N
        total = project_state(
            total, own, last, pointers[0], strides[1], state_p, n, left, widths, OF_C, REVERSE, SHAPE, MATH
        )
    row = -t if REVERSE else t
    at = SHARES + ((split * batches + batch) * L + start) * (G * N) + group * N
    mask = (t < left)[:, None] & (n < N)[None, :]
    tl.store(at + (row[:, None] * (G * N) + n[None, :]), total, mask=mask)


@no_type_check
@triton.jit(do_not_specialize=["sizes", "counts"])
def ssd_backward_steps(
    A,
    STEPS,
    shares,
    outputs,
    sizes,
    counts,
    REVERSE: tl.constexpr,
    Q: tl.constexpr,
    T: tl.constexpr,
    ACC: tl.constexpr,
):
    """Add up the shares of one head's chunk: the gradient of dt, and the chunk's share of A's gradient (B, H, K).

    A position's decay acts on every pair of positions around it, on what later positions see of the entering state, on
    what the leaving state keeps of earlier positions, and on what the chunk carries through.
    """
    DLOG, DPAIR, DSTEP, DLEAVE, DENTER, THROUGH = shares
    DDT, DA = outputs
    L, H, G, K, batches = sizes
    of_channels, of_both = counts
    block, head, tile, chunk, batch = locate(sizes, 1, H, 1)
    start, left = chunk_rows(sizes, chunk, Q, REVERSE)
    t = tl.arange(0, Q)
    planes, place = plane(sizes, Q), (batch * H + head) * K + chunk
    at = place * Q
    dlog, dstep = tl.zeros((Q,), ACC), tl.load(DPAIR + at + t)
    leave, enter, through = tl.zeros((Q,), ACC), tl.zeros((Q,), ACC), tl.zeros((), ACC)
    for j in range(Q // T):
        dlog += tl.load(DLOG + planes * j + at + t, mask=t >= j * T, other=0.0)
    for k in range(of_channels):
        share = planes * k + at
        dstep += tl.load(DSTEP + share + t)
        enter += tl.load(DENTER + share + t)
        leave += tl.load(DLEAVE + share + t - 1, mask=t > 0, other=0.0)
    for k in range(of_both):
        through += tl.load(THROUGH + plane(sizes, 1) * k + place)
    dlog += tl.cumsum(enter, axis=0, reverse=True) + tl.cumsum(leave, axis=0) + through
    row = start - t if REVERSE else start + t
    tl.store(DDT + (batch * L + row) * H + head, dstep + tl.load(A + head).to(ACC) * dlog, mask=t < left)
    tl.store(DA + place, tl.sum(dlog * tl.load(STEPS + planes * 2 + at + t), axis=0))
