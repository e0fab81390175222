"""The CPU scan as PyTorch operators: `mamba_kernels::selective_scan` and its backward, for autograd and compilers."""

from typing import Any

import torch
from torch import Tensor

from mamba_kernels.ops.derivatives import (
    gradient_through,
    gradient_wanted,
    refuse_second_derivative,
    to_be_differentiated,
)
from mamba_kernels.ops.selective_scan.numba_kernels import (
    ScanInputs,
    checkpoint_shape,
    scan_backward,
    scan_forward_saving,
)
from mamba_kernels.ops.selective_scan.torch import selective_scan_torch

_INPUTS = (
    "Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? reset, "
    "bool delta_softplus, bool reverse"
)
_library = torch.library.Library("mamba_kernels", "FRAGMENT")
_library.define(
    f"selective_scan({_INPUTS}, Tensor? initial_state, bool save) -> (Tensor y, Tensor final_state, Tensor checkpoints)"
)
_library.define(
    f"selective_scan_backward(Tensor grad_y, Tensor? grad_final_state, {_INPUTS}, Tensor checkpoints) -> Tensor[]"
)


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, initial_state, save = arguments
    return scan_forward_saving(ScanInputs(*inputs), initial_state, save=save)


def _forward_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, _, save = arguments
    x, A, B = inputs[0], inputs[2], inputs[3]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    final_state = x.new_empty(x.shape[0], x.shape[2], A.shape[1], dtype=torch.float32)
    checkpoints = x.new_empty(checkpoint_shape(x, A, B) if save else (0,), dtype=torch.float32)
    return y, final_state, checkpoints


def _backward(grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any) -> list[Tensor]:
    *inputs, checkpoints = arguments
    found = scan_backward(grad_y, grad_final_state, ScanInputs(*inputs), checkpoints)
    return [gradient for gradient in found if gradient is not None]


def _backward_shapes(grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any) -> list[Tensor]:
    x, delta, A, B, C, D, z, delta_bias = arguments[:8]
    like = [
        torch.empty(t.shape, dtype=t.dtype, device=t.device)
        for t in (x, delta, A, B, C, D, z, delta_bias)
        if t is not None
    ]
    return [*like, x.new_empty(x.shape[0], x.shape[2], A.shape[1], dtype=torch.float32)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.delta_softplus, ctx.reverse, initial_state, save = inputs
    if not save:
        raise RuntimeError("mamba_kernels::selective_scan was called with save=False, so it cannot be differentiated")
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
        torch.ops.mamba_kernels.selective_scan_backward(
            grad_y, grad_final_state, *tensors, ctx.delta_softplus, ctx.reverse, checkpoints
        )
    )
    gradients = [None if tensor is None else next(found) for tensor in tensors[:-1]]
    state = None if initial_state is None else next(found).to(initial_state.dtype)
    return (*gradients, None, None, None, state, None)


_library.impl("selective_scan", _forward, "CPU")
_library.impl("selective_scan_backward", _backward, "CPU")
torch.library.register_fake("mamba_kernels::selective_scan", _forward_shapes, lib=_library)
torch.library.register_fake("mamba_kernels::selective_scan_backward", _backward_shapes, lib=_library)
torch.library.register_autograd("mamba_kernels::selective_scan", _differentiate, setup_context=_setup, lib=_library)
refuse_second_derivative("mamba_kernels::selective_scan_backward", _library)


def selective_scan_numba(
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
    """Scan on the CPU; arguments and result as in `selective_scan_reference`, float32 and bfloat16 only."""
    tensors = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    save = gradient_wanted(*tensors)
    y, final_state, _ = torch.ops.mamba_kernels.selective_scan(
        x, delta, A, B, C, D, z, delta_bias, reset, delta_softplus, reverse, initial_state, save
    )
    return y, final_state
