"""Triton kernels of SSD: running sums of decays, states of chunks, the carry from chunk to chunk, and outputs.

Legend: B batch, L length, H heads, P channels a head, G groups, N states, K chunks of Q positions, tiles of T positions
(T divides Q), blocks of PB channels and NB states. README.md derives what is computed.

Positions are counted in scan order; REVERSE turns them into rows from the right. The last chunk is filled up with
steps of zero. `sizes` are (L, H, G, K, B), `widths` (P, N), of which the compiler may know that 16 divides them;
`strides` are those of batch, row and head or group. A program's number holds, from the fastest: block of channels or
states, head, tile, chunk, batch, so that programs at work together read the same B and C. Offsets up to a chunk's
beginning are 64-bit, those within a chunk 32-bit.

STEPS (3, B, H, K Q) holds, of each position, log2 of the decay from its chunk's beginning through it as the sum of two
numbers, and dt. A difference of two such sums is as precise as a sum over the positions between would be: the first
numbers' difference is rounded relative to itself, and what they lack is in the second ones. DOCUMENTS (B, K Q) counts
the resets of the chunk through each position; None where there are none.

SHAPE is (Q, T, PB, NB); MATH the type of matrix products' operands, their precision, and the type of everything else.
"""
# ruff: noqa: ANN001, ANN201, RUF059  (Triton's compiler reads annotations, and tuples are taken apart whole)

from typing import no_type_check

import triton
import triton.language as tl

from mamba_kernels.gpu.triton_math import LOG2_E


@no_type_check
@triton.jit
def product(a, b, total, MATH: tl.constexpr):
    """Return total + a b."""
    return tl.dot(a.to(MATH[0]), b.to(MATH[0]), total, input_precision=MATH[1], out_dtype=MATH[2])


@no_type_check
@triton.jit
def locate(sizes, blocks, heads, TILES: tl.constexpr):
    """Return block, head (or group), tile, chunk and batch of this program."""
    program = tl.program_id(0).to(tl.int64)
    block = program % blocks
    program = program // blocks
    head = program % heads
    program = program // heads
    tile = (program % TILES).to(tl.int32)
    program = program // TILES
    return block, head, tile, program % sizes[3], program // sizes[3]


@no_type_check
@triton.jit
def chunk_rows(sizes, chunk, Q: tl.constexpr, REVERSE: tl.constexpr):
    """Return the row of a chunk's first position, and how many positions of the chunk exist."""
    begin = chunk * Q
    return sizes[0] - 1 - begin if REVERSE else begin, tl.minimum(sizes[0] - begin, Q).to(tl.int32)


@no_type_check
@triton.jit
def load_rows(rows, stride, t, left, columns, width, REVERSE: tl.constexpr, MATH: tl.constexpr):
    """Return the elements at positions t of a chunk and columns of a tensor, zero past the ends of both."""
    row = -t if REVERSE else t
    mask = (t < left)[:, None] & (columns < width)[None, :]
    return tl.load(rows + (row[:, None] * stride + columns[None, :]), mask=mask, other=0.0).to(MATH[2])


