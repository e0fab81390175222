"""The Triton norm, forward and backward, as the torch operator `mamba_kernels::rms_norm_triton`.

Legend: D channels, R rows. A program works on whole rows, BLOCK channels wide; in the backward pass on ROWS of them, of
which it keeps the sum for the weight's gradient in a row of its own. All offsets are 64-bit.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.gpu.triton_runtime import accumulator, cdiv, launch
from mamba_kernels.ops.derivatives import refuse_second_derivative, to_be_differentiated
from mamba_kernels.ops.rms_norm.torch import rms_norm_gradient

ROWS = 32
"""Rows of a program of the backward pass."""

_NAME = "mamba_kernels::rms_norm_triton"
torch.library.define(_NAME, "(Tensor x, Tensor weight, float eps, Tensor? residual) -> (Tensor, Tensor)")
torch.library.define(
    f"{_NAME}_backward",
    "(Tensor? grad, Tensor? grad_total, Tensor total, Tensor weight, float eps) -> (Tensor, Tensor)",
)


@no_type_check
@triton.jit
def norm_forward(  # noqa: ANN201
    X,  # noqa: ANN001
    RESIDUAL,  # noqa: ANN001
    W,  # noqa: ANN001
    outputs,  # noqa: ANN001
    D,  # noqa: ANN001
    strides,  # noqa: ANN001
    eps,  # noqa: ANN001
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write the normed row, and with a residual the sum."""
    Y, TOTAL = outputs
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    m = d < D
    total = tl.load(X + row * strides[0] + d, mask=m, other=0.0).to(ACC)
    if RESIDUAL is not None:
        total += tl.load(RESIDUAL + row * strides[1] + d, mask=m, other=0.0).to(ACC)
        tl.store(TOTAL + row * D + d, total, mask=m)
    scale = 1.0 / tl.sqrt(tl.sum(total * total, axis=0) / D + eps)
    w = tl.load(W + d, mask=m, other=0.0).to(ACC)
    tl.store(Y + row * D + d, (total * scale * w).to(Y.dtype.element_ty), mask=m)


