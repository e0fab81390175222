"""Triton kernels of the forward scan, and of the two phases that let pieces of one sequence run at the same time.

Legend: B batch, L length, D channels, N states, G groups. A program works on a block of channels of one group of one
sequence and on one chunk of its length. Its states are a tile [NI, BI, BD, NO] with n = ni + no NI and d = bi BD + bd:
NI x BI of them lie in a thread, BD x NO across the lanes of a warp. The compiler lays a tile out by what is contiguous
in memory, so states and A lie there as (N, D). Every argument that may be left out is None, which Triton compiles away.
`sizes` are (L, D, N, G); `strides` those of batch and row, of B and C also of the group. Offsets of rows are 64-bit,
those within a segment of a few rows 32-bit. A segment is unrolled; past the end of a chunk it repeats the last row with
a step of zero, which leaves states as they are.
"""
# ruff: noqa: ANN001, ANN201, RUF059  (Triton's compiler reads annotations, and knows no `_` in a loop)

from typing import no_type_check

import triton
import triton.language as tl

from mamba_kernels.gpu.triton_math import LOG2_E, sigmoid, softplus


@no_type_check
@triton.jit
def locate(sizes, TILE: tl.constexpr):
    """Return batch, group and block of this program, its channels, states and elements of (N, D), each with a mask."""
    L, D, N, G = sizes
    NI: tl.constexpr = TILE[0]
    BI: tl.constexpr = TILE[1]
    BD: tl.constexpr = TILE[2]
    NO: tl.constexpr = TILE[3]
    width = D // G
    blocks = tl.cdiv(width, BI * BD)
    program = tl.program_id(0).to(tl.int64)
    within = program % blocks * (BI * BD) + (tl.arange(0, BI)[:, None] * BD + tl.arange(0, BD)[None, :])
    group = program // blocks % G
    d, dm = group * width + within, within < width
    n = tl.arange(0, NI)[:, None, None, None] + tl.arange(0, NO)[None, None, None, :] * NI
    nm = n < N if TILE[4] else n >= 0
    nd = n * D + d[None, :, :, None]
    return program // blocks // G, group, program % blocks, d, dm, n, nm, nd, dm[None, :, :, None] & nm


@no_type_check
@triton.jit
def step_size(pointers, mask, live, bias, SOFTPLUS: tl.constexpr, ACC: tl.constexpr):
    """Return delta + bias and the step size made of it, zero where the step does not exist."""
    v = tl.load(pointers, mask=mask, other=0.0).to(ACC)
    if bias is not None:
        v += bias
    return v, tl.where(live, softplus(v) if SOFTPLUS else v, 0.0)


@no_type_check
@triton.jit
def emit(bare, z_p, z_step, dy_p, dy_step, Y, DZ, place, mask, dm, ACC: tl.constexpr):
    """Write y = bare silu(z). Or, given dL/dy, take the gate off: y gets dL/dbare, dz the gate's gradient."""
    if z_p is not None:
        z = tl.load(z_p + z_step, mask=dm, other=0.0).to(ACC)
        gate = sigmoid(z)
        if dy_p is not None:
            dy = tl.load(dy_p + dy_step, mask=dm, other=0.0).to(ACC)
            dz = dy * bare * gate * (1.0 + z * (1.0 - gate))
            tl.store(DZ + place, dz.to(DZ.dtype.element_ty), mask=mask)
            bare = dy
        bare *= z * gate
    tl.store(Y + place, bare.to(Y.dtype.element_ty), mask=mask)


@no_type_check
@triton.jit(do_not_specialize=["sizes", "chunk"])
def scan_forward(
    inputs,
    entry,
    DY,
    outputs,
    sizes,
    strides,
    chunk,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    SPACING: tl.constexpr,
    SEGMENT: tl.constexpr,
    TILE: tl.constexpr,
    ACC: tl.constexpr,
):
    """Scan one chunk from its entry state (B, chunks, N, D): y, the state every SPACING steps, the final state.

    The first pass of a gradient with a gate runs this with DY = dL/dy: see `emit`.
    """
    X, DELTA, A, B, C, SKIP, Z, BIAS, RESET = inputs
    Y, CHECKPOINTS, FINAL, DZ = outputs
    L, D, N, G = sizes
    x_b, x_l, dt_b, dt_l, b_b, b_l, b_g, c_b, c_l, c_g, z_b, z_l, dy_b, dy_l = strides
    batch, group, block, d, dm, n, nm, nd, ndm = locate(sizes, TILE)
    piece = tl.program_id(1).to(tl.int64)
    a = tl.load(A + nd, mask=ndm, other=0.0).to(ACC) * LOG2_E
    h = tl.zeros(a.shape, ACC)
    if entry is not None:
        h += tl.load(entry + (batch * tl.num_programs(1) + piece) * N * D + nd, mask=ndm, other=0.0).to(ACC)
    bias = None if BIAS is None else tl.load(BIAS + d, mask=dm, other=0.0).to(ACC)
    skip = None if SKIP is None else tl.load(SKIP + d, mask=dm, other=0.0).to(ACC)
    first = piece * chunk
    last = tl.minimum(first + chunk, L)
    for offset in range(0, (last - first).to(tl.int32), SEGMENT):
        if CHECKPOINTS is not None and offset % SPACING == 0:
            place = batch * tl.cdiv(L, SPACING) + (first + offset) // SPACING
            tl.store(CHECKPOINTS + place * N * D + nd, h, mask=ndm)
        start = L - 1 - first - offset if REVERSE else first + offset
        row = (batch * L + start) * D + d
        x_p = X + batch * x_b + start * x_l + d
        dt_p = DELTA + batch * dt_b + start * dt_l + d
        b_p = B + batch * b_b + start * b_l + group * b_g + n
        c_p = C + batch * c_b + start * c_l + group * c_g + n
        z_p = None if Z is None else Z + batch * z_b + start * z_l + d
        dy_p = None if DY is None else DY + batch * dy_b + start * dy_l + d
        left = (last - first - offset).to(tl.int32)
        for i in tl.static_range(SEGMENT):
            live = i < left
            step = tl.minimum(i, left - 1)
            step = -step if REVERSE else step
            x = tl.load(x_p + step * x_l, mask=dm, other=0.0).to(ACC)
            v, dt = step_size(dt_p + step * dt_l, dm, live, bias, SOFTPLUS, ACC)
            b = tl.load(b_p + step * b_l, mask=nm, other=0.0).to(ACC)
            if RESET is not None:
                h = tl.where((tl.load(RESET + batch * L + start + step) != 0) & live, 0.0, h)
            h = tl.exp2(dt[None, :, :, None] * a) * h + (dt * x)[None, :, :, None] * b
            if Y is not None:
                c = tl.load(c_p + step * c_l, mask=nm, other=0.0).to(ACC)
                y = tl.sum(tl.sum(h * c, axis=0), axis=2)
                y = y if skip is None else y + skip * x
                emit(y, z_p, step * z_l, dy_p, step * dy_l, Y, DZ, row + step * D, dm & live, dm, ACC)
    if FINAL is not None:
        tl.store(FINAL + batch * N * D + nd, h, mask=ndm & (last == L))
