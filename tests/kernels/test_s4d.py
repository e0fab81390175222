"""S4D: both modes against the recurrence step by step in float64, states, resets, directions, gradients."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mamba_kernels import s4d, s4d_update

MODES = ["convolution", "recurrent"]


def make(batch: int = 2, length: int = 37, channels: int = 5, states: int = 3, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rates = torch.stack(
        [-normal(channels, states).abs() - 0.1, math.pi * torch.arange(states).expand(channels, -1)], -1
    )
    return {
        "x": normal(batch, length, channels),
        "delta": torch.exp(normal(channels) - 3),
        "A": rates.to(torch.float64),
        "C": normal(channels, states, 2),
        "D": normal(channels),
        "initial_state": normal(batch, channels, states, 2),
    }


def definition(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    C: Tensor,
    D: Tensor,
    initial_state: Tensor,
    reset: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Equation by equation, with complex numbers."""
    rates, weights, state = (torch.view_as_complex(t.contiguous()) for t in (A, C, initial_state))
    a = torch.exp(delta[:, None] * rates)
    b = (a - 1) / rates
    outputs = [x[:, 0]] * x.shape[1]
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        if reset is not None:
            state = torch.where(reset[:, t, None, None], 0.0, state)
        state = a * state + b * x[:, t, :, None]
        outputs[t] = 2 * (weights * state).sum(-1).real + D * x[:, t]
    return torch.stack(outputs, 1), torch.view_as_real(state)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 255, 256, 257, 700])
@pytest.mark.parametrize("mode", MODES)
def test_both_modes_are_the_definition(mode: str, length: int, reverse: bool) -> None:
    case = make(length=length)
    expected = definition(**case, reverse=reverse)
    found = s4d(**case, mode=mode, reverse=reverse, return_final_state=True)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    narrow = {name: tensor.float() for name, tensor in case.items()}
    y, state = s4d(**narrow, mode=mode, reverse=reverse, return_final_state=True)
    torch.testing.assert_close(y.double(), expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state.double(), expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
def test_resets_are_followed_and_keep_a_nan_in_its_sequence(reverse: bool) -> None:
    case, reset = make(length=150), torch.rand(2, 150) < 0.05
    found = s4d(**case, reset=reset, reverse=reverse, return_final_state=True)
    torch.testing.assert_close(found, definition(**case, reset=reset, reverse=reverse), rtol=1e-9, atol=1e-9)
    case["x"][:, 70] = float("nan")
    reset = torch.arange(150).expand(2, -1) == (75 if not reverse else 65)
    y = s4d(**case, reset=reset, reverse=reverse)
    other = y[:, 75:] if not reverse else y[:, :66]
    assert y.isnan().any()
    assert not other.isnan().any()


@pytest.mark.parametrize("mode", MODES)
def test_gradients_by_finite_differences(mode: str) -> None:
    case = make(length=6, channels=2, states=2)
    leaves = [tensor.requires_grad_() for tensor in case.values()]

    def run(*tensors: Tensor) -> Any:
        return s4d(**dict(zip(case, tensors, strict=True)), mode=mode, return_final_state=True)

    assert torch.autograd.gradcheck(run, leaves)


def test_gradients_agree_over_many_blocks() -> None:
    gradients = []
    for mode in MODES:
        case = {name: tensor.requires_grad_() for name, tensor in make(length=600).items()}
        y, state = s4d(**case, mode=mode, return_final_state=True)
        gradients.append(torch.autograd.grad(y.square().mean() + state.sum(), list(case.values())))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(length=st.integers(2, 90), cut=st.integers(1, 89), reverse=st.booleans(), mode=st.sampled_from(MODES))
def test_pieces_make_the_whole(length: int, cut: int, reverse: bool, mode: str) -> None:
    case, cut = make(length=length, seed=length), min(cut, length - 1)
    options: dict[str, Any] = {"reverse": reverse, "mode": mode, "return_final_state": True}
    whole = s4d(**case, **options)
    state, outputs = case["initial_state"], []
    parts = [case["x"][:, :cut], case["x"][:, cut:]]
    for part in reversed(parts) if reverse else parts:
        y, state = s4d(
            **{**case, "x": part, "initial_state": state}, reverse=reverse, mode=mode, return_final_state=True
        )
        outputs.append(y)
    joined = torch.cat(outputs[::-1] if reverse else outputs, dim=1)
    torch.testing.assert_close((joined, state), whole, rtol=1e-8, atol=1e-8)


def test_steps_make_the_whole() -> None:
    case = make(length=20)
    expected = s4d(**case, return_final_state=True)
    fixed = {name: case[name] for name in ("delta", "A", "C", "D")}
    state, outputs = case["initial_state"], []
    for t in range(20):
        y, state = s4d_update(state, case["x"][:, t], **fixed)
        outputs.append(y)
    torch.testing.assert_close((torch.stack(outputs, 1), state), expected)


def test_bfloat16_in_and_out_with_a_float32_state() -> None:
    case = make()
    narrow = {name: tensor.bfloat16() if name == "x" else tensor.float() for name, tensor in case.items()}
    y, state = s4d(**narrow, return_final_state=True)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    expected = definition(**{**case, "x": narrow["x"].double()})[0]
    torch.testing.assert_close(y.double(), expected, rtol=1e-2, atol=2e-2)


def test_small_steps_keep_their_digits() -> None:
    """The drive (exp(dt A) - 1) / A of a step of 1e-6 in float32; formed as written it would lose all digits."""
    case = {name: tensor.float() for name, tensor in make(length=1).items()}
    case |= {"delta": torch.full((5,), 1e-6), "initial_state": torch.zeros_like(case["initial_state"])}
    _, state = s4d(**case, return_final_state=True)
    torch.testing.assert_close(state[..., 0], (1e-6 * case["x"][:, 0, :, None]).expand(-1, -1, 3), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(2, 0, 5), (0, 4, 5)], ids=str)
def test_nothing_to_run_over(shape: tuple[int, int, int]) -> None:
    case = make()
    state = torch.randn(shape[0], 5, 3, 2, dtype=torch.float64)
    y, after = s4d(**{**case, "x": torch.zeros(shape), "initial_state": state}, return_final_state=True)
    assert y.shape == shape
    assert torch.equal(after, state)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"x": torch.zeros(2, 5)}, r"x must be \(batch, length, channels\), found shape \(2, 5\)"),
    ({"A": torch.zeros(5, 3)}, r"A must be \(5, states, 2\), real and imaginary parts, found \(5, 3\)"),
    ({"C": torch.zeros(5, 2, 2)}, r"C must have shape \(5, 3, 2\), found \(5, 2, 2\)"),
    ({"delta": torch.zeros(3)}, r"delta must have shape \(5,\), found \(3,\)"),
    ({"mode": "fft"}, "mode must be one of convolution, recurrent, found 'fft'"),
    ({"mode": "convolution", "reset": torch.zeros(2, 37, dtype=torch.bool)}, "a convolution cannot follow resets"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:20] for _, message in BAD])
def test_what_a_caller_gets_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        s4d(**{**make(), **change})
