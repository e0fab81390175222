"""Triton kernels of SSD's backward pass: see `triton_forward` for the legend and README.md for the derivation.

GRAD is dL/dy; BEFORE are the states before the chunks, AFTER the gradients of those after them, both (B, K, H, P, N).
Sums over channels and states go to a row of each block's own; those over the heads of a group run in registers, in
order: no atomics.
"""
# ruff: noqa: ANN001, ANN201, RUF059  (Triton's compiler reads annotations, and tuples are taken apart whole)

from typing import no_type_check

import triton
import triton.language as tl

from mamba_kernels.ssd.triton_forward import (
    chunk_rows,
    decay_to_end,
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
def mix_back(
    x,
    dx,
    own,
    other,
    pointers,
    row_strides,
    p,
    left,
    widths,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Add what a later tile of outputs (or the same) wants of x to dx, but for dt; return also E_ij as [j, i]."""
    b_p, c_p, g_p = pointers
    P, N = widths
    T: tl.constexpr = SHAPE[1]
    NB: tl.constexpr = SHAPE[3]
    ACC: tl.constexpr = MATH[2]
    mix = tl.zeros((T, T), ACC)
    for n0 in range(0, N, NB):
        n = n0 + tl.arange(0, NB)
        b = load_rows(b_p, row_strides[0], own[0], left, n, N, REVERSE, MATH)
        c = load_rows(c_p, row_strides[1], other[0], left, n, N, REVERSE, MATH)
        mix = product(b, tl.trans(c), mix, MATH)
    seen, decay = pair_decays(own, other, False)
    mix = tl.where(seen, mix * decay, 0.0)
    g = load_rows(g_p, row_strides[2], other[0], left, p, P, REVERSE, MATH)
    dx = product(mix, g, dx, MATH)
    return dx, mix * product(x, tl.trans(g), tl.zeros((T, T), ACC), MATH)


@no_type_check
@triton.jit
def state_back(
    x,
    own,
    last,
    b_p,
    stride,
    state_p,
    p,
    left,
    widths,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Return what the leaving state wants of x, but for dt, and its product with x."""
    P, N = widths
    T: tl.constexpr = SHAPE[1]
    PB: tl.constexpr = SHAPE[2]
    NB: tl.constexpr = SHAPE[3]
    ACC: tl.constexpr = MATH[2]
    wanted = tl.zeros((T, PB), ACC)
    for n0 in range(0, N, NB):
        n = n0 + tl.arange(0, NB)
        b = load_rows(b_p, stride, own[0], left, n, N, REVERSE, MATH)
        wanted = product(b, tl.trans(load_state(state_p, p, P, n, N, MATH)), wanted, MATH)
    seen, leaving = decay_to_end(own, last)
    wanted = tl.where(seen[:, None], wanted * leaving[:, None], 0.0)
    return wanted, tl.sum(tl.where(seen[:, None], wanted * x, 0.0), axis=1)


@no_type_check
@triton.jit(do_not_specialize=["sizes"])
def ssd_backward_inputs(
    inputs,
    GRAD,
    AFTER,
    steps,
    outputs,
    sizes,
    widths,
    strides,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Write dx of one tile, head and block of channels, and this block's shares of the gradients of its steps.

    DLOG (blocks, tiles, B, H, K Q) gets, at each position from the tile on, the gradient of the position's log decay
    through pairs whose earlier position lies in this tile. It walks over the later positions from the last, so that the
    sums over pairs grow and nothing is ever taken off them. DSTEP (blocks, B, H, K Q) gets the gradient of dt where
    it is a weight, and DLEAVE the gradient of each position's log decay to the chunk's end.
    """
    X, B, C = inputs
    DX, DLOG, DSTEP, DLEAVE = outputs
    L, H, G, K, batches = sizes
    P, N = widths
    Q: tl.constexpr = SHAPE[0]
    T: tl.constexpr = SHAPE[1]
    PB: tl.constexpr = SHAPE[2]
    ACC: tl.constexpr = MATH[2]
    TILES: tl.constexpr = Q // T
    block, head, tile, chunk, batch = locate(sizes, tl.cdiv(P, PB), H, TILES)
    p = (block * PB).to(tl.int32) + tl.arange(0, PB)
    group = head // (H // G)
    start, left = chunk_rows(sizes, chunk, Q, REVERSE)
    x_p = X + batch * strides[0] + head * strides[2] + start * strides[1]
    b_p = B + batch * strides[3] + group * strides[5] + start * strides[4]
    c_p = C + batch * strides[6] + group * strides[8] + start * strides[7]
    pointers = (b_p, c_p, GRAD + batch * strides[9] + head * strides[11] + start * strides[10])
    row_strides = (strides[4], strides[7], strides[10])
    t = tile * T + tl.arange(0, T)
    own = load_steps(steps, batch, head, chunk, t, sizes, Q)
    x = load_rows(x_p, strides[1], t, left, p, P, REVERSE, MATH)
    dx, dstep = tl.zeros((T, PB), ACC), tl.zeros((T,), ACC)
    at = ((batch * H + head) * K + chunk) * Q
    dlog_p = DLOG + (block * TILES + tile) * plane(sizes, Q) + at
    for k in range(TILES - 1 - tile):
        other = load_steps(steps, batch, head, chunk, (TILES - 1 - k) * T + tl.arange(0, T), sizes, Q)
        dx, e = mix_back(x, dx, own, other, pointers, row_strides, p, left, widths, REVERSE, SHAPE, MATH)
        later = tl.cumsum(tl.sum(e * own[3][:, None], axis=0), axis=0, reverse=True)
        tl.store(dlog_p + other[0], later + tl.sum(dstep * own[3], axis=0))
        dstep += tl.sum(e, axis=1)
    dx, e = mix_back(x, dx, own, own, pointers, row_strides, p, left, widths, REVERSE, SHAPE, MATH)
    past = t[:, None] < t[None, :]
    later = tl.cumsum(tl.where(past, e * own[3][:, None], 0.0), axis=1, reverse=True) + (dstep * own[3])[:, None]
    tl.store(dlog_p + t, tl.sum(tl.where(past, later, 0.0), axis=0))
    dstep += tl.sum(e, axis=1)
    last = load_steps(steps, batch, head, chunk, Q - 1, sizes, Q)
    state_p = AFTER + ((batch * K + chunk) * H + head) * P * N
    wanted, stored = state_back(x, own, last, b_p, strides[4], state_p, p, left, widths, REVERSE, SHAPE, MATH)
    tl.store(DSTEP + block * plane(sizes, Q) + at + t, dstep + stored)
    tl.store(DLEAVE + block * plane(sizes, Q) + at + t, own[3] * stored)
    dx = (dx + wanted) * own[3][:, None]
    row = -t if REVERSE else t
    dx_p = DX + ((batch * L + start) * H + head) * P + (row[:, None] * (H * P) + p[None, :])
    tl.store(dx_p, dx.to(DX.dtype.element_ty), mask=(t < left)[:, None] & (p < P)[None, :])


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
    ACC: tl.constexpr = MATH[2]
    mixed = tl.zeros((T, T), ACC)
    for p0 in range(0, P, PB):
        p = p0 + tl.arange(0, PB)
        v = load_rows(own_p, row_strides[0], own[0], left, p, P, REVERSE, MATH)
        w = load_rows(other_p, row_strides[1], other[0], left, p, P, REVERSE, MATH)
        mixed = product(v, tl.trans(w), mixed, MATH)
    seen, decay = pair_decays(own, other, OF_C)
    mixed = tl.where(seen, mixed * decay * (other[3][None, :] if OF_C else own[3][:, None]), 0.0)
    return product(mixed, load_rows(parameter_p, row_strides[2], other[0], left, n, N, REVERSE, MATH), total, MATH)


@no_type_check
@triton.jit
def project_state(
    t,
    rows_p,
    stride,
    state_p,
    n,
    left,
    widths,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Return rows of one head times a state."""
    P, N = widths
    T: tl.constexpr = SHAPE[1]
    PB: tl.constexpr = SHAPE[2]
    NB: tl.constexpr = SHAPE[3]
    ACC: tl.constexpr = MATH[2]
    found = tl.zeros((T, NB), ACC)
    for p0 in range(0, P, PB):
        p = p0 + tl.arange(0, PB)
        v = load_rows(rows_p, stride, t, left, p, P, REVERSE, MATH)
        found = product(v, load_state(state_p, p, P, n, N, MATH), found, MATH)
    return found


@no_type_check
@triton.jit(do_not_specialize=["sizes", "each"])
def ssd_backward_projections(
    rows,
    parameters,
    STATES,
    steps,
    outputs,
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

    For dC the rows are dL/dy and x, the parameters B and C, and STATES those before the chunks; for dB the rows are x
    and dL/dy, the parameters C and B, and STATES the gradients after the chunks. SHARES (splits, B, L, G, N) gets the
    sum; for dC, DENTER (blocks, B, H, K Q) gets the gradient of each position's log decay from the chunk's beginning.
    """
    SHARES, DENTER = outputs
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
    parameter_p = parameters[0] + batch * strides[6] + group * strides[8] + start * strides[7]
    row_strides = (strides[1], strides[4], strides[7])
    total = tl.zeros((T, NB), ACC)
    for k in range((final - first).to(tl.int32)):
        head = first + k
        pointers = (own_rows + head * strides[2], other_rows + head * strides[5], parameter_p)
        own = load_steps(steps, batch, head, chunk, t, sizes, Q)
        for i in range(0 if OF_C else tile, tile + 1 if OF_C else Q // T):
            other = load_steps(steps, batch, head, chunk, i * T + tl.arange(0, T), sizes, Q)
            total = project_back(total, own, other, pointers, row_strides, n, left, widths, OF_C, REVERSE, SHAPE, MATH)
        state_p = STATES + ((batch * K + chunk) * H + head) * P * N
        through = project_state(t, pointers[0], strides[1], state_p, n, left, widths, REVERSE, SHAPE, MATH)
        seen, weight = weights(own, load_steps(steps, batch, head, chunk, Q - 1, sizes, Q), OF_C)
        through = tl.where(seen[:, None], through * weight[:, None], 0.0)
        if OF_C:
            c_p = parameters[1] + batch * strides[9] + group * strides[11] + start * strides[10]
            c = load_rows(c_p, strides[10], t, left, n, N, REVERSE, MATH)
            at = block * plane(sizes, Q) + ((batch * H + head) * K + chunk) * Q
            tl.store(DENTER + at + t, tl.sum(tl.where(seen[:, None], through * c, 0.0), axis=1))
        total += through
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
    DLOG, DSTEP, DLEAVE, DENTER, THROUGH = shares
    DDT, DA = outputs
    L, H, G, K, batches = sizes
    of_channels, of_states, of_both = counts
    block, head, tile, chunk, batch = locate(sizes, 1, H, 1)
    start, left = chunk_rows(sizes, chunk, Q, REVERSE)
    t = tl.arange(0, Q)
    planes, place = plane(sizes, Q), (batch * H + head) * K + chunk
    at = place * Q
    dlog, dstep = tl.zeros((Q,), ACC), tl.zeros((Q,), ACC)
    leave, enter, through = tl.zeros((Q,), ACC), tl.zeros((Q,), ACC), tl.zeros((), ACC)
    for k in range(of_channels):
        share = planes * k + at
        dstep += tl.load(DSTEP + share + t)
        leave += tl.load(DLEAVE + share + t - 1, mask=t > 0, other=0.0)
        for j in range(Q // T):
            dlog += tl.load(DLOG + planes * (k * (Q // T) + j) + at + t, mask=t >= j * T, other=0.0)
    for k in range(of_states):
        enter += tl.load(DENTER + planes * k + at + t)
    for k in range(of_both):
        through += tl.load(THROUGH + plane(sizes, 1) * k + place)
    dlog += tl.cumsum(enter, axis=0, reverse=True) + tl.cumsum(leave, axis=0) + through
    row = start - t if REVERSE else start + t
    tl.store(DDT + (batch * L + row) * H + head, dstep + tl.load(A + head).to(ACC) * dlog, mask=t < left)
    tl.store(DA + place, tl.sum(dlog * tl.load(STEPS + planes * 2 + at + t), axis=0))
