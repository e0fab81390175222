"""The C++ loop that the CPU kernels are timed against computes the same scan, gradients included."""

from __future__ import annotations

import pytest
import torch

from benchmarks import yardstick
from mamba_kernels import selective_scan

pytestmark = pytest.mark.skipif(not yardstick.available(), reason="needs g++")
NAMES = ("x", "delta", "A", "B", "C", "D", "z")


def leaves(length: int, channels: int, states: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    rows = (1, length, channels)
    delta = torch.rand(*rows, generator=generator) * 0.5
    A = -torch.rand(channels, states, generator=generator) * 4
    parts = (normal(*rows), delta, A, normal(1, length, states), normal(1, length, states), normal(channels))
    return [*parts, normal(*rows)]


def outcome(scan: object, tensors: list[torch.Tensor], weight: torch.Tensor, **options: str) -> list[torch.Tensor]:
    assert callable(scan)
    given = [tensor.clone().requires_grad_() for tensor in tensors]
    y = scan(*given, **options)
    assert isinstance(y, torch.Tensor)
    return [y.detach(), *torch.autograd.grad(y, given, weight)]


@pytest.mark.parametrize(("length", "channels", "states"), [(1, 64, 16), (300, 128, 16), (513, 64, 5)])
def test_the_yardstick_equals_the_reference_in_float64(length: int, channels: int, states: int) -> None:
    """Lengths on both sides of a segment of 256 steps, one and two tiles of channels, odd numbers of states."""
    tensors, weight = leaves(length, channels, states), torch.randn(1, length, channels)
    found = outcome(yardstick.scan, tensors, weight)
    wanted = outcome(selective_scan, [t.double() for t in tensors], weight.double(), backend="reference")
    for name, one, other in zip(("y", *NAMES), found, wanted, strict=True):
        assert float((one.double() - other).abs().max()) <= 2e-5 * float(other.abs().max()) + 1e-6, name


def test_what_the_yardstick_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="channels in 64s"):
        yardstick.scan(*leaves(8, 65, 4))