@no_type_check
@triton.jit
def inner(
    own_p,
    own_stride,
    other_p,
    other_stride,
    t,
    t2,
    left,
    width,
    BLOCK: tl.constexpr,
    T: tl.constexpr,
    REVERSE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Return (T, T), the inner products of own rows at positions t with other rows at positions t2 of a chunk."""
    total = tl.zeros((T, T), MATH[2])
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        own = load_rows(own_p, own_stride, t, left, columns, width, REVERSE, MATH)
        other = load_rows(other_p, other_stride, t2, left, columns, width, REVERSE, MATH)
        total = product(own, tl.trans(other), total, MATH)
    return total


@no_type_check
@triton.jit
def load_state(state, p, P, n, N, MATH: tl.constexpr):
    """Return a block (PB, NB) of one head's state, zero past its end."""
    mask = (p < P)[:, None] & (n < N)[None, :]
    return tl.load(state + (p[:, None] * N + n[None, :]), mask=mask, other=0.0).to(MATH[2])


@no_type_check
@triton.jit
def plane(sizes, Q: tl.constexpr):
    """Return how many numbers (B, H, K Q) are."""
    return tl.full((), Q, tl.int64) * sizes[3] * sizes[1] * sizes[4]


@no_type_check
@triton.jit
def load_steps(steps, batch, head, chunk, t, sizes, Q: tl.constexpr):
    """Return t, both parts of the decays' sums, dt and, where there are documents, those of positions t of a chunk."""
    STEPS, DOCUMENTS = steps
    chunks = sizes[3].to(tl.int64)
    at = STEPS + ((batch * sizes[1] + head) * chunks + chunk) * Q
    found = (t, tl.load(at + t), tl.load(at + plane(sizes, Q) + t), tl.load(at + plane(sizes, Q) * 2 + t))
    if DOCUMENTS is not None:
        document = tl.load(DOCUMENTS + (batch * chunks + chunk) * Q + t)
        found = found + (document,)  # noqa: RUF005  (Triton has no starred tuples)
    return found


@no_type_check
@triton.jit
def pair_decays(own, other, LATER: tl.constexpr):
    """Return the decay between each own and each other position, zero if these are not before (LATER) or after them."""
    seen = own[0][:, None] >= other[0][None, :] if LATER else own[0][:, None] <= other[0][None, :]
    if len(own) > 4:
        seen = seen & (own[4][:, None] == other[4][None, :])
    span = (own[1][:, None] - other[1][None, :]) + (own[2][:, None] - other[2][None, :])
    return seen, tl.exp2(tl.where(seen, span if LATER else -span, float("-inf")))


@no_type_check
@triton.jit
def decay_from_start(steps):
    """Return whether each position sees the state that enters its chunk, and how much of it."""
    seen = steps[4] == 0 if len(steps) > 4 else steps[0] >= 0
    return seen, tl.where(seen, tl.exp2(steps[1] + steps[2]), 0.0)


@no_type_check
@triton.jit
def decay_to_end(steps, last):
    """Return whether anything of each position is left at the chunk's end, and how much."""
    seen = steps[4] == last[4] if len(steps) > 4 else steps[0] >= 0
    return seen, tl.where(seen, tl.exp2((last[1] - steps[1]) + (last[2] - steps[2])), 0.0)


@no_type_check
@triton.jit
def weights(steps, last, ENTERING: tl.constexpr):
    """Return what ties each position to the chunk's entering state, or with its dt to the leaving one, as above."""
    if ENTERING:
        seen, weight = decay_from_start(steps)
    else:
        seen, weight = decay_to_end(steps, last)
        weight *= steps[3]
    return seen, weight


@no_type_check
@triton.jit(do_not_specialize=["sizes"])
def ssd_steps(
    DT,
    A,
    RESET,
    outputs,
    sizes,
    strides,
    REVERSE: tl.constexpr,
    Q: tl.constexpr,
    BH: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write STEPS and DOCUMENTS of one chunk and BH heads; sums are formed in float64."""
    STEPS, DOCUMENTS = outputs
    L, H, G, K, batches = sizes
    block, head, tile, chunk, batch = locate(sizes, tl.cdiv(H, BH), 1, 1)
    start, left = chunk_rows(sizes, chunk, Q, REVERSE)
    t = tl.arange(0, Q)
    row = start - t if REVERSE else start + t
    h = block * BH + tl.arange(0, BH)
    mask, hm = (t < left)[:, None] & (h < H)[None, :], (h < H)[None, :]
    dt = tl.load(DT + batch * strides[0] + row[:, None] * strides[1] + h[None, :] * strides[2], mask=mask, other=0.0)
    rate = tl.load(A + h, mask=h < H, other=0.0).to(tl.float64) * LOG2_E
    sums = tl.cumsum(dt.to(tl.float64) * rate[None, :], axis=0)
    high = sums.to(ACC)
    at = STEPS + ((batch * H + h[None, :]) * K + chunk) * Q + t[:, None]
    tl.store(at, high, mask=hm)
    tl.store(at + plane(sizes, Q), (sums - high.to(tl.float64)).to(ACC), mask=hm)
    tl.store(at + plane(sizes, Q) * 2, dt.to(ACC), mask=hm)
    if DOCUMENTS is not None:
        reset = tl.load(RESET + batch * L + row, mask=t < left, other=0).to(tl.int32)
        tl.store(DOCUMENTS + (batch * K + chunk) * Q + t, tl.cumsum(reset, axis=0), mask=(t >= 0) & (block == 0))


@no_type_check
@triton.jit(do_not_specialize=["sizes"])
def ssd_chunk_states(
    V,
    PARAMETER,
    steps,
    STATES,
    sizes,
    widths,
    strides,
    ENTERING: tl.constexpr,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Write of each chunk sum_t w_t V_t PARAMETER_t', a block (PB, NB) of (B, K, H, P, N).

    V is x, PARAMETER B and w what is left of the position at the chunk's end: the chunk's own state. ENTERING: V is
    dL/dy, PARAMETER C and w what the position sees of the entering state: that state's gradient through the outputs.
    """
    L, H, G, K, batches = sizes
    P, N = widths
    Q: tl.constexpr = SHAPE[0]
    T: tl.constexpr = SHAPE[1]
    PB: tl.constexpr = SHAPE[2]
    NB: tl.constexpr = SHAPE[3]
    ACC: tl.constexpr = MATH[2]
    wide = tl.cdiv(N, NB)
    block, head, tile, chunk, batch = locate(sizes, tl.cdiv(P, PB) * wide, H, 1)
    p = (block // wide * PB).to(tl.int32) + tl.arange(0, PB)
    n = (block % wide * NB).to(tl.int32) + tl.arange(0, NB)
    start, left = chunk_rows(sizes, chunk, Q, REVERSE)
    v_p = V + batch * strides[0] + head * strides[2] + start * strides[1]
    n_p = PARAMETER + batch * strides[3] + head // (H // G) * strides[5] + start * strides[4]
    last = load_steps(steps, batch, head, chunk, Q - 1, sizes, Q)
    total = tl.zeros((PB, NB), ACC)
    for k in range(Q // T):
        t = k * T + tl.arange(0, T)
        own = load_steps(steps, batch, head, chunk, t, sizes, Q)
        seen, weight = weights(own, last, ENTERING)
        v = load_rows(v_p, strides[1], t, left, p, P, REVERSE, MATH)
        v = tl.where(seen[:, None], v * weight[:, None], 0.0)
        parameter = load_rows(n_p, strides[4], t, left, n, N, REVERSE, MATH)
        total = product(tl.trans(v), parameter, total, MATH)
    at = STATES + ((batch * K + chunk) * H + head) * P * N
    tl.store(at + (p[:, None] * N + n[None, :]), total, mask=(p < P)[:, None] & (n < N)[None, :])


@no_type_check
@triton.jit(do_not_specialize=["sizes"])
def ssd_carry(
    STATES,
    ends,
    steps,
    BEFORE,
    THROUGH,
    sizes,
    widths,
    Q: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Replace each chunk's own state in STATES by the state before it; FIRST begins, LAST gets the state after all.

    With BEFORE, the states before the chunks, it walks from the last chunk to the first: from what the outputs want of
    those to the gradients of the states after the chunks. THROUGH (blocks, B, H, K) gets this block's share of the
    product of each such gradient with what the chunk carries through.
    """
    FIRST, LAST = ends
    L, H, G, K, batches = sizes
    P, N = widths
    program = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(P * N, BLOCK)
    block, place = program % blocks, program // blocks
    batch, head = place // H, place % H
    i = (block * BLOCK).to(tl.int32) + tl.arange(0, BLOCK)
    m = i < P * N
    carried = tl.zeros((BLOCK,), ACC)
    if FIRST is not None:
        carried += tl.load(FIRST + place * P * N + i, mask=m, other=0.0).to(ACC)
    for k in range(K):
        chunk = k if BEFORE is None else K - 1 - k
        last = load_steps(steps, batch, head, chunk, Q - 1, sizes, Q)
        seen, decay = decay_from_start(last)
        at = ((batch * K + chunk) * H + head) * P * N
        own = tl.load(STATES + at + i, mask=m, other=0.0)
        tl.store(STATES + at + i, carried, mask=m)
        if BEFORE is not None:
            share = tl.sum(carried * tl.load(BEFORE + at + i, mask=m, other=0.0), axis=0)
            tl.store(THROUGH + (block * H * batches + place) * K + chunk, tl.where(seen, share * decay, 0.0))
        carried = tl.where(seen, decay * carried + own, own)
    tl.store(LAST + place * P * N + i, carried, mask=m)


@no_type_check
@triton.jit(do_not_specialize=["sizes"])
def ssd_outputs(
    inputs,
    steps,
    STATES,
    Y,
    sizes,
    widths,
    strides,
    REVERSE: tl.constexpr,
    SHAPE: tl.constexpr,
    MATH: tl.constexpr,
):
    """Write y_i = sum_j M_ij x_j + u_i h C_i of one tile, head and block of channels."""
    X, B, C = inputs
    L, H, G, K, batches = sizes
    P, N = widths
    Q: tl.constexpr = SHAPE[0]
    T: tl.constexpr = SHAPE[1]
    PB: tl.constexpr = SHAPE[2]
    NB: tl.constexpr = SHAPE[3]
    ACC: tl.constexpr = MATH[2]
    block, head, tile, chunk, batch = locate(sizes, tl.cdiv(P, PB), H, Q // T)
    p = (block * PB).to(tl.int32) + tl.arange(0, PB)
    group = head // (H // G)
    start, left = chunk_rows(sizes, chunk, Q, REVERSE)
    x_p = X + batch * strides[0] + head * strides[2] + start * strides[1]
    b_p = B + batch * strides[3] + group * strides[5] + start * strides[4]
    c_p = C + batch * strides[6] + group * strides[8] + start * strides[7]
    h_p = STATES + ((batch * K + chunk) * H + head) * P * N
    t = tile * T + tl.arange(0, T)
    own = load_steps(steps, batch, head, chunk, t, sizes, Q)
    y = tl.zeros((T, PB), ACC)
    for n0 in range(0, N, NB):
        n = n0 + tl.arange(0, NB)
        c = load_rows(c_p, strides[7], t, left, n, N, REVERSE, MATH)
        y = product(c, tl.trans(load_state(h_p, p, P, n, N, MATH)), y, MATH)
    seen, weight = decay_from_start(own)
    y = tl.where(seen[:, None], y * weight[:, None], 0.0)
    for k in range(tile + 1):
        t2 = k * T + tl.arange(0, T)
        other = load_steps(steps, batch, head, chunk, t2, sizes, Q)
        mix = inner(c_p, strides[7], b_p, strides[4], t, t2, left, N, NB, T, REVERSE, MATH)
        among, decay = pair_decays(own, other, True)
        mix = tl.where(among, mix * decay * other[3][None, :], 0.0)
        y = product(mix, load_rows(x_p, strides[1], t2, left, p, P, REVERSE, MATH), y, MATH)
    row = -t if REVERSE else t
    at = Y + ((batch * L + start) * H + head) * P
    mask = (t < left)[:, None] & (p < P)[None, :]
    tl.store(at + (row[:, None] * (H * P) + p[None, :]), y.to(Y.dtype.element_ty), mask=mask)
