"""Selective scan and output projection of a chunk, the scan run forward only once although the chunk is recomputed.

The scan's backward pass starts from states saved every few hundred steps and writes the output once more on its way.
So a recomputed chunk needs no second forward scan: its output is wanted for one thing only, the gradient of the
projection behind it, and that is formed after the scan's backward pass. `Tape` carries the saved states from the first
run to the second. Scan and projection therefore form one differentiable operation here, whose replayed value is
nothing but a place to hang its gradient on.

Shapes: `B` batch, `L` length, `D` inner channels, `N` states a channel, `M` channels of the residual stream.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mamba_kernels import selective_scan
from mamba_kernels.dispatch import resolve_backend


class ScanArguments(NamedTuple):
    """What `selective_scan` takes, its initial state apart."""

    x: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    delta_bias: Tensor
    reset: Tensor | None
    reverse: bool


class Tape:
    """What the first run of a chunk leaves for the second."""

    def __init__(self, recorded: tuple[Tensor, ...] | None = None) -> None:
        """An empty tape to record on, or one to replay."""
        self.replaying = recorded is not None
        self.tensors: tuple[Tensor, ...] = recorded or ()


def scan(arguments: ScanArguments, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The gated output (B, L, D) and the final state (B, D, N)."""
    x, delta, a, b, c, skip, z, bias, reset, reverse = arguments
    return selective_scan(
        *(x, delta, a, b, c, skip, z, bias, True),
        initial_state=initial_state,
        reset=reset,
        reverse=reverse,
        return_final_state=True,
    )


def scan_and_project(
    arguments: ScanArguments, initial_state: Tensor | None, weight: Tensor, tape: Tape | None
) -> tuple[Tensor, Tensor]:
    """`scan`, then the projection by `weight` (M, D): (B, L, M), and the final state.

    With a tape that replays, the results stand for their gradients only, and their values are zero.
    """
    x = arguments.x
    if tape is None or resolve_backend("selective_scan", None, x.device, x.dtype) != "numba":
        y, final = scan(arguments, initial_state)
        return F.linear(y, weight), final
    if tape.replaying:
        return _ReplayedScan.apply(weight, initial_state, tape.tensors[0], *arguments)
    from mamba_kernels.ops.selective_scan.numba_kernels import scan_forward_saving  # numba is loaded where it is used

    y, final, checkpoints = scan_forward_saving(_scan_inputs(arguments), initial_state)
    tape.tensors = (checkpoints,)
    return F.linear(y, weight), final


def _scan_inputs(arguments: ScanArguments) -> Any:
    from mamba_kernels.ops.selective_scan.numba_kernels import ScanInputs

    return ScanInputs(*arguments[:-1], delta_softplus=True, reverse=arguments.reverse)  # pyright: ignore


class _ReplayedScan(torch.autograd.Function):
    """`apply(weight, initial_state, checkpoints, *arguments) -> (projected output, final state)`, both zero."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, initial_state: Tensor | None, checkpoints: Tensor, *arguments: Any
    ) -> tuple[Tensor, Tensor]:
        *tensors, ctx.reverse = arguments
        x, a = arguments[0], arguments[2]
        ctx.save_for_backward(weight, checkpoints, *tensors)
        zero, zero_state = x.new_zeros(()), a.new_zeros(())
        return zero.expand(*x.shape[:2], weight.shape[0]), zero_state.expand(x.shape[0], *a.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from mamba_kernels.ops.selective_scan.numba_kernels import scan_backward

        weight, checkpoints, *tensors = ctx.saved_tensors
        grad_output, grad_state = gradients
        grad_y = grad_output @ weight.to(grad_output.dtype)
        arguments = ScanArguments(*tensors, reverse=ctx.reverse)
        found = scan_backward(grad_y, grad_state, _scan_inputs(arguments), checkpoints, return_y=True)
        assert found.y is not None  # asked for above
        grad_weight = grad_output.flatten(0, 1).t() @ found.y.flatten(0, 1).to(grad_output.dtype)
        return (
            *(grad_weight.to(weight.dtype), found.initial_state if ctx.needs_input_grad[1] else None, None),
            *(found.x, found.delta, found.A, found.B, found.C, found.D, found.z, found.delta_bias, None, None),
        )
