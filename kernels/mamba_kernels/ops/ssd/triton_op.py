"""The Triton SSD as PyTorch operators: `mamba_kernels::ssd_triton` and its backward."""

from typing import Any

import torch
from torch import Tensor

from mamba_kernels.ops.derivatives import gradient_through, refuse_second_derivative, to_be_differentiated
from mamba_kernels.ops.ssd.torch import ssd_torch
from mamba_kernels.ops.ssd.triton_launch import Inputs, ssd_backward, ssd_forward

_INPUTS = (
    "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? reset, bool reverse, int chunk_size, "
    "Tensor? initial_state"
)
_NAME = "mamba_kernels::ssd_triton"
_library = torch.library.Library("mamba_kernels", "FRAGMENT")
_library.define(f"ssd_triton({_INPUTS}) -> (Tensor y, Tensor final_state)")
_library.define(f"ssd_triton_backward(Tensor grad_y, Tensor? grad_final_state, {_INPUTS}) -> Tensor[]")


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    *inputs, initial_state = arguments
    return ssd_forward(Inputs(*inputs), initial_state)


def _forward_shapes(*arguments: Any) -> tuple[Tensor, Tensor]:
    x, dt, _, B = arguments[:4]
    return dt.new_empty(x.shape), dt.new_empty((x.shape[0], *x.shape[2:], B.shape[3]))


def _backward(grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any) -> list[Tensor]:
    *inputs, initial_state = arguments
    return ssd_backward(grad_y, grad_final_state, Inputs(*inputs), initial_state)


def _backward_shapes(grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any) -> list[Tensor]:
    x, dt, _, B = arguments[:4]
    state = dt.new_empty((x.shape[0], *x.shape[2:], B.shape[3]))
    return [*(t.new_empty(t.shape) for t in arguments[:5]), state]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.reverse, ctx.chunk_size, initial_state = inputs
    ctx.save_for_backward(*tensors, initial_state)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None) -> tuple[Any, ...]:
    *tensors, initial_state = ctx.saved_tensors
    if grad_y is None and grad_final_state is None:
        return (None,) * 9
    if to_be_differentiated(grad_y, grad_final_state):
        *floating, reset = tensors
        inputs = *floating, initial_state, reset, ctx.reverse, ctx.chunk_size
        found = gradient_through(ssd_torch, inputs, (grad_y, grad_final_state))
        return (*found[:5], None, None, None, found[5])
    if grad_y is None:
        grad_y = torch.zeros_like(tensors[0], dtype=tensors[1].dtype)
    *found, state = torch.ops.mamba_kernels.ssd_triton_backward(
        grad_y, grad_final_state, *tensors, ctx.reverse, ctx.chunk_size, initial_state
    )
    return (*found, None, None, None, None if initial_state is None else state.to(initial_state.dtype))


for _device in ("CPU", "CUDA"):
    _library.impl("ssd_triton", _forward, _device)
    _library.impl("ssd_triton_backward", _backward, _device)
torch.library.register_fake(_NAME, _forward_shapes, lib=_library)
torch.library.register_fake(f"{_NAME}_backward", _backward_shapes, lib=_library)
torch.library.register_autograd(_NAME, _differentiate, setup_context=_setup, lib=_library)
refuse_second_derivative(f"{_NAME}_backward", _library)


def ssd_triton(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Run with Triton; arguments and result as in `ssd_reference`."""
    y, state = torch.ops.mamba_kernels.ssd_triton(x, dt, A, B, C, reset, reverse, chunk_size, initial_state)
    return y, state
