"""One token of the convolution as a Triton kernel: one launch instead of several. Without gradients: see `update`.

Legend: B batch, D channels, K taps. A program works on BD channels of one sequence.
"""
# ruff: noqa: ANN001, ANN201  (Triton's compiler reads annotations: those of constants are all it takes)

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.gpu.triton_math import sigmoid
from mamba_kernels.gpu.triton_runtime import accumulator, cdiv, launch


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


def conv_step(x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> tuple[Tensor, Tensor]:
    """Advance the convolution by one token, without gradients."""
    tensors = (x, conv_state, weight, bias)
    block = 128
    y, new_state = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, conv_state))
    inputs = tuple(None if t is None else t.contiguous() for t in tensors)
    options = {"SILU": silu, "K": weight.shape[1], "BD": block, "ACC": accumulator(compute_dtype(*tensors))}
    launch(advance_conv, (x.shape[0] * cdiv(x.shape[1], block),), (inputs, (y, new_state), x.shape[1]), options)
    return y, new_state
