"""The Triton convolution, norm and one-token updates against their float64 references: results and every gradient."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from mamba_kernels import causal_conv1d, causal_conv1d_update, rms_norm, selective_state_update

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("poisoned_memory")
Shapes = dict[str, tuple[int, ...] | None]


def draw_tensors(shapes: Shapes, device: torch.device, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor | None]:
    """Normal values, the same ones on every device."""
    generator = torch.Generator().manual_seed(seed)
    return {k: None if s is None else torch.randn(s, generator=generator).to(device, dtype) for k, s in shapes.items()}


def compare(operator: Any, tensors: dict[str, Tensor | None], options: dict[str, Any], tolerance: float) -> None:
    """Compare all outputs and, of a random projection of them, all gradients with the reference in float64."""
    runs = []
    for backend, dtype in (("reference", torch.float64), ("triton", None)):
        leaves = {
            k: None if v is None else v.detach().to(dtype or v.dtype).requires_grad_() for k, v in tensors.items()
        }
        outputs = operator(**leaves, **options, backend=backend)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        generator = torch.Generator().manual_seed(9)
        weights = [torch.randn(o.shape, generator=generator).to(o) for o in outputs]
        torch.autograd.backward(outputs, weights)
        runs.append([*(o.detach() for o in outputs), *(v.grad for v in leaves.values() if v is not None)])
    for expected, found in zip(*runs, strict=True):
        assert found.shape == expected.shape
        if expected.numel() == 0:
            continue
        assert float((found.double() - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


def conv_case(
    batch: int, length: int, channels: int, taps: int, bias: bool, state: bool, reset: bool, silu: bool, reverse: bool
) -> tuple[Shapes, dict[str, Any]]:
    shapes: Shapes = {
        "x": (batch, length, channels),
        "weight": (channels, taps),
        "bias": (channels,) if bias else None,
        "initial_state": (batch, channels, taps - 1) if state and taps > 1 else None,
    }
    cuts = torch.rand(batch, length, generator=torch.Generator().manual_seed(length)) < 0.2 if reset else None
    return shapes, {
        "activation": "silu" if silu else None,
        "reset": cuts,
        "reverse": reverse,
        "return_final_state": True,
    }


def drawn_convolutions(count: int) -> list[tuple[int | bool, ...]]:
    draw = random.Random(5)
    sizes = [1, 2, 3, 5, 31, 32, 33, 64, 65, 100]
    cases = []
    for _ in range(count):
        flags = [draw.random() < 0.5 for _ in range(5)]
        cases.append(
            (draw.choice([1, 2]), draw.choice(sizes), draw.choice(sizes), draw.choice([1, 2, 3, 4, 7]), *flags)
        )
    return cases


CONVOLUTIONS = drawn_convolutions(80)


def check_convolution(case: tuple[Any, ...], device: torch.device, dtype: torch.dtype, tolerance: float) -> None:
    shapes, options = conv_case(*case)
    options["reset"] = None if options["reset"] is None else options["reset"].to(device)
    compare(causal_conv1d, draw_tensors(shapes, device, dtype), options, tolerance)


@pytest.mark.parametrize("case", CONVOLUTIONS[:14], ids=str)
def test_convolution(case: tuple[Any, ...], triton_device: torch.device) -> None:
    check_convolution(case, triton_device, torch.float32, 3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", CONVOLUTIONS[14:], ids=str)
def test_convolution_on_many_shapes(case: tuple[Any, ...], triton_device: torch.device) -> None:
    check_convolution(case, triton_device, torch.float32, 3e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_convolution_by_finite_differences(reverse: bool, triton_device: torch.device) -> None:
    shapes, options = conv_case(2, 5, 3, 3, True, True, True, True, reverse)
    tensors = draw_tensors(shapes, triton_device, torch.float64)
    leaves = [v.requires_grad_() for v in tensors.values() if v is not None]
    options["reset"] = options["reset"].to(triton_device)

    def convolve(*values: Tensor) -> Any:
        return causal_conv1d(**dict(zip(shapes, values, strict=True)), **options, backend="triton")

    assert torch.autograd.gradcheck(convolve, leaves, fast_mode=True)


NORMS = [
    (rows, channels, residual)
    for channels in (1, 2, 3, 31, 64, 100, 257, 512)
    for rows in (1, 3, 33, 65)
    for residual in (False, True)
]


@pytest.mark.parametrize(("rows", "channels", "residual"), NORMS)
def test_norm(rows: int, channels: int, residual: bool, triton_device: torch.device) -> None:
    shapes: Shapes = {"x": (rows, channels), "weight": (channels,), "residual": (rows, channels) if residual else None}
    compare(rms_norm, draw_tensors(shapes, triton_device, torch.float32), {"eps": 1e-2}, 3e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_dtypes(dtype: torch.dtype, triton_device: torch.device) -> None:
    check_convolution((1, 9, 5, 4, True, True, False, True, False), triton_device, dtype, 2**-6)
    shapes: Shapes = {"x": (2, 3, 40), "weight": (40,), "residual": (2, 3, 40)}
    compare(rms_norm, draw_tensors(shapes, triton_device, dtype), {"eps": 1e-5}, 2**-6)


def test_norm_by_finite_differences(triton_device: torch.device) -> None:
    shapes: Shapes = {"x": (2, 3, 5), "weight": (5,), "residual": (2, 3, 5)}
    leaves = [v.requires_grad_() for v in draw_tensors(shapes, triton_device, torch.float64).values() if v is not None]
    assert torch.autograd.gradcheck(lambda x, w, r: rms_norm(x, w, 1e-5, r, backend="triton"), leaves, fast_mode=True)


def test_halves_of_a_tensor_are_read_in_place(triton_device: torch.device) -> None:
    both = torch.randn(2, 7, 24, device=triton_device)
    both[..., 12:] = float("nan")
    weight = torch.randn(12, 4, device=triton_device)
    half = both[..., :12]
    found = causal_conv1d(half, weight, backend="triton")
    assert torch.equal(found, causal_conv1d(half.contiguous(), weight, backend="triton"))
    normed = rms_norm(half, weight[:, 0].contiguous(), backend="triton")
    assert torch.equal(normed, rms_norm(half.contiguous(), weight[:, 0].contiguous(), backend="triton"))


def test_operators_pass_opcheck(triton_device: torch.device) -> None:
    shapes, _ = conv_case(1, 4, 3, 3, True, True, False, True, False)
    x, weight, bias, state = (v.requires_grad_() for v in draw_tensors(shapes, triton_device, torch.float32).values())
    causal_conv1d(x, weight, backend="triton")
    rms_norm(x, bias, backend="triton")
    ops = torch.ops.mamba_kernels
    torch.library.opcheck(ops.causal_conv1d_triton.default, (x, weight, bias, state, None, True, False, True))
    torch.library.opcheck(ops.rms_norm_triton.default, (x, bias, 1e-5, x.detach().clone().requires_grad_()))


def test_empty_sequences(triton_device: torch.device) -> None:
    x = torch.zeros(2, 0, 3, device=triton_device)
    y, state = causal_conv1d(x, torch.ones(3, 4, device=triton_device), return_final_state=True, backend="triton")
    assert y.shape == (2, 0, 3)
    assert torch.equal(state, torch.zeros(2, 3, 3, device=triton_device))
    assert rms_norm(x, torch.ones(3, device=triton_device), backend="triton").shape == (2, 0, 3)


UPDATES = [
    (batch, channels, states, groups, full)
    for batch, channels, groups in ((1, 1, 0), (2, 33, 1), (3, 6, 3), (2, 40, 2))
    for states in (1, 2, 3, 5, 16, 17, 64, 256)
    for full in (False, True)
]


@pytest.mark.parametrize(("batch", "channels", "states", "groups", "full"), UPDATES)
def test_scan_update(
    batch: int, channels: int, states: int, groups: int, full: bool, triton_device: torch.device
) -> None:
    row = (batch, channels)
    parameter = (batch, groups, states) if groups else (batch, states)
    shapes: Shapes = {"state": (*row, states), "x": row, "delta": row, "A": (channels, states), "B": parameter}
    shapes |= {"C": parameter} | ({"D": (channels,), "z": row, "delta_bias": (channels,)} if full else {})
    tensors = draw_tensors(shapes, triton_device, torch.float32)
    assert tensors["A"] is not None
    tensors["A"] = -tensors["A"].abs()
    wide = {k: v.double() for k, v in tensors.items() if v is not None}
    expected = selective_state_update(**wide, delta_softplus=full, backend="reference")
    found = selective_state_update(**tensors, delta_softplus=full, backend="triton")
    torch.testing.assert_close(found, tuple(e.float() for e in expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("taps", [1, 2, 4, 5])
@pytest.mark.parametrize("channels", [1, 3, 31, 128, 130])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_convolution_update(batch: int, channels: int, taps: int, full: bool, triton_device: torch.device) -> None:
    shapes: Shapes = {"x": (batch, channels), "conv_state": (batch, channels, taps - 1), "weight": (channels, taps)}
    shapes |= {"bias": (channels,)} if full else {}
    tensors = draw_tensors(shapes, triton_device, torch.float32)
    wide = {k: v.double() for k, v in tensors.items() if v is not None}
    activation = "silu" if full else None
    expected = causal_conv1d_update(**wide, activation=activation, backend="reference")
    found = causal_conv1d_update(**tensors, activation=activation, backend="triton")
    torch.testing.assert_close(found, tuple(e.float() for e in expected), rtol=1e-5, atol=1e-5)


def test_updates_with_a_gradient_run_in_torch(triton_device: torch.device) -> None:
    x = torch.randn(1, 3, device=triton_device, requires_grad=True)
    state, weight = torch.zeros(1, 3, 2, device=triton_device), torch.ones(3, 3, device=triton_device)
    y, _ = causal_conv1d_update(x, state, weight, backend="triton")
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, torch.ones_like(x))
