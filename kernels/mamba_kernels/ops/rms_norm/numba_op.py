"""The Numba norm as the torch operator `mamba_kernels::rms_norm`, with gradient and fake tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mamba_kernels.cpu.numba_runtime import parallel_for
from mamba_kernels.cpu.numba_tensors import channels_last, flat_array
from mamba_kernels.ops.derivatives import refuse_second_derivative, to_be_differentiated
from mamba_kernels.ops.rms_norm.numba_kernels import TASK_ROWS, normalise, normalise_backward
from mamba_kernels.ops.rms_norm.torch import rms_norm_gradient

torch.library.define(
    "mamba_kernels::rms_norm", "(Tensor x, Tensor weight, float eps, Tensor? residual) -> (Tensor, Tensor)"
)
torch.library.define(
    "mamba_kernels::rms_norm_backward",
    "(Tensor? grad, Tensor? grad_total, Tensor total, Tensor weight, float eps) -> (Tensor, Tensor)",
)

NO_ROWS = np.empty(0, np.float32)


def _rows(tensor: Tensor | None, channels: int) -> tuple[np.ndarray, int]:
    """View a (..., D) tensor as flat rows and the elements between them; a copy is made only if no view can be."""
    if tensor is None:
        return NO_ROWS, channels
    table = channels_last(tensor.detach().reshape(-1, channels))
    return flat_array(table), table.stride(0)


def _tasks(tensor: Tensor, channels: int) -> tuple[int, int]:
    """Return (tasks, rows) of a (..., D) tensor."""
    rows = tensor.numel() // channels if channels else 0
    return -(-rows // TASK_ROWS), rows


@torch.library.impl("mamba_kernels::rms_norm", "CPU")
def _forward(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Tensor, Tensor]:
    channels = weight.shape[0]
    tasks, rows = _tasks(x, channels)
    normed = torch.empty(x.shape, dtype=x.dtype)
    total = torch.empty(x.shape if residual is not None else (0,), dtype=torch.float32)
    if tasks:
        scale = weight.detach().float().contiguous().numpy()
        outputs = flat_array(total), flat_array(normed)
        parallel_for(normalise, tasks, *_rows(x, channels), *_rows(residual, channels), scale, eps, *outputs, rows)
    return normed, total


@torch.library.register_fake("mamba_kernels::rms_norm")
def _forward_fake(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Tensor, Tensor]:
    total_shape = x.shape if residual is not None else (0,)
    return x.new_empty(x.shape), x.new_empty(total_shape, dtype=torch.float32)


@torch.library.impl("mamba_kernels::rms_norm_backward", "CPU")
def _backward(
    grad: Tensor | None, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    channels = weight.shape[0]
    if grad is None:
        carried = torch.zeros_like(total) if grad_total is None else grad_total.to(total.dtype).clone()
        return carried, torch.zeros_like(weight)
    tasks, rows = _tasks(total, channels)
    total_grad = torch.empty(total.shape, dtype=total.dtype)
    partials = torch.empty(tasks, channels, dtype=torch.float32)
    if tasks:
        scale = weight.detach().float().contiguous().numpy()
        inputs = *_rows(grad, channels), *_rows(grad_total, channels), *_rows(total, channels)
        outputs = flat_array(total_grad), partials.numpy()
        parallel_for(normalise_backward, tasks, *inputs, scale, eps, *outputs, rows)
    return total_grad, partials.sum(0).to(weight.dtype)


@torch.library.register_fake("mamba_kernels::rms_norm_backward")
def _backward_fake(
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
    return torch.ops.mamba_kernels.rms_norm_backward(grad, grad_total, total, weight, eps)


torch.library.register_autograd("mamba_kernels::rms_norm", _differentiate, setup_context=_setup_context)
refuse_second_derivative("mamba_kernels::rms_norm_backward")


def rms_norm_numba(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Tensor, Tensor]:
    """Norm with the compiled kernels, float32 or bfloat16 on the CPU. Returns as `rms_norm_reference` does."""
    normed, total = torch.ops.mamba_kernels.rms_norm.default(x, weight, eps, residual)
    return normed, x if residual is None else total
