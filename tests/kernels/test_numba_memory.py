"""Where memory happens to lie changes no bit: the kernels on arrays that are neighbours, and on arrays far apart."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

norm = importlib.import_module("mamba_kernels.ops.rms_norm.numba_kernels")
scan_update = importlib.import_module("mamba_kernels.ops.selective_scan.numba_update")
conv_update = importlib.import_module("mamba_kernels.ops.causal_conv1d.numba_update")
EMPTY = np.empty(0, np.float32)
WIDTHS = (3, 8, 12, 17, 31, 64, 100)


def arrays(rng: np.random.Generator, sizes: list[int], gap: int) -> list[np.ndarray]:
    """Arrays of these sizes cut from one block, `gap` elements apart, each with the same values whatever the gap."""
    values = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    block = np.full(sum(sizes) + gap * len(sizes) + 16, np.nan, np.float32)
    found, at = [], -block.ctypes.data // 4 % 16
    for value in values:
        found.append(block[at : at + value.size])
        found[-1][:] = value
        at += value.size + gap
    return found


def layouts(seed: int, sizes: list[int]) -> list[list[np.ndarray]]:
    return [arrays(np.random.default_rng(seed), sizes, gap) for gap in (4096, *range(33))]


def same(results: list[list[np.ndarray]]) -> None:
    for result in results[1:]:
        for first, other in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(first.view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_norm(width, with_residual):
    results = []
    for x, total, residual, normed, weight in layouts(width, [width] * 5):
        before = residual if with_residual else EMPTY
        norm.normalise(0, 1, x, width, before, width, weight, 1e-5, total, normed, 1)
        results.append([total, normed])
    same(results)


@pytest.mark.parametrize("width", WIDTHS)
def test_gradient_of_the_norm(width):
    results = []
    for grad, total_grad, total, partials, weight, carry in layouts(width, [width] * 6):
        rows = partials.reshape(1, width)
        norm.normalise_backward(0, 1, grad, width, carry, width, total, width, weight, 1e-5, total_grad, rows, 1)
        results.append([total_grad, partials])
    same(results)


@pytest.mark.parametrize("width", WIDTHS)
def test_one_token_of_the_scan(width):
    results = []
    for before, after, a, b, c, *scalars in layouts(width, [width] * 5 + [1] * 3):
        x, delta, y = (scalar.reshape(1, 1) for scalar in scalars)
        state, new, groups = before.reshape(1, 1, width), after.reshape(1, 1, width), (1, 1, width)
        inputs = (state, x, delta, -np.abs(a).reshape(1, width), b.reshape(groups), c.reshape(groups))
        scan_update._scan_rows(0, 1, *inputs, EMPTY, EMPTY.reshape(-1, 1), EMPTY, True, y, new)
        results.append([y, new])
    same(results)


@pytest.mark.parametrize("taps", [2, 4, 9, 17, 33])
def test_one_token_of_the_convolution(taps):
    results = []
    for before, after, weight, x, y in layouts(taps, [taps - 1, taps - 1, taps, 1, 1]):
        state, new = before.reshape(1, 1, taps - 1), after.reshape(1, 1, taps - 1)
        inputs = x.reshape(1, 1), state, weight.reshape(1, taps), EMPTY, True
        conv_update._convolve_rows(0, 1, *inputs, y.reshape(1, 1), new)
        results.append([y, after])
    same(results)
