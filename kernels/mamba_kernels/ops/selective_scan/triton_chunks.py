"""Triton kernels that find the state, or the gradient, with which each chunk of a long sequence begins.

`scan_chunk` runs every chunk from zero at the same time and gives what it ends with and by what it multiplies what it
begins with; `scan_carry` then goes over the chunks alone. Legend and layout: `triton_forward`.
"""
# ruff: noqa: ANN001, ANN201, RUF059  (Triton's compiler reads annotations, and knows no `_` in a loop)

from typing import no_type_check

import triton
import triton.language as tl

from mamba_kernels.gpu.triton_math import LOG2_E
from mamba_kernels.ops.selective_scan.triton_forward import locate, step_size


@no_type_check
@triton.jit(do_not_specialize=["sizes", "chunk"])
def scan_chunk(
    inputs,
    outputs,
    sizes,
    strides,
    chunk,
    ADJOINT: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    SEGMENT: tl.constexpr,
    TILE: tl.constexpr,
    ACC: tl.constexpr,
):
    """Scan a chunk from zero, states forwards from V = x and B; or gradients backwards (ADJOINT) from V = GRAD and C.

    Writes the end (B, chunks, N, D), and the product of all decays, which is exp(A sum dt), or zero after a reset.
    """
    V, DELTA, A, B, BIAS, RESET = inputs
    END, DECAY = outputs
    L, D, N, G = sizes
    v_b, v_l, dt_b, dt_l, b_b, b_l, b_g = strides
    batch, group, block, d, dm, n, nm, nd, ndm = locate(sizes, TILE)
    piece = tl.program_id(1).to(tl.int64)
    a = tl.load(A + nd, mask=ndm, other=0.0).to(ACC) * LOG2_E
    bias = None if BIAS is None else tl.load(BIAS + d, mask=dm, other=0.0).to(ACC)
    h, total = tl.zeros(a.shape, ACC), tl.zeros(d.shape, ACC)
    cuts = piece < 0
    first = piece * chunk
    last = tl.minimum(first + chunk, L)
    for offset in range(0, (last - first).to(tl.int32), SEGMENT):
        begin = last - 1 - offset if ADJOINT else first + offset
        start = L - 1 - begin if REVERSE else begin
        v_p = V + batch * v_b + start * v_l + d
        dt_p = DELTA + batch * dt_b + start * dt_l + d
        b_p = B + batch * b_b + start * b_l + group * b_g + n
        left = (last - first).to(tl.int32) - offset
        for i in tl.static_range(SEGMENT):
            live = i < left
            step = tl.minimum(i, left - 1)
            step = -step if REVERSE != ADJOINT else step
            raw, dt = step_size(dt_p + step * dt_l, dm, live, bias, SOFTPLUS, ACC)
            total += dt
            v = tl.load(v_p + step * v_l, mask=dm, other=0.0).to(ACC)
            v = tl.where(live, v, 0.0) if ADJOINT else v * dt
            driven = v[None, :, :, None] * tl.load(b_p + step * b_l, mask=nm, other=0.0).to(ACC)
            decay = tl.exp2(dt[None, :, :, None] * a)
            if RESET is not None:
                cut = (tl.load(RESET + batch * L + start + step) != 0) & live
                cuts |= cut
                h = h if ADJOINT else tl.where(cut, 0.0, h)
            h = decay * (h + driven) if ADJOINT else decay * h + driven
            if RESET is not None and ADJOINT:
                h = tl.where(cut, 0.0, h)
    tl.store(END + (batch * tl.num_programs(1) + piece) * N * D + nd, h, mask=ndm)
    product = tl.exp2(total[None, :, :, None] * a)
    product = product if RESET is None else tl.where(cuts, 0.0, product)
    tl.store(DECAY + (batch * tl.num_programs(1) + piece) * N * D + nd, product, mask=ndm)


@no_type_check
@triton.jit(do_not_specialize=["chunks", "size"])
def scan_carry(
    END,
    DECAY,
    FIRST,
    chunks,
    size,
    ADJOINT: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Replace END (B, chunks, size) of each chunk by what the chunk begins with; FIRST (B, size) begins the first."""
    batch = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = i < size
    carried = tl.zeros((BLOCK,), ACC)
    if FIRST is not None:
        carried += tl.load(FIRST + batch * size + i, mask=m, other=0.0).to(ACC)
    for k in range(chunks):
        place = (batch * chunks + (chunks - 1 - k if ADJOINT else k)) * size + i
        end = tl.load(END + place, mask=m, other=0.0)
        decay = tl.load(DECAY + place, mask=m, other=0.0)
        tl.store(END + place, carried, mask=m)
        carried = decay * carried + end
