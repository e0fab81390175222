"""The convolution and the scan on a rank's part of a sequence, equal to the operators on the whole of it.

Shapes: `B` batch, `L` this rank's tokens, `D` channels, `N` states, `K` taps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mamba_kernels import causal_conv1d, selective_scan
from mamba_kernels.arguments import compute_dtype
from mamba_kernels.ops.derivatives import differentiable_once
from mamba_kernels.parallel.exchange import RankExchange


def split_causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    group: dist.ProcessGroup,
    reset: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """`causal_conv1d` of a sequence of which each rank holds a consecutive part of at least K - 1 tokens.

    Each rank hands its last K - 1 inputs to the next (with `reverse` its first ones to the one before).

    Raises:
        ValueError: As `causal_conv1d`, or some rank has too few tokens.
    """
    exchange, memory = RankExchange(group), weight.shape[-1] - 1
    exchange.check_lengths(x.shape[1], memory)
    edge = slice(0, memory) if reverse else slice(x.shape[1] - memory, x.shape[1])
    _, last = causal_conv1d(
        *(x[:, edge], weight, bias, activation),
        reset=None if reset is None else reset[:, edge],
        reverse=reverse,
        return_final_state=True,
        backend=backend,
    )
    before = exchange.shift(last, reverse=reverse)
    options = {"initial_state": before, "reset": reset, "reverse": reverse, "backend": backend}
    return causal_conv1d(x, weight, bias, activation, **options)


def decay_product(total: Tensor, rates: Tensor, reset: Tensor | None) -> Tensor:
    """What a run multiplies its first state by, from the sum of its steps.

    Args:
        total: (B, D) the sum of the step sizes.
        rates: (D, N) the decay rates `A`.
        reset: (B, L); a state does not survive a reset.

    Returns:
        (B, D, N).
    """
    decay = torch.exp(total.unsqueeze(-1) * rates)
    return decay if reset is None else torch.where(reset.any(dim=1)[:, None, None], 0.0, decay)


def split_selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    group: dist.ProcessGroup,
    reset: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """`selective_scan` of a sequence of which each rank holds a consecutive part.

    Each rank scans its part twice: from zero for the state that it hands on, then from the state that enters it.
    Backward likewise. Two tensors of a state's size are exchanged in each pass.

    Returns:
        y (B, L, D), this rank's part.

    Raises:
        ValueError: As `selective_scan`.
        TypeError: As `selective_scan`.
    """
    options = {"delta_softplus": delta_softplus, "reset": reset, "reverse": reverse, "backend": backend}
    return _SplitScan.apply(RankExchange(group), options, x, delta, A, B, C, D, z, delta_bias)


class _SplitScan(torch.autograd.Function):
    """`apply(exchange, options, x, delta, A, B, C, D, z, delta_bias) -> y`."""

    @staticmethod
    def forward(ctx: Any, exchange: RankExchange, options: dict[str, Any], *tensors: Any) -> Tensor:
        _, final = selective_scan(*tensors, **options, return_final_state=True)
        decays = exchange.gather(_decay(tensors, options).to(final.dtype))
        first = exchange.combine(decays, exchange.gather(final), reverse=options["reverse"])
        ctx.exchange, ctx.options = exchange, options
        ctx.save_for_backward(decays, first, *tensors)
        return selective_scan(*tensors, **options, initial_state=first)

    @staticmethod
    @differentiable_once("a scan that is split over ranks has no second derivative; use selective_scan on one rank")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        decays, first, *saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        first = first.detach().requires_grad_()
        tensors: list[Any] = [
            t if t is None else t.detach().requires_grad_(need) for t, need in zip(saved, needed, strict=True)
        ]
        with torch.enable_grad():
            y, final = selective_scan(*tensors, **ctx.options, initial_state=first, return_final_state=True)
        (through_y,) = torch.autograd.grad(y, first, gradients[0], retain_graph=True)
        grad_final = ctx.exchange.combine(decays, ctx.exchange.gather(through_y), reverse=not ctx.options["reverse"])
        wanted = [t for t, need in zip(tensors, needed, strict=True) if need]
        found = iter(torch.autograd.grad([y, final], wanted, [gradients[0], grad_final], allow_unused=True))
        return (None, None, *(next(found) if need else None for need in needed))


def _decay(tensors: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    _, delta, rates, *_, bias = tensors
    wide = compute_dtype(delta, rates)
    steps = delta.to(wide) if bias is None else delta.to(wide) + bias.to(wide)
    total = (F.softplus(steps) if options["delta_softplus"] else steps).sum(dim=1)
    return decay_product(total, rates.to(wide), options["reset"])
