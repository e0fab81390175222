"""The Triton kernel of the backward scan: see `triton_forward` for the legend and README.md for the derivation.

A program walks over the segments of its chunk from the last to the first. Each segment's states are rebuilt from its
checkpoint into registers, then walked over backwards. GRAD is dL/dy without the gate. Sums over channels, for dB and
dC, go to a row of this block's own, and those over batch and length, for dA, dD and the bias, to one of this chunk's
own: no atomics.
"""
# ruff: noqa: ANN001, ANN201, RUF059  (Triton's compiler reads annotations, and knows no `_` in a loop)

from typing import no_type_check

import triton
import triton.language as tl

from mamba_kernels.gpu.triton_math import LN_2, LOG2_E, sigmoid
from mamba_kernels.ops.selective_scan.triton_forward import locate, step_size


@no_type_check
@triton.jit
def rebuild(
    h,
    a,
    pointers,
    steps,
    bias,
    reset_p,
    masks,
    left,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    SEGMENT: tl.constexpr,
    ACC: tl.constexpr,
):
    """Return the states before the second and later steps of a segment, from the one before the first."""
    x_p, dt_p, b_p, c_p, g_p = pointers
    x_l, dt_l, b_l, c_l, g_l, D, N = steps
    dm, nm, nm2 = masks
    states = ()
    for i in tl.static_range(SEGMENT - 1):
        step = tl.minimum(i, left - 1)
        step = -step if REVERSE else step
        v, dt = step_size(dt_p + step * dt_l, dm, True, bias, SOFTPLUS, ACC)
        w = dt * tl.load(x_p + step * x_l, mask=dm, other=0.0).to(ACC)
        b = tl.load(b_p + step * b_l, mask=nm, other=0.0).to(ACC)
        if reset_p is not None:
            h = tl.where(tl.load(reset_p + step) != 0, 0.0, h)
        h = tl.exp2(dt[None, :, :, None] * a) * h + w[None, :, :, None] * b
        states = states + (h,)  # noqa: RUF005  (Triton has no starred tuples)
    return states


@no_type_check
@triton.jit
def step_back(
    h,
    dh,
    a,
    pointers,
    steps,
    vectors,
    reset_p,
    outputs,
    masks,
    i,
    left,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    ACC: tl.constexpr,
):
    """Go one step back, from the state before it and the gradient after it; write dx, d(delta), dB and dC of the block.

    Returns:
        The gradient before the step, and this step's share of dA, of the bias's gradient and of dD.
    """
    x_p, dt_p, b_p, c_p, g_p = pointers
    x_l, dt_l, b_l, c_l, g_l, D, N = steps
    bias, skip = vectors
    dx_p, ddelta_p, db_p, dc_p = outputs
    dm, nm, nm2 = masks
    live = i < left
    step = tl.minimum(i, left - 1)
    step = -step if REVERSE else step
    x = tl.load(x_p + step * x_l, mask=dm, other=0.0).to(ACC)
    v, dt = step_size(dt_p + step * dt_l, dm, live, bias, SOFTPLUS, ACC)
    b = tl.load(b_p + step * b_l, mask=nm, other=0.0).to(ACC)
    c = tl.load(c_p + step * c_l, mask=nm, other=0.0).to(ACC)
    g = tl.where(live, tl.load(g_p + step * g_l, mask=dm, other=0.0).to(ACC), 0.0)
    decay = tl.exp2(dt[None, :, :, None] * a)
    kept = decay * h
    if reset_p is not None:
        cut = (tl.load(reset_p + step) != 0) & live
        kept = tl.where(cut, 0.0, kept)
    w = (dt * x)[None, :, :, None]
    gn = g[None, :, :, None]
    tl.store(dc_p + step * N, tl.sum(tl.sum(gn * (kept + w * b), axis=1), axis=1), mask=nm2 & live)
    dh += gn * c
    tl.store(db_p + step * N, tl.sum(tl.sum(dh * w, axis=1), axis=1), mask=nm2 & live)
    q = dh * kept
    drive = tl.sum(tl.sum(dh * b, axis=0), axis=2)
    ddelta = tl.sum(tl.sum(q * a, axis=0), axis=2) * LN_2 + drive * x
    ddelta = ddelta * sigmoid(v) if SOFTPLUS else ddelta
    dh *= decay
    dh = dh if reset_p is None else tl.where(cut, 0.0, dh)
    tl.store(dx_p + step * D, (drive * dt + g * skip).to(dx_p.dtype.element_ty), mask=dm & live)
    tl.store(ddelta_p + step * D, ddelta.to(ddelta_p.dtype.element_ty), mask=dm & live)
    return dh, q * dt[None, :, :, None], tl.where(live, ddelta, 0.0), g * x


