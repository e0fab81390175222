"""Beyond a gradient: second derivatives, forward mode and the transforms of `torch.func`, for every operator.

Compiled kernels have hand-written gradients alone. What is asked for beyond them must be right all the same.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from mamba_kernels import (
    causal_conv1d,
    causal_conv1d_update,
    rms_norm,
    s4d,
    s4d_update,
    selective_scan,
    selective_state_update,
    ssd,
    ssd_update,
)
from mamba_kernels.blocks import Backbone, BackboneConfig

# torch builds its rules for forward mode with a deprecated function of its own.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

B, L, D, N, H, P, K = 2, 7, 4, 3, 2, 4, 3
Run = Callable[..., Tensor]


def _numbers(*shape: int, seed: int = 0, positive: bool = False) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)
    return values.abs() + 0.1 if positive else values


def _joined(outputs: Sequence[Tensor]) -> Tensor:
    return torch.cat([output.reshape(-1) for output in outputs])


def _scan(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, z: Tensor, state: Tensor, **how: Any
) -> Tensor:
    how = {"delta_softplus": True, "return_final_state": True, "initial_state": state, **how}
    return _joined(selective_scan(x, delta, -a.abs(), b, c, d, z, **how))


def _ssd(x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor, **how: Any) -> Tensor:
    how = {"delta_softplus": True, "return_final_state": True, "initial_state": state, **how}
    return _joined(ssd(x, delta, -a.abs(), b, c, d, **how))


def _conv(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor, **how: Any) -> Tensor:
    return _joined(causal_conv1d(x, weight, bias, "silu", initial_state=state, return_final_state=True, **how))


def _norm(x: Tensor, weight: Tensor, residual: Tensor, **how: Any) -> Tensor:
    return _joined(rms_norm(x, weight, 1e-5, residual, **how))


def _s4d(x: Tensor, delta: Tensor, a: Tensor, c: Tensor, d: Tensor, **how: Any) -> Tensor:
    decay = torch.stack([-a[..., 0].abs() - 0.1, a[..., 1]], -1)
    return s4d(x, delta.abs() + 0.1, decay, c, d, **how)


OPERATORS: dict[str, tuple[Run, tuple[Tensor, ...]]] = {
    "selective_scan": (
        _scan,
        (
            *(_numbers(B, L, D, seed=1), _numbers(B, L, D, seed=2), _numbers(D, N), _numbers(B, L, N, seed=3)),
            *(_numbers(B, L, N, seed=4), _numbers(D), _numbers(B, L, D, seed=5), _numbers(B, D, N)),
        ),
    ),
    "ssd": (
        _ssd,
        (
            *(_numbers(B, L, H, P), _numbers(B, L, H), _numbers(H), _numbers(B, L, 1, N, seed=3)),
            *(_numbers(B, L, 1, N, seed=4), _numbers(H, seed=5), _numbers(B, H, P, N)),
        ),
    ),
    "causal_conv1d": (_conv, (_numbers(B, L, D), _numbers(D, K), _numbers(D, seed=2), _numbers(B, D, K - 1))),
    "rms_norm": (_norm, (_numbers(B, L, D, seed=1), _numbers(D), _numbers(B, L, D, seed=2))),
    "s4d": (_s4d, (_numbers(B, L, D), _numbers(D), _numbers(D, N, 2, seed=1), _numbers(D, N, 2, seed=2), _numbers(D))),
}
BACKENDS = ("reference", "torch", "numba", "triton")
CASES = [
    pytest.param(name, backend, id=f"{name}-{backend}")
    for name in OPERATORS
    for backend in BACKENDS
    if not (name == "s4d" and backend in ("numba", "triton"))
]


def _second_derivative(run: Run, inputs: Sequence[Tensor], backend: str) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    first = torch.autograd.grad(run(*leaves, backend=backend).square().sum(), leaves, create_graph=True)
    return list(torch.autograd.grad(sum(g.sin().sum() for g in first), leaves))


def _tangent(run: Run, inputs: Sequence[Tensor], backend: str) -> Tensor:
    tangents = tuple(tensor.cos() for tensor in inputs)
    return torch.func.jvp(lambda *tensors: run(*tensors, backend=backend), tuple(inputs), tangents)[1]


def _prepared(name: str, backend: str, device: torch.device) -> tuple[Run, tuple[Tensor, ...], tuple[Tensor, ...]]:
    run, exact = OPERATORS[name]
    dtype = torch.float32 if backend in ("numba", "triton") else torch.float64
    return run, exact, tuple(tensor.to(device if backend == "triton" else "cpu", dtype) for tensor in exact)


def _agree(found: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 1e-2, "a derivative that is zero would prove nothing"
    torch.testing.assert_close(found.cpu().double(), expected, rtol=2e-4, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_second_derivatives_are_right(name: str, backend: str, triton_device: torch.device) -> None:
    run, exact, inputs = _prepared(name, backend, triton_device)
    for found, expected in zip(
        _second_derivative(run, inputs, backend), _second_derivative(run, exact, "reference"), strict=True
    ):
        _agree(found, expected)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_forward_mode_is_right(name: str, backend: str, triton_device: torch.device) -> None:
    run, exact, inputs = _prepared(name, backend, triton_device)
    _agree(_tangent(run, inputs, backend), _tangent(run, exact, "reference"))


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_dual_tensors_carry_their_tangent(name: str, backend: str, triton_device: torch.device) -> None:
    run, exact, inputs = _prepared(name, backend, triton_device)
    with forward_ad.dual_level():
        dual = [forward_ad.make_dual(inputs[0], inputs[0].cos()), *inputs[1:]]
        found = forward_ad.unpack_dual(run(*dual, backend=backend)).tangent
    expected = torch.func.jvp(lambda x: run(x, *exact[1:], backend="reference"), (exact[0],), (exact[0].cos(),))[1]
    assert found is not None
    _agree(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["causal_conv1d", "rms_norm"])
def test_jacobians_agree(name: str, backend: str, triton_device: torch.device) -> None:
    run, _, inputs = _prepared(name, backend, triton_device)
    found = torch.func.jacfwd(lambda x: run(x, *inputs[1:], backend=backend))(inputs[0])
    backward = torch.func.jacrev(lambda x: run(x, *inputs[1:], backend=backend))(inputs[0])
    torch.testing.assert_close(found, backward, rtol=1e-4, atol=1e-5)
    assert found.abs().max() > 0.1


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_gradients_of_single_examples(backend: str) -> None:
    run, _, inputs = _prepared("rms_norm", backend, torch.device("cpu"))
    x, weight, residual = inputs

    def loss(x: Tensor, residual: Tensor) -> Tensor:
        return run(x, weight, residual, backend=backend).square().sum()

    together = torch.func.vmap(torch.func.grad(loss))(x, residual)
    alone = torch.stack([torch.func.grad(loss)(x[i], residual[i]) for i in range(B)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    "way", [{}, {"bidirectional": "add", "reverse_complement": "equivariant"}], ids=["right", "both"]
)
@pytest.mark.parametrize("mixer", ["mamba", "mamba2", "s4d", "hyena", "attention"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's attention, under vmap
def test_gradients_of_single_sequences_through_a_backbone(mixer: str, way: dict[str, str]) -> None:
    """Of all weights, in chunks or not: as many calls, each with one sequence, give the same."""
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(d_model=8, layers=[mixer] * 2, d_state=4, chunk_size=4, **way))
    weights = {name: weight.detach() for name, weight in backbone.named_parameters()}
    x, target = torch.randn(3, 9, 8), torch.randn(3, 9, 8)

    def loss(weights: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        y, _ = torch.func.functional_call(backbone, weights, (x[None],))
        return (y[0] * target).sum()

    gradient = torch.func.grad(loss)
    together = torch.func.vmap(gradient, in_dims=(None, 0, 0))(weights, x, target)
    for place in range(3):
        found = gradient(weights, x[place], target[place])
        expected = torch.autograd.grad(
            loss(dict(backbone.named_parameters()), x[place], target[place]), list(backbone.parameters())
        )
        scale = max(float(one.abs().max()) for one in expected)
        for name, one in zip(weights, expected, strict=True):
            for other in (found[name], together[name][place]):
                torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5 * scale)


STEPS: dict[str, tuple[Run, tuple[Tensor, ...]]] = {
    "selective_state_update": (
        lambda state, x, dt, a, b, c, **how: _joined(selective_state_update(state, x, dt, -a.abs(), b, c, **how)),
        (
            _numbers(B, D, N),
            _numbers(B, D),
            _numbers(B, D, positive=True),
            _numbers(D, N),
            _numbers(B, N),
            _numbers(B, N),
        ),
    ),
    "causal_conv1d_update": (
        lambda state, x, weight, **how: _joined(causal_conv1d_update(x, state, weight, **how)),
        (_numbers(B, D, K - 1), _numbers(B, D), _numbers(D, K)),
    ),
    "ssd_update": (
        lambda state, x, dt, a, b, c, **how: _joined(ssd_update(state, x, dt, -a.abs(), b, c, **how)),
        (
            *(_numbers(B, H, P, N), _numbers(B, H, P), _numbers(B, H, positive=True), _numbers(H)),
            *(_numbers(B, 1, N, seed=1), _numbers(B, 1, N, seed=2)),
        ),
    ),
    "s4d_update": (
        lambda state, x, delta, a, c, **_: _joined(s4d_update(state, x, delta.abs(), -a.abs(), c)),
        (_numbers(B, D, N, 2), _numbers(B, D), _numbers(D), _numbers(D, N, 2, seed=1), _numbers(D, N, 2, seed=2)),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_single_steps_have_every_derivative(name: str) -> None:
    run, exact = STEPS[name]
    reference = {} if name == "s4d_update" else {"backend": "reference"}
    inputs = [tensor.float().requires_grad_() for tensor in exact]
    leaves = [tensor.clone().requires_grad_() for tensor in exact]
    first = torch.autograd.grad(run(*inputs).square().sum(), inputs, create_graph=True)
    true = torch.autograd.grad(run(*leaves, **reference).square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)
    true_second = torch.autograd.grad(sum(g.sin().sum() for g in true), leaves)
    for found, expected in zip((*first, *second), (*true, *true_second), strict=True):
        _agree(found.detach(), expected.detach())
    tangents = tuple(tensor.cos() for tensor in exact)
    found = torch.func.jvp(
        run, tuple(tensor.float() for tensor in exact), tuple(tensor.float() for tensor in tangents)
    )[1]
    _agree(found, torch.func.jvp(lambda *tensors: run(*tensors, **reference), exact, tangents)[1])


COMPILED = """
import torch
from mamba_kernels import causal_conv1d, rms_norm, selective_scan

x, tangent = torch.randn(2, 7, 4), torch.randn(2, 7, 4)
weight, taps, decay, mixed = torch.randn(4), torch.randn(4, 3), -torch.rand(4, 3), torch.randn(2, 7, 3)
for run in (
    lambda x: rms_norm(x, weight, backend="numba"),
    lambda x: causal_conv1d(x, taps, backend="numba"),
    lambda x: selective_scan(x, x.abs(), decay, mixed, mixed, backend="numba"),
):
    right = torch.func.jvp(run, (x,), (tangent,))[1]
    torch.compiler.reset()
    inside = torch.compile(lambda x, tangent: torch.func.jvp(run, (x,), (tangent,))[1], backend="eager")(x, tangent)
    torch.compiler.reset()
    outside = torch.func.jvp(torch.compile(run, backend="eager"), (x,), (tangent,))[1]
    assert right.norm() > 0.1
    torch.testing.assert_close(inside, right)
    torch.testing.assert_close(outside, right)
print("right")
"""


def test_forward_mode_is_right_where_it_is_compiled() -> None:
    """In a process of its own, without the run-time type checker, which no compiler can follow."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.stdout == "right\n", done.stderr
