"""The Numba convolution as the torch operator `mamba_kernels::causal_conv1d`, with gradient and fake tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mamba_kernels.cpu.numba_runtime import parallel_for
from mamba_kernels.cpu.numba_tensors import channels_last, flat_array
from mamba_kernels.ops.causal_conv1d.numba_kernels import TASK_ROWS, convolve, convolve_backward
from mamba_kernels.ops.causal_conv1d.torch import causal_conv1d_torch, final_state
from mamba_kernels.ops.derivatives import gradient_through, refuse_second_derivative, to_be_differentiated

Plane = tuple[np.ndarray, int, int, int]

torch.library.define(
    "mamba_kernels::causal_conv1d",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? reset, bool silu, bool reverse,"
    " bool return_final_state) -> (Tensor, Tensor)",
)
torch.library.define(
    "mamba_kernels::causal_conv1d_backward",
    "(Tensor? grad, Tensor? grad_final_state, Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state,"
    " Tensor? reset, bool silu, bool reverse) -> (Tensor, Tensor, Tensor, Tensor)",
)


def _plane(tensor: Tensor, reverse: bool) -> Plane:
    """Describe a (B, L, D) tensor with neighbouring channels as the kernels see it: see `numba_kernels`."""
    _, length, _ = tensor.shape
    batch_stride, row_stride, _ = tensor.stride()
    if reverse:
        return flat_array(tensor), batch_stride, -row_stride, (length - 1) * row_stride
    return flat_array(tensor), batch_stride, row_stride, 0


def _packed(weight: Tensor, bias: Tensor | None) -> np.ndarray:
    """Return the taps and the bias as one (K + 1, D) float32 array."""
    packed = torch.empty(weight.shape[1] + 1, weight.shape[0], dtype=torch.float32)
    packed[:-1] = weight.detach().t()
    packed[-1] = 0.0 if bias is None else bias.detach()
    return packed.numpy()


def _state_array(state: Tensor | None, like: Tensor) -> np.ndarray:
    if state is None:
        return np.empty((like.shape[0], like.shape[2], 0), np.float32)
    return state.detach().to(torch.float32).contiguous().numpy()


def _reset_array(reset: Tensor | None, reverse: bool, batch: int) -> np.ndarray:
    """Return resets in scan order: the one place where a reversed convolution copies, one byte for each position."""
    if reset is None:
        return np.empty((batch, 0), np.bool_)
    return (reset.flip(1) if reverse else reset.contiguous()).numpy()


def _tasks(x: Tensor) -> int:
    return x.shape[0] * -(-x.shape[1] // TASK_ROWS) if x.numel() else 0


@torch.library.impl("mamba_kernels::causal_conv1d", "CPU")
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    x = channels_last(x)
    y = torch.empty(x.shape, dtype=x.dtype)
    parallel_for(
        convolve,
        _tasks(x),
        _plane(x, reverse),
        _plane(y, reverse),
        _state_array(initial_state, x),
        _reset_array(reset, reverse, x.shape[0]),
        _packed(weight, bias),
        silu,
        x.shape[1],
        x.shape[2],
    )
    if not return_final_state:
        return y, x.new_empty(0)
    return y, final_state(x, initial_state, reset, weight.shape[1], reverse).clone()


@torch.library.register_fake("mamba_kernels::causal_conv1d")
def _forward_fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    state_shape = (x.shape[0], x.shape[2], weight.shape[1] - 1) if return_final_state else (0,)
    return x.new_empty(x.shape), x.new_empty(state_shape)


@torch.library.impl("mamba_kernels::causal_conv1d_backward", "CPU")
def _backward(
    grad: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = channels_last(x)
    grad = torch.zeros_like(x) if grad is None else channels_last(grad)
    batch, length, channels = x.shape
    tasks, taps = _tasks(x), weight.shape[1]
    x_grad = torch.empty(x.shape, dtype=x.dtype)
    partials = torch.empty(tasks, taps + 1, channels, dtype=torch.float32)
    state_grad = torch.zeros(batch, channels, 0 if initial_state is None else taps - 1, dtype=torch.float32)
    if length == 0 and initial_state is not None and grad_final_state is not None:
        state_grad = grad_final_state.float().clone()
    parallel_for(
        convolve_backward,
        tasks,
        _plane(grad, reverse),
        _plane(x, reverse),
        _plane(x_grad, reverse),
        _state_array(initial_state, x),
        _state_array(grad_final_state, x),
        state_grad.numpy(),
        _reset_array(reset, reverse, batch),
        _packed(weight, bias),
        partials.numpy(),
        silu,
        length,
        channels,
    )
    packed_grad = partials.sum(0)
    weight_grad = packed_grad[:-1].t().to(weight.dtype).contiguous()
    bias_grad = packed_grad[-1].to(weight.dtype if bias is None else bias.dtype).clone()
    return x_grad, weight_grad, bias_grad, state_grad


@torch.library.register_fake("mamba_kernels::causal_conv1d_backward")
def _backward_fake(
    grad: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, _, channels = x.shape
    carried = 0 if initial_state is None else weight.shape[1] - 1
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        (weight if bias is None else bias).new_empty(channels),
        x.new_empty((batch, channels, carried), dtype=torch.float32),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, initial_state, reset, ctx.silu, ctx.reverse, ctx.has_final_state = inputs
    ctx.save_for_backward(x, weight, bias, initial_state, reset)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, grad_final_state: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, bias, initial_state, reset = ctx.saved_tensors
    if not ctx.has_final_state:
        grad_final_state = None
    if grad is None and grad_final_state is None:
        return (None,) * 8
    if to_be_differentiated(grad, grad_final_state):
        inputs = x, weight, bias, ctx.silu, initial_state, reset, ctx.reverse, ctx.has_final_state
        found = gradient_through(causal_conv1d_torch, inputs, (grad, grad_final_state))
        return (*found[:3], found[4], None, None, None, None)
    x_grad, weight_grad, bias_grad, state_grad = torch.ops.mamba_kernels.causal_conv1d_backward(
        grad, grad_final_state, x, weight, bias, initial_state, reset, ctx.silu, ctx.reverse
    )
    return (
        x_grad,
        weight_grad,
        None if bias is None else bias_grad,
        None if initial_state is None else state_grad.to(initial_state.dtype),
        None,
        None,
        None,
        None,
    )


torch.library.register_autograd("mamba_kernels::causal_conv1d", _differentiate, setup_context=_setup_context)
refuse_second_derivative("mamba_kernels::causal_conv1d_backward")


def causal_conv1d_numba(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    """Convolve with the compiled kernels, float32 or bfloat16 on the CPU. Returns as `causal_conv1d_reference` does.

    Without `return_final_state` the second tensor is empty.
    """
    return torch.ops.mamba_kernels.causal_conv1d.default(
        x, weight, bias, initial_state, reset, silu, reverse, return_final_state
    )
