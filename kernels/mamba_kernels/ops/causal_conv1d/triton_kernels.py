"""Triton kernels of the causal convolution, forward and backward.

Legend: B batch, L length, D channels, K taps. A program works on BT positions by BD channels of one sequence; positions
t are counted in scan order, so rows run from the right if REVERSE. Position t sees the K - 1 inputs before it: those
before the first are in STATE (B, D, K - 1), and those before a reset are not seen, which SINCE (B, L) tells: the
positions since the last reset. `sizes` are (L, D). All offsets are 64-bit, all sums in the order of the taps or
positions.
"""
# ruff: noqa: ANN001, ANN201  (Triton's compiler reads annotations: those of constants are all it takes)

from typing import no_type_check

import triton
import triton.language as tl

from mamba_kernels.gpu.triton_math import sigmoid


@no_type_check
@triton.jit
def locate(sizes, first, BT: tl.constexpr, BD: tl.constexpr):
    """Return batch, positions from `first` on, channels and the mask of channels of this program."""
    blocks = tl.cdiv(sizes[1], BD)
    program = tl.program_id(0).to(tl.int64)
    d = (program % blocks * BD + tl.arange(0, BD))[None, :]
    t = (first + tl.program_id(1).to(tl.int64) * BT + tl.arange(0, BT))[:, None]
    return program // blocks, t, d, d < sizes[1]


@no_type_check
@triton.jit
def input_at(X, STATE, batch, s, d, mask, sizes, strides, K: tl.constexpr, REVERSE: tl.constexpr, ACC: tl.constexpr):
    """Return the input at positions s, which is the state's where s is negative."""
    row = sizes[0] - 1 - s if REVERSE else s
    x = tl.load(X + batch * strides[0] + row * strides[1] + d, mask=mask & (s >= 0), other=0.0).to(ACC)
    if STATE is not None:
        place = (batch * sizes[1] + d) * (K - 1) + (K - 1 + s)
        x += tl.load(STATE + place, mask=mask & (s < 0) & (s > -K), other=0.0).to(ACC)
    return x


@no_type_check
@triton.jit
def convolve(
    inputs,
    batch,
    t,
    d,
    dm,
    sizes,
    strides,
    K: tl.constexpr,
    REVERSE: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    ACC: tl.constexpr,
):
    """Return bias + sum_j w[K - 1 - j] x[t - j]."""
    X, W, BIAS, STATE, SINCE = inputs
    total = tl.zeros((BT, BD), ACC)
    live = dm & (t < sizes[0])
    if BIAS is not None:
        total += tl.load(BIAS + d, mask=dm, other=0.0).to(ACC)
    if SINCE is not None:
        since = tl.load(SINCE + batch * sizes[0] + t, mask=t < sizes[0], other=0)
    for j in range(K):
        seen = live if SINCE is None else live & (since >= j)
        w = tl.load(W + d * K + (K - 1 - j), mask=dm, other=0.0).to(ACC)
        total += w * input_at(X, STATE, batch, t - j, d, seen, sizes, strides, K, REVERSE, ACC)
    return total


@no_type_check
@triton.jit
def conv_forward(
    inputs,
    Y,
    sizes,
    strides,
    SILU: tl.constexpr,
    REVERSE: tl.constexpr,
    K: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write y = act(bias + w * x)."""
    batch, t, d, dm = locate(sizes, 0, BT, BD)
    y = convolve(inputs, batch, t, d, dm, sizes, strides, K, REVERSE, BT, BD, ACC)
    y = y * sigmoid(y) if SILU else y
    row = sizes[0] - 1 - t if REVERSE else t
    tl.store(Y + (batch * sizes[0] + row) * sizes[1] + d, y.to(Y.dtype.element_ty), mask=dm & (t < sizes[0]))


@no_type_check
@triton.jit
def conv_backward_sums(
    inputs,
    DY,
    outputs,
    sizes,
    strides,
    dy_strides,
    SILU: tl.constexpr,
    REVERSE: tl.constexpr,
    K: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write the gradient before the activation, and this block's sums for the taps and the bias (blocks, K + 1, D)."""
    X, STATE, SINCE = inputs[0], inputs[3], inputs[4]
    DZ, SHARES = outputs
    L, D = sizes
    batch, t, d, dm = locate(sizes, 0, BT, BD)
    live = dm & (t < L)
    row = L - 1 - t if REVERSE else t
    dz = tl.load(DY + batch * dy_strides[0] + row * dy_strides[1] + d, mask=live, other=0.0).to(ACC)
    if SILU:
        z = convolve(inputs, batch, t, d, dm, sizes, strides, K, REVERSE, BT, BD, ACC)
        gate = sigmoid(z)
        dz *= gate * (1.0 + z * (1.0 - gate))
    tl.store(DZ + (batch * L + t) * D + d, dz, mask=live)
    if SINCE is not None:
        since = tl.load(SINCE + batch * L + t, mask=t < L, other=0)
    share = SHARES + (batch * tl.num_programs(1) + tl.program_id(1)) * (K + 1) * D + d
    for j in range(K):
        seen = live if SINCE is None else live & (since >= j)
        x = input_at(X, STATE, batch, t - j, d, seen, sizes, strides, K, REVERSE, ACC)
        tl.store(share + (K - 1 - j) * D, tl.sum(dz * x, axis=0)[None, :], mask=dm)
    tl.store(share + K * D, tl.sum(dz, axis=0)[None, :], mask=dm)


@no_type_check
@triton.jit
def conv_backward_inputs(
    W,
    SINCE,
    DZ,
    DFINAL,
    outputs,
    sizes,
    REVERSE: tl.constexpr,
    K: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write dx[s] = sum_j w[K - 1 - j] dz[s + j], and the same of the initial state, which lies at s < 0."""
    DX, DSTATE = outputs
    L, D = sizes
    batch, s, d, dm = locate(sizes, 1 - K, BT, BD)
    dx = tl.zeros((BT, BD), ACC)
    for j in range(K):
        t = s + j
        seen = dm & (t >= 0) & (t < L)
        if SINCE is not None:
            seen = seen & (tl.load(SINCE + batch * L + t, mask=(t >= 0) & (t < L), other=-1) >= j)
        w = tl.load(W + d * K + (K - 1 - j), mask=dm, other=0.0).to(ACC)
        dx += w * tl.load(DZ + (batch * L + t) * D + d, mask=seen, other=0.0)
    if DFINAL is not None:
        kept = dm & (s < L) & (s > L - K)
        if SINCE is not None:
            kept = kept & (tl.load(SINCE + batch * L + L - 1) >= L - 1 - s)
        dx += tl.load(DFINAL + (batch * D + d) * (K - 1) + (s - L + K - 1), mask=kept, other=0.0).to(ACC)
    row = L - 1 - s if REVERSE else s
    tl.store(DX + (batch * L + row) * D + d, dx.to(DX.dtype.element_ty), mask=dm & (s >= 0) & (s < L))
    if DSTATE is not None:
        tl.store(DSTATE + (batch * D + d) * (K - 1) + (K - 1 + s), dx, mask=dm & (s < 0))
