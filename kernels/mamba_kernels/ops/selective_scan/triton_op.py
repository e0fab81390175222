"""The Triton scan as PyTorch operators: `mamba_kernels::selective_scan_triton` and its backward."""

from typing import Any

import torch
from torch import Tensor

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.ops.derivatives import (
    gradient_through,
    gradient_wanted,
    refuse_second_derivative,
    to_be_differentiated,
)
from mamba_kernels.ops.selective_scan.torch import selective_scan_torch
from mamba_kernels.ops.selective_scan.triton_launch import SPACING, Inputs, scan_backward_sums, scan_forward_saving

_INPUTS = (
    "Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? reset, "
    "bool delta_softplus, bool reverse"
)
_library = torch.library.Library("mamba_kernels", "FRAGMENT")
_library.define(
    f"selective_scan_triton({_INPUTS}, Tensor? initial_state, bool save) "
    "-> (Tensor y, Tensor final_state, Tensor checkpoints)"
)
_library.define(
    f"selective_scan_triton_backward(Tensor grad_y, Tensor? grad_final_state, {_INPUTS}, Tensor checkpoints) "
    "-> Tensor[]"
)


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, initial_state, save = arguments
    return scan_forward_saving(Inputs(*inputs), initial_state, save)


def _forward_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, initial_state, save = arguments
    x, A = inputs[0], inputs[2]
    dtype = compute_dtype(*inputs[:8], initial_state)
    batch, length, channels = x.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    final_state = x.new_empty(batch, channels, A.shape[1], dtype=dtype)
    kept = (batch, -(-length // SPACING), A.shape[1], channels) if save else (0,)
    return y, final_state, x.new_empty(kept, dtype=dtype)


def _backward(grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any) -> list[Tensor]:
    *inputs, checkpoints = arguments
    found = scan_backward_sums(grad_y, grad_final_state, Inputs(*inputs), checkpoints)
    return [gradient for gradient in found if gradient is not None]


def _backward_shapes(grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any) -> list[Tensor]:
    x, A, checkpoints = arguments[0], arguments[2], arguments[-1]
    like = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in arguments[:8] if t is not None]
    return [*like, x.new_empty(x.shape[0], x.shape[2], A.shape[1], dtype=checkpoints.dtype)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.delta_softplus, ctx.reverse, initial_state, save = inputs
    if not save:
        raise RuntimeError("mamba_kernels::selective_scan_triton was called with save=False: it has no gradient then")
    ctx.save_for_backward(*tensors, initial_state, output[2])
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])


def _differentiate(
    ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None, _: Tensor | None
) -> tuple[Any, ...]:
    *tensors, initial_state, checkpoints = ctx.saved_tensors
    if to_be_differentiated(grad_y, grad_final_state):
        *floating, reset = tensors
        inputs = *floating, ctx.delta_softplus, initial_state, reset, ctx.reverse
        found = gradient_through(selective_scan_torch, inputs, (grad_y, grad_final_state))
        return (*found[:8], None, None, None, found[9], None)
    if grad_y is None:
        grad_y = torch.zeros_like(tensors[0])
    found = iter(
        torch.ops.mamba_kernels.selective_scan_triton_backward(
            grad_y, grad_final_state, *tensors, ctx.delta_softplus, ctx.reverse, checkpoints
        )
    )
    gradients = [None if tensor is None else next(found) for tensor in tensors[:-1]]
    state = None if initial_state is None else next(found).to(initial_state.dtype)
    return (*gradients, None, None, None, state, None)


for _device in ("CPU", "CUDA"):
    _library.impl("selective_scan_triton", _forward, _device)
    _library.impl("selective_scan_triton_backward", _backward, _device)
_NAME = "mamba_kernels::selective_scan_triton"
torch.library.register_fake(_NAME, _forward_shapes, lib=_library)
torch.library.register_fake(f"{_NAME}_backward", _backward_shapes, lib=_library)
torch.library.register_autograd(_NAME, _differentiate, setup_context=_setup, lib=_library)
refuse_second_derivative(f"{_NAME}_backward", _library)


def selective_scan_triton(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Scan with Triton; arguments and result as in `selective_scan_reference`."""
    tensors = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    save = gradient_wanted(*tensors)
    y, final_state, _ = torch.ops.mamba_kernels.selective_scan_triton(
        x, delta, A, B, C, D, z, delta_bias, reset, delta_softplus, reverse, initial_state, save
    )
    return y, final_state
