"""Cases for the scan and SSD: shapes, options and tensors, and what a backend makes of them, gradients included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from random import Random
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor | None]
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What both operators have in common."""

    batch: int = 1
    length: int = 33
    states: int = 4
    groups: int = 1
    gate: bool = True
    skip: bool = True
    bias: bool = True
    softplus: bool = True
    initial: bool = True
    reset: bool = False
    reverse: bool = False
    damping: float = 8.0

    def __str__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        sizes = [f"{k}{v}" for k, v in values.items() if isinstance(v, int) and not isinstance(v, bool)]
        return "-".join([*sizes, *(k for k, v in values.items() if v is True)])

    def widths(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Shapes of a row of x, a row of delta, and A."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """The operator's arguments that are no tensors."""
        return {"delta_softplus": self.softplus, "reverse": self.reverse}


@dataclass(frozen=True, kw_only=True)
class ScanCase(Case):
    """A scan; `groups` 0 is B and C without a group dimension."""

    groups: int = 0
    channels: int = 16

    def widths(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        return (self.channels,), (self.channels,), (self.channels, self.states)


@dataclass(frozen=True, kw_only=True)
class SSDCase(Case):
    """An SSD; `each` is the heads of a group, `width` the channels of a head."""

    each: int = 2
    width: int = 8
    chunk: int = 16

    @property
    def heads(self) -> int:
        return self.groups * self.each

    def widths(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        return (self.heads, self.width), (self.heads,), (self.heads,)

    def options(self) -> dict[str, Any]:
        return super().options() | {"chunk_size": self.chunk}


def make(case: Case, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and the other arguments, on the CPU."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(dtype)

    rows = (case.batch, case.length)
    x, delta, rates = case.widths()
    parameter = (*rows, *([case.groups] if case.groups else []), case.states)
    tensors = {
        "x": normal(*rows, *x),
        "delta": normal(*rows, *delta) - 2 if case.softplus else uniform(*rows, *delta) * 0.2 + 0.01,
        "A": -uniform(*rates) * case.damping,
        "B": normal(*parameter),
        "C": normal(*parameter),
        "D": normal(*delta) if case.skip else None,
        "z": normal(*rows, *x) if case.gate else None,
        "delta_bias": uniform(*delta) * 0.1 if case.bias else None,
        "initial_state": normal(case.batch, *x, case.states) if case.initial else None,
    }
    cuts = torch.rand(rows, generator=generator) < 0.12 if case.reset else None
    return tensors, case.options() | {"reset": cuts}


def differentiate(
    operator: Callable[..., Any],
    tensors: Tensors,
    options: Mapping[str, Any],
    backend: str,
    device: torch.device = CPU,
) -> dict[str, Tensor]:
    """Output, final state and all gradients of a fixed random projection of both, on the CPU."""
    leaves = {k: None if v is None else v.detach().clone().to(device).requires_grad_() for k, v in tensors.items()}
    settings = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}
    y, state = operator(**leaves, **settings, return_final_state=True, backend=backend)
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(t.shape, generator=generator).to(t) for t in (y, state)]
    torch.autograd.backward([y, state], weights)
    gradients = {f"d{k}": v.grad.cpu() for k, v in leaves.items() if v is not None and v.grad is not None}
    return {"y": y.detach().cpu(), "final_state": state.detach().cpu(), **gradients}


def cast(tensors: Mapping[str, Tensor | None], dtype: torch.dtype = torch.float64) -> Tensors:
    return {k: None if v is None else v.to(dtype) for k, v in tensors.items()}


def errors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Greatest error of each tensor, relative to its greatest element."""
    assert found.keys() == expected.keys()
    return {k: float((found[k].double() - e).abs().max() / e.abs().max().clamp_min(1e-6)) for k, e in expected.items()}


def check(
    operator: Callable[..., Any],
    case: Case,
    backend: str,
    device: torch.device = CPU,
    tolerance: float = 3e-5,
    dtype: torch.dtype = torch.float32,
) -> None:
    """A backend gives what the sequential reference gives in float64."""
    tensors, options = make(case, dtype)
    expected = differentiate(operator, cast(tensors), options, "reference")
    found = differentiate(operator, tensors, options, backend, device)
    assert found["y"].dtype == dtype
    worst = errors(found, expected)
    assert max(worst.values()) < tolerance, worst


def flags(draw: Random) -> dict[str, Any]:
    """Every option, each as often on as off."""
    chosen = {f.name: draw.random() < 0.5 for f in fields(Case) if f.type in (bool, "bool")}
    return {**chosen, "damping": draw.choice([1.0, 8.0, 60.0])}


def surrounded(tensor: Tensor) -> Tensor:
    """The same values with NaN before, after and between the rows of memory."""
    room = [size + 2 for size in tensor.shape[:-1]] + [tensor.shape[-1] + 7]
    big = torch.full(room, float("nan"), dtype=tensor.dtype, device=tensor.device)
    inside = big[tuple(slice(1, 1 + size) for size in tensor.shape)]
    return inside.copy_(tensor)