@no_type_check
@triton.jit(do_not_specialize=["sizes", "chunk"])
def scan_backward(
    inputs,
    grads,
    outputs,
    sizes,
    strides,
    chunk,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    SEGMENT: tl.constexpr,
    TILE: tl.constexpr,
    ACC: tl.constexpr,
):
    """Walk one chunk back from the gradient that enters it: gradients of its rows, and its share of all others."""
    X, DELTA, A, B, C, SKIP, BIAS, RESET = inputs
    GRAD, CHECKPOINTS, ENTRY = grads
    DX, DDELTA, DB, DC, DA, DSKIP, DBIAS, DSTATE = outputs
    L, D, N, G = sizes
    x_b, x_l, dt_b, dt_l, b_b, b_l, b_g, c_b, c_l, c_g, g_b, g_l = strides
    batch, group, block, d, dm, n, nm, nd, ndm = locate(sizes, TILE)
    place = batch * tl.num_programs(1) + tl.program_id(1)
    n2 = tl.arange(0, TILE[0])[:, None] + tl.arange(0, TILE[3])[None, :] * TILE[0]
    a = tl.load(A + nd, mask=ndm, other=0.0).to(ACC) * LOG2_E
    da, dh = tl.zeros(a.shape, ACC), tl.zeros(a.shape, ACC)
    if ENTRY is not None:
        dh += tl.load(ENTRY + place * N * D + nd, mask=ndm, other=0.0).to(ACC)
    bias = tl.zeros(d.shape, ACC) if BIAS is None else tl.load(BIAS + d, mask=dm, other=0.0).to(ACC)
    skip = tl.zeros(d.shape, ACC) if SKIP is None else tl.load(SKIP + d, mask=dm, other=0.0).to(ACC)
    masks = (dm, nm, n2 < N)
    dskip, dbias = tl.zeros(d.shape, ACC), tl.zeros(d.shape, ACC)
    first = tl.program_id(1).to(tl.int64) * chunk
    last = tl.minimum(first + chunk, L)
    segments = tl.cdiv((last - first).to(tl.int32), SEGMENT)
    for k in range(segments):
        begin = first + (segments - 1 - k) * SEGMENT
        left = (last - begin).to(tl.int32)
        start = L - 1 - begin if REVERSE else begin
        x_p, dt_p = X + batch * x_b + start * x_l + d, DELTA + batch * dt_b + start * dt_l + d
        b_p, c_p = B + batch * b_b + start * b_l + group * b_g + n, C + batch * c_b + start * c_l + group * c_g + n
        g_p = GRAD + batch * g_b + start * g_l + d
        reset_p = None if RESET is None else RESET + batch * L + start
        h_p = CHECKPOINTS + (batch * tl.cdiv(L, SEGMENT) + begin // SEGMENT) * N * D
        h = tl.load(h_p + nd, mask=ndm, other=0.0)
        rows, steps = (x_p, dt_p, b_p, c_p, g_p), (x_l, dt_l, b_l, c_l, g_l, D, N)
        states = rebuild(h, a, rows, steps, bias, reset_p, masks, left, SOFTPLUS, REVERSE, SEGMENT, ACC)
        row = (batch * L + start) * D + d
        share = (tl.program_id(0).to(tl.int64) * L + start) * N + n2
        out = (DX + row, DDELTA + row, DB + share, DC + share)
        for i in tl.static_range(SEGMENT - 1, -1, -1):
            h = states[i - 1] if i else tl.load(h_p + nd, mask=ndm, other=0.0)
            dh, q, ddelta, gx = step_back(
                h, dh, a, rows, steps, (bias, skip), reset_p, out, masks, i, left, SOFTPLUS, REVERSE, ACC
            )
            da += q
            dbias += ddelta
            dskip += gx
    tl.store(DA + place * N * D + nd, da, mask=ndm)
    tl.store(DSKIP + place * D + d, dskip, mask=dm)
    tl.store(DBIAS + place * D + d, dbias, mask=dm)
    tl.store(DSTATE + batch * N * D + nd, dh, mask=ndm & (first == 0))
