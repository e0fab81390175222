"""One token of the selective scan as a Triton kernel: one launch instead of a dozen. Without gradients: see `update`.

Legend: B batch, D channels, N states, G groups of B and C. A program works on BD channels of one sequence.
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
