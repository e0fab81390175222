"""One-token updates as Triton kernels: one launch instead of a dozen. Without gradients; `update` sees to those.

Legend: B batch, D channels, N states, G groups of B and C, K taps, H heads of P channels. A program works on BD
channels of one sequence; of SSD, on BP channels of one head.
"""
# ruff: noqa: ANN001, ANN201  (Triton's compiler reads annotations: those of constants are all it takes)

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.gpu.triton_math import LOG2_E, sigmoid, softplus
from mamba_kernels.gpu.triton_runtime import accumulator, cdiv, launch


@no_type_check
@triton.jit
def advance_scan(inputs, outputs, sizes, SOFTPLUS: tl.constexpr, NP: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr):
    """Advance the states of one block by one token."""
    STATE, X, DELTA, A, B, C, SKIP, Z, BIAS = inputs
    Y, NEXT = outputs
    D, N, G = sizes
    blocks = tl.cdiv(D, BD)
    program = tl.program_id(0).to(tl.int64)
    batch, d, n = program // blocks, program % blocks * BD + tl.arange(0, BD), tl.arange(0, NP)
    dm, row = d < D, batch * D + d
    m = dm[:, None] & (n < N)[None, :]
    x = tl.load(X + row, mask=dm, other=0.0).to(ACC)
    dt = tl.load(DELTA + row, mask=dm, other=0.0).to(ACC)
    if BIAS is not None:
        dt += tl.load(BIAS + d, mask=dm, other=0.0).to(ACC)
    if SOFTPLUS:
        dt = softplus(dt)
    a = tl.load(A + d[:, None] * N + n[None, :], mask=m, other=0.0).to(ACC) * LOG2_E
    at = (batch * G + d // (D // G))[:, None] * N + n[None, :]
    b = tl.load(B + at, mask=m, other=0.0).to(ACC)
    c = tl.load(C + at, mask=m, other=0.0).to(ACC)
    h = tl.load(STATE + row[:, None] * N + n[None, :], mask=m, other=0.0).to(ACC)
    h = tl.exp2(dt[:, None] * a) * h + (dt * x)[:, None] * b
    tl.store(NEXT + row[:, None] * N + n[None, :], h.to(NEXT.dtype.element_ty), mask=m)
    y = tl.sum(h * c, axis=1)
    if SKIP is not None:
        y += tl.load(SKIP + d, mask=dm, other=0.0).to(ACC) * x
    if Z is not None:
        z = tl.load(Z + row, mask=dm, other=0.0).to(ACC)
        y *= z * sigmoid(z)
    tl.store(Y + row, y.to(Y.dtype.element_ty), mask=dm)


@no_type_check
@triton.jit
def advance_ssd(
    inputs,
    outputs,
    sizes,
    skip_strides,
    SOFTPLUS: tl.constexpr,
    NP: tl.constexpr,
    BP: tl.constexpr,
    ACC: tl.constexpr,
):
    """Advance the states of one block of one head by one token."""
    STATE, X, DELTA, A, B, C, SKIP, Z, BIAS = inputs
    Y, NEXT = outputs
    H, P, N, G = sizes
    blocks = tl.cdiv(P, BP)
    program = tl.program_id(0).to(tl.int64)
    place, p, n = program // blocks, program % blocks * BP + tl.arange(0, BP), tl.arange(0, NP)
    head, pm = place % H, p < P
    m, row = pm[:, None] & (n < N)[None, :], place * P + p
    x = tl.load(X + row, mask=pm, other=0.0).to(ACC)
    dt = tl.load(DELTA + place).to(ACC)
    if BIAS is not None:
        dt += tl.load(BIAS + head).to(ACC)
    if SOFTPLUS:
        dt = softplus(dt)
    at = (place // H * G + head // (H // G)) * N + n
    b = tl.load(B + at, mask=n < N, other=0.0).to(ACC)
    c = tl.load(C + at, mask=n < N, other=0.0).to(ACC)
    h = tl.load(STATE + row[:, None] * N + n[None, :], mask=m, other=0.0).to(ACC)
    h = tl.exp2(dt * (tl.load(A + head).to(ACC) * LOG2_E)) * h + (dt * x)[:, None] * b[None, :]
    tl.store(NEXT + row[:, None] * N + n[None, :], h.to(NEXT.dtype.element_ty), mask=m)
    y = tl.sum(h * c[None, :], axis=1)
    if SKIP is not None:
        y += tl.load(SKIP + head * skip_strides[0] + p * skip_strides[1], mask=pm, other=0.0).to(ACC) * x
    if Z is not None:
        z = tl.load(Z + row, mask=pm, other=0.0).to(ACC)
        y *= z * sigmoid(z)
    tl.store(Y + row, y.to(Y.dtype.element_ty), mask=pm)


@no_type_check
@triton.jit
def advance_conv(inputs, outputs, D, SILU: tl.constexpr, K: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr):
    """Convolve one token and shift it into the state (B, D, K - 1)."""
    X, STATE, W, BIAS = inputs
    Y, NEXT = outputs
    blocks = tl.cdiv(D, BD)
    program = tl.program_id(0).to(tl.int64)
    batch, d = program // blocks, program % blocks * BD + tl.arange(0, BD)
    dm, row = d < D, batch * D + d
    value = tl.load(X + row, mask=dm, other=0.0).to(ACC)
    total = value * tl.load(W + d * K + K - 1, mask=dm, other=0.0).to(ACC)
    if BIAS is not None:
        total += tl.load(BIAS + d, mask=dm, other=0.0).to(ACC)
    for k in range(K - 1):
        kept = tl.load(STATE + row * (K - 1) + k, mask=dm, other=0.0).to(ACC)
        total += kept * tl.load(W + d * K + k, mask=dm, other=0.0).to(ACC)
        later = tl.load(STATE + row * (K - 1) + k + 1, mask=dm & (k < K - 2), other=0.0).to(ACC)
        later = tl.where(k < K - 2, later, value)
        tl.store(NEXT + row * (K - 1) + k, later.to(NEXT.dtype.element_ty), mask=dm)
    total = total * sigmoid(total) if SILU else total
    tl.store(Y + row, total.to(Y.dtype.element_ty), mask=dm)


def scan_step(
    state: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Advance the scan by one token, without gradients; `B` and `C` are (B, G, N)."""
    tensors = (state, x, delta, A, B, C, D, z, delta_bias)
    batch, channels, states = state.shape
    block, padded = 32, 1 << (states - 1).bit_length()
    y, new_state = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, state))
    inputs = tuple(None if t is None else t.contiguous() for t in tensors)
    options = {"SOFTPLUS": delta_softplus, "NP": padded, "BD": block, "ACC": accumulator(compute_dtype(*tensors))}
    grid = (batch * cdiv(channels, block),)
    launch(advance_scan, grid, (inputs, (y, new_state), (channels, states, B.shape[1])), options)
    return y, new_state


def ssd_step(
    state: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Advance SSD by one token, without gradients; arguments and result as of `ssd_update`."""
    tensors = (state, x, delta, A, B, C, D, z, delta_bias)
    batch, heads, width, states = state.shape
    padded = 1 << (states - 1).bit_length()
    block = min(1 << (width - 1).bit_length(), max(1, 4096 // padded))
    y, new_state = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, state))
    inputs = tuple(None if t is None else t.contiguous() for t in tensors)
    skip_strides = (width, 1) if D is not None and D.dim() == 2 else (1, 0)
    options = {"SOFTPLUS": delta_softplus, "NP": padded, "BP": block, "ACC": accumulator(compute_dtype(*tensors))}
    grid, sizes = (batch * heads * cdiv(width, block),), (heads, width, states, B.shape[1])
    launch(advance_ssd, grid, (inputs, (y, new_state), sizes, skip_strides), options)
    return y, new_state


def conv_step(x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> tuple[Tensor, Tensor]:
    """Advance the convolution by one token, without gradients."""
    tensors = (x, conv_state, weight, bias)
    block = 128
    y, new_state = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, conv_state))
    inputs = tuple(None if t is None else t.contiguous() for t in tensors)
    options = {"SILU": silu, "K": weight.shape[1], "BD": block, "ACC": accumulator(compute_dtype(*tensors))}
    launch(advance_conv, (x.shape[0] * cdiv(x.shape[1], block),), (inputs, (y, new_state), x.shape[1]), options)
    return y, new_state