@no_type_check
@triton.jit
def norm_backward(  # noqa: ANN201
    grads,  # noqa: ANN001
    TOTAL,  # noqa: ANN001
    W,  # noqa: ANN001
    outputs,  # noqa: ANN001
    sizes,  # noqa: ANN001
    strides,  # noqa: ANN001
    eps,  # noqa: ANN001
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write the gradient of the sum, rows in turn, and this program's share of the weight's gradient (programs, D)."""
    GRAD, GRAD_TOTAL = grads
    DTOTAL, DW = outputs
    R, D = sizes
    d = tl.arange(0, BLOCK)
    m = d < D
    w = tl.load(W + d, mask=m, other=0.0).to(ACC)
    dw = tl.zeros((BLOCK,), ACC)
    first = tl.program_id(0).to(tl.int64) * ROWS
    for i in range(ROWS):
        row = first + i
        live = m & (row < R)
        total = tl.load(TOTAL + row * strides[0] + d, mask=live, other=0.0).to(ACC)
        grad = tl.load(GRAD + row * strides[1] + d, mask=live, other=0.0).to(ACC)
        scale = 1.0 / tl.sqrt(tl.sum(total * total, axis=0) / D + eps)
        dw += tl.where(live, grad * total * scale, 0.0)
        grad *= w
        mean = tl.sum(grad * total, axis=0) / D
        out = scale * (grad - total * (mean * scale * scale))
        if GRAD_TOTAL is not None:
            out += tl.load(GRAD_TOTAL + row * strides[2] + d, mask=live, other=0.0).to(ACC)
        tl.store(DTOTAL + row * D + d, out.to(DTOTAL.dtype.element_ty), mask=live)
    tl.store(DW + tl.program_id(0).to(tl.int64) * D + d, dw, mask=m)


def _table(tensor: Tensor | None, channels: int) -> Tensor | None:
    """View (..., D) as rows with neighbouring channels; a copy only if no view can be."""
    if tensor is None:
        return None
    flat = tensor.reshape(-1, channels)
    return flat if flat.stride(1) == 1 or channels == 1 else flat.contiguous()


def _stride(table: Tensor | None) -> int:
    return 0 if table is None else table.stride(0)


def _options(channels: int, dtype: torch.dtype) -> dict[str, Any]:
    block = 1 << (channels - 1).bit_length()
    return {"BLOCK": block, "ACC": accumulator(dtype), "num_warps": min(16, max(1, block // 256))}


def _forward(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Tensor, Tensor]:
    channels, dtype = weight.shape[0], compute_dtype(x, weight, residual)
    normed = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = torch.empty(x.shape if residual is not None else (0,), dtype=dtype, device=x.device)
    if x.numel():
        table, other = _table(x, channels), _table(residual, channels)
        arguments = (
            table,
            other,
            weight.contiguous(),
            (normed, total),
            channels,
            (_stride(table), _stride(other)),
            eps,
        )
        launch(norm_forward, (x.numel() // channels,), arguments, _options(channels, dtype))
    return normed, total


def _forward_shapes(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Tensor, Tensor]:
    total_shape = x.shape if residual is not None else (0,)
    return x.new_empty(x.shape), x.new_empty(total_shape, dtype=compute_dtype(x, weight, residual))


def _backward(
    grad: Tensor | None, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    channels, dtype = weight.shape[0], compute_dtype(total, weight)
    if grad is None:
        carried = torch.zeros_like(total) if grad_total is None else grad_total.to(total.dtype).clone()
        return carried.contiguous(), torch.zeros_like(weight)
    count = total.numel() // channels if channels else 0
    dtotal = torch.empty(total.shape, dtype=total.dtype, device=total.device)
    shares = torch.empty(cdiv(count, ROWS), channels, dtype=dtype, device=total.device)
    tables = [_table(t, channels) for t in (total, grad, grad_total)]
    strides = tuple(_stride(t) for t in tables)
    arguments = ((tables[1], tables[2]), tables[0], weight.contiguous(), (dtotal, shares), (count, channels))
    if total.numel():
        options = _options(channels, dtype) | {"ROWS": ROWS}
        launch(norm_backward, (cdiv(count, ROWS),), (*arguments, strides, eps), options)
    return dtotal, shares.sum(0).to(weight.dtype)


def _backward_shapes(
    grad: Tensor | None, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return total.new_empty(total.shape), weight.new_empty(weight.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, ctx.eps, residual = inputs
    ctx.x_dtype, ctx.residual_dtype = x.dtype, None if residual is None else residual.dtype
    ctx.save_for_backward(x if residual is None else output[1], weight)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, grad_total: Tensor | None) -> tuple[Tensor | None, ...]:
    total, weight = ctx.saved_tensors
    if ctx.residual_dtype is None:
        grad_total = None
    if grad is None and grad_total is None:
        return (None,) * 4
    formula = rms_norm_gradient if to_be_differentiated(grad, grad_total) else _compiled_gradient
    total_grad, weight_grad = formula(total, weight, ctx.eps, grad, grad_total)
    if total_grad is None:
        return None, weight_grad, None, None
    residual_grad = None if ctx.residual_dtype is None else total_grad.to(ctx.residual_dtype)
    return total_grad.to(ctx.x_dtype), weight_grad, None, residual_grad


def _compiled_gradient(
    total: Tensor, weight: Tensor, eps: float, grad: Tensor | None, grad_total: Tensor | None
) -> tuple[Tensor, Tensor]:
    return torch.ops.mamba_kernels.rms_norm_triton_backward(grad, grad_total, total, weight, eps)


for _device in ("CPU", "CUDA"):
    torch.library.impl(_NAME, _device, _forward)
    torch.library.impl(f"{_NAME}_backward", _device, _backward)
torch.library.register_fake(_NAME, _forward_shapes)
torch.library.register_fake(f"{_NAME}_backward", _backward_shapes)
torch.library.register_autograd(_NAME, _differentiate, setup_context=_setup_context)
refuse_second_derivative(f"{_NAME}_backward")


def rms_norm_triton(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Tensor, Tensor]:
    """Norm with Triton. Returns as `rms_norm_reference` does."""
    normed, total = torch.ops.mamba_kernels.rms_norm_triton.default(x, weight, eps, residual)
    return normed, x if residual is None else total
