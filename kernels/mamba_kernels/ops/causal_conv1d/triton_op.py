"""The Triton convolution as the torch operator `mamba_kernels::causal_conv1d_triton`, with gradient and shapes."""

from typing import Any

import torch
from torch import Tensor

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.gpu.triton_runtime import accumulator, cdiv, launch, rows
from mamba_kernels.ops.causal_conv1d.torch import causal_conv1d_torch, final_state
from mamba_kernels.ops.causal_conv1d.triton_kernels import conv_backward_inputs, conv_backward_sums, conv_forward
from mamba_kernels.ops.derivatives import gradient_through, refuse_second_derivative, to_be_differentiated

BT, BD = 32, 64
"""Positions and channels of a program, in four warps: 16 elements in a thread."""

_ARGUMENTS = "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? reset, bool silu, bool reverse"
_NAME = "mamba_kernels::causal_conv1d_triton"
torch.library.define(_NAME, f"({_ARGUMENTS}, bool return_final_state) -> (Tensor, Tensor)")
torch.library.define(
    f"{_NAME}_backward",
    f"(Tensor? grad, Tensor? grad_final_state, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
)


def _positions_since_reset(reset: Tensor, memory: int) -> Tensor:
    """Count the positions from the last reset at or before each position; at least `memory` where there was none."""
    position = torch.arange(reset.shape[1], device=reset.device)
    last = torch.where(reset, position, -memory)
    return position - (last.cummax(1).values if reset.shape[1] else last)


def _inputs(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, reset: Tensor | None, reverse: bool
) -> tuple[Tensor | None, ...]:
    """Bring tensors into the kernels' layout; resets become positions since the last one, in scan order."""
    marks = reset.flip(1) if reset is not None and reverse else reset
    since = None if marks is None else _positions_since_reset(marks, x.shape[1] + weight.shape[1]).contiguous()
    kept = None if initial_state is None else initial_state.contiguous()
    return rows(x), weight.contiguous(), None if bias is None else bias.contiguous(), kept, since


def _options(taps: int, reverse: bool, dtype: torch.dtype) -> dict[str, Any]:
    return {"REVERSE": reverse, "K": taps, "BT": BT, "BD": BD, "ACC": accumulator(dtype), "num_warps": 4}


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
    inputs = _inputs(x, weight, bias, initial_state, reset, reverse)
    batch, length, channels = x.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grid = (batch * cdiv(channels, BD), cdiv(length, BT))
    strides = rows(x).stride()[:2]
    options = _options(weight.shape[1], reverse, compute_dtype(x, weight, bias, initial_state)) | {"SILU": silu}
    launch(conv_forward, grid, (inputs, y, (length, channels), strides), options)
    if not return_final_state:
        return y, x.new_empty(0)
    return y, final_state(x, initial_state, reset, weight.shape[1], reverse).clone()


def _forward_shapes(
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
    dtype = compute_dtype(x, weight, bias, initial_state)
    inputs = _inputs(x, weight, bias, initial_state, reset, reverse)
    (batch, length, channels), taps = x.shape, weight.shape[1]
    sizes, blocks = (length, channels), cdiv(length, BT)
    grad = torch.zeros_like(x) if grad is None else rows(grad)
    final = None if grad_final_state is None else grad_final_state.contiguous()
    dz = torch.empty(x.shape, dtype=dtype, device=x.device)
    shares = torch.empty(batch * blocks, taps + 1, channels, dtype=dtype, device=x.device)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    carried = 0 if initial_state is None else taps - 1
    dstate = torch.zeros(batch, channels, carried, dtype=dtype, device=x.device)
    options = _options(taps, reverse, dtype)
    programs = batch * cdiv(channels, BD)
    arguments = (inputs, grad, (dz, shares), sizes, rows(x).stride()[:2], grad.stride()[:2])
    launch(conv_backward_sums, (programs, blocks), arguments, options | {"SILU": silu})
    outputs = (dx, dstate if carried else None)
    arguments = (inputs[1], inputs[4], dz, final, outputs, sizes)
    launch(conv_backward_inputs, (programs, cdiv(length + taps - 1, BT)), arguments, options)
    packed = shares.sum(0)
    dbias = packed[-1].to(weight.dtype if bias is None else bias.dtype).clone()
    return dx, packed[:-1].t().to(weight.dtype).contiguous(), dbias, dstate


def _backward_shapes(
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
        x.new_empty((batch, channels, carried), dtype=compute_dtype(x, weight, bias, initial_state)),
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
    dx, dweight, dbias, dstate = torch.ops.mamba_kernels.causal_conv1d_triton_backward(
        grad, grad_final_state, x, weight, bias, initial_state, reset, ctx.silu, ctx.reverse
    )
    state = None if initial_state is None else dstate.to(initial_state.dtype)
    return dx, dweight, None if bias is None else dbias, state, None, None, None, None


for _device in ("CPU", "CUDA"):
    torch.library.impl(_NAME, _device, _forward)
    torch.library.impl(f"{_NAME}_backward", _device, _backward)
torch.library.register_fake(_NAME, _forward_shapes)
torch.library.register_fake(f"{_NAME}_backward", _backward_shapes)
torch.library.register_autograd(_NAME, _differentiate, setup_context=_setup_context)
refuse_second_derivative(f"{_NAME}_backward")


def causal_conv1d_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    """Convolve with Triton. Returns as `causal_conv1d_reference` does, without `return_final_state` an empty state."""
    if x.numel() == 0:
        return causal_conv1d_torch(x, weight, bias, silu, initial_state, reset, reverse, return_final_state)
    return torch.ops.mamba_kernels.causal_conv1d_triton.default(
        x, weight, bias, initial_state, reset, silu, reverse, return_final_state
    )
