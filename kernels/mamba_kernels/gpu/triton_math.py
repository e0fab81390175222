"""Arithmetic that Triton kernels share: softplus, sigmoid, silu. All values are in the kernel's own float32 or float64.

Triton compiles the source of functions, so `no_type_check` keeps run-time type checkers from wrapping them.
"""
# ruff: noqa: ANN001, ANN201  (Triton's compiler reads annotations)

from typing import no_type_check

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@no_type_check
@triton.jit
def log1p_of_unit(e):
    """Return log(1 + e) for 0 <= e <= 1, to 2e-7 of its own size in float32 however small e is.

    log(1 + e) = 2 atanh(s) with s = e / (2 + e); the odd series is a minimax polynomial of degree 4 in s^2 <= 1/9.
    """
    if e.dtype == tl.float64:
        return tl.where(e < 1e-5, e * (1.0 - e * (0.5 - e * (1.0 / 3.0))), tl.log(1.0 + e))
    s = e / (2.0 + e)
    w = s * s
    series = 0.40024853723461856 + w * (0.27961418834795343 + w * 0.2817465726350185)
    return s * (2.0000000078777487 + w * (0.6666631593508139 + w * series))


@no_type_check
@triton.jit
def softplus(v):
    """Return log(1 + exp(v)); exact to rounding where exp(v) is tiny, which is where step sizes live."""
    return tl.maximum(v, 0.0) + log1p_of_unit(tl.exp2(-tl.abs(v) * LOG2_E))


@no_type_check
@triton.jit
def sigmoid(v):
    """Return 1 / (1 + exp(-v)), which is the derivative of softplus."""
    return 1.0 / (1.0 + tl.exp2(-v * LOG2_E))
