"""One token of SSD as a Triton kernel: one launch instead of a dozen. Without gradients: see `update`.

Legend: B batch, H heads of P channels, N states, G groups of B and C. A program works on BP channels of one head.
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
