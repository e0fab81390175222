"""What must hold of a selective scan whatever the numbers, in every backend."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mamba_kernels import selective_scan

BACKENDS = ("reference", "torch", "numba")
few = settings(deadline=None, max_examples=12)

sizes = st.tuples(
    st.integers(1, 3), st.integers(2, 80), st.sampled_from([1, 3, 16, 33, 40]), st.sampled_from([1, 3, 4, 16])
)


def make(shape: tuple[int, int, int, int], seed: int) -> dict[str, Tensor]:
    batch, length, channels, states = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    return {
        "x": normal(batch, length, channels),
        "delta": normal(batch, length, channels),
        "A": -normal(channels, states).abs() * 4,
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "D": normal(channels),
        "z": normal(batch, length, channels),
        "delta_bias": normal(channels),
        "initial_state": normal(batch, channels, states),
    }


ALONG_TIME = ("x", "delta", "B", "C", "z")


def piece(tensors: dict[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {k: v[:, part] if k in ALONG_TIME else v for k, v in tensors.items()}


def scan(tensors: dict[str, Tensor], backend: str, **options: Any) -> tuple[Tensor, Tensor]:
    return selective_scan(**tensors, delta_softplus=True, return_final_state=True, backend=backend, **options)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@few
@given(shape=sizes, seed=st.integers(0, 999), data=st.data(), reverse=st.booleans())
def test_pieces_with_the_state_carried_are_the_whole(
    backend: str, shape: tuple[int, int, int, int], seed: int, data: st.DataObject, reverse: bool
) -> None:
    tensors = make(shape, seed)
    cut = data.draw(st.integers(1, shape[1] - 1))
    y, state = scan(tensors, backend, reverse=reverse)
    parts = [slice(None, cut), slice(cut, None)]
    first, second = parts[::-1] if reverse else parts
    y_first, carried = scan(piece(tensors, first), backend, reverse=reverse)
    y_second, last = scan({**piece(tensors, second), "initial_state": carried}, backend, reverse=reverse)
    close(torch.cat([y_second, y_first] if reverse else [y_first, y_second], dim=1), y)
    close(last, state)


@pytest.mark.parametrize("backend", BACKENDS)
@few
@given(shape=sizes, seed=st.integers(0, 999))
def test_reverse_is_forward_on_the_flipped(backend: str, shape: tuple[int, int, int, int], seed: int) -> None:
    tensors = make(shape, seed)
    reset = torch.rand(shape[:2], generator=torch.Generator().manual_seed(seed)) < 0.1
    y, state = scan(tensors, backend, reverse=True, reset=reset)
    flipped = {k: v.flip(1) if k in ALONG_TIME else v for k, v in tensors.items()}
    y_flipped, state_flipped = scan(flipped, backend, reset=reset.flip(1))
    close(y, y_flipped.flip(1))
    close(state, state_flipped)


@pytest.mark.parametrize("backend", BACKENDS)
@few
@given(shape=sizes, seed=st.integers(0, 999), data=st.data())
def test_the_future_does_not_reach_the_past(
    backend: str, shape: tuple[int, int, int, int], seed: int, data: st.DataObject
) -> None:
    tensors = make(shape, seed)
    cut = data.draw(st.integers(1, shape[1] - 1))
    changed = {k: v.clone() for k, v in tensors.items()}
    for name in ALONG_TIME:
        changed[name][:, cut:] = 7.0
    before, after = scan(tensors, backend)[0], scan(changed, backend)[0]
    close(after[:, :cut], before[:, :cut])
    assert not torch.allclose(after[:, cut:], before[:, cut:])


@pytest.mark.parametrize("backend", BACKENDS)
@few
@given(shape=sizes, seed=st.integers(0, 999))
def test_sequences_of_a_batch_do_not_meet(backend: str, shape: tuple[int, int, int, int], seed: int) -> None:
    tensors = make((3, *shape[1:]), seed)
    y, state = scan(tensors, backend)
    single = {k: v[1:2] if k in ALONG_TIME or k == "initial_state" else v for k, v in tensors.items()}
    y_single, state_single = scan(single, backend)
    close(y_single, y[1:2])
    close(state_single, state[1:2])


@pytest.mark.parametrize("backend", BACKENDS)
@few
@given(shape=sizes, seed=st.integers(0, 999), data=st.data(), reverse=st.booleans())
def test_a_reset_separates_sequences(
    backend: str, shape: tuple[int, int, int, int], seed: int, data: st.DataObject, reverse: bool
) -> None:
    tensors = make(shape, seed)
    cut = data.draw(st.integers(1, shape[1] - 1))
    reset = torch.zeros(shape[:2], dtype=torch.bool)
    reset[:, cut - 1 if reverse else cut] = True
    y, state = scan(tensors, backend, reset=reset, reverse=reverse)
    left, right = piece(tensors, slice(None, cut)), piece(tensors, slice(cut, None))
    later = left if reverse else right
    later["initial_state"] = torch.zeros_like(tensors["initial_state"])
    y_left, state_left = scan(left, backend, reverse=reverse)
    y_right, state_right = scan(right, backend, reverse=reverse)
    close(y, torch.cat([y_left, y_right], dim=1))
    close(state, state_left if reverse else state_right)


@pytest.mark.parametrize("backend", BACKENDS)
@few
@given(shape=sizes, seed=st.integers(0, 999), scale=st.floats(-3, 3))
def test_linear_in_the_input_and_the_state(
    backend: str, shape: tuple[int, int, int, int], seed: int, scale: float
) -> None:
    tensors = make(shape, seed)
    y, state = scan(tensors, backend)
    scaled = {k: v * scale if k in ("x", "initial_state") else v for k, v in tensors.items()}
    y_scaled, state_scaled = scan(scaled, backend)
    torch.testing.assert_close(y_scaled, y * scale, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(state_scaled, state * scale, rtol=1e-4, atol=1e-3)
