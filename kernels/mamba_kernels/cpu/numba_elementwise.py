"""Scalar pieces of loops that LLVM vectorises by itself: bfloat16 loads and stores, and a sigmoid without a call.

NumPy has no bfloat16, so a bfloat16 tensor reaches a kernel as the int16 array of its bits: `widen` reads an element of
either kind as float32, `narrow` rounds a float32 to the kind of the array that it is written to. Loops that LLVM would
not vectorise by itself, the scan's, are written with `numba_vectors` instead.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mamba_kernels.cpu import numba_runtime
from mamba_kernels.cpu.numba_runtime import inlined

LOG2_E = np.float32(1.4426950408889634)
ONE = np.float32(1.0)
_bits_to_float32: Any = numba_runtime.bits_to_float32
_float32_to_bits: Any = numba_runtime.float32_to_bits


def _widen(typing_context: Any, value: Any) -> Any:
    """Read a stored element, a float32 or the int16 bits of a bfloat16, as float32."""
    if value == types.float32:
        return types.float32(value), lambda context, builder, signature, arguments: arguments[0]
    if value != types.int16:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        high = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(high, ir.FloatType())

    return types.float32(value), generate


@inlined
def _bfloat16_bits(value: Any) -> Any:
    """Round to the nearest bfloat16, ties to even; any NaN, the only value unlike itself, becomes the quiet NaN."""
    bits = _float32_to_bits(value)
    rounded = (bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16)
    return np.int16(np.int32(0x7FC0) if value != value else rounded)


def _narrow(typing_context: Any, value: Any, stored: Any) -> Any:
    """Convert a float32 to the kind of the element `stored`: float32 itself, or the bits of a bfloat16."""
    if stored == types.float32:
        return types.float32(types.float32, stored), lambda context, builder, signature, arguments: arguments[0]
    if stored != types.int16:
        return None
    rounding = _bfloat16_bits

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.compile_internal(builder, rounding.py_func, types.int16(types.float32), arguments[:1])

    return types.int16(types.float32, stored), generate


widen: Any = intrinsic(_widen)
narrow: Any = intrinsic(_narrow)


@inlined
def exp2(x: Any) -> Any:
    """Return 2**x to float32 accuracy: infinity from 2**127.5 on, never less than 2**-126; NaN stays NaN."""
    x = np.float32(-126.0) if x < np.float32(-126.0) else x
    x = np.float32(128.0) if x > np.float32(128.0) else x
    whole = np.rint(x)
    f = x - whole
    p = np.float32(1.5403530e-4)
    p = p * f + np.float32(1.3333558e-3)
    p = p * f + np.float32(9.6181291e-3)
    p = p * f + np.float32(5.5504109e-2)
    p = p * f + np.float32(2.4022651e-1)
    p = p * f + np.float32(6.9314718e-1)
    p = p * f + ONE
    return p * _bits_to_float32((np.int32(whole) + np.int32(127)) << np.int32(23))


@inlined
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return ONE / (ONE + exp2(-LOG2_E * x))


@inlined
def silu(x: Any) -> Any:
    """Return x * sigmoid(x)."""
    return x * sigmoid(x)


@inlined
def silu_slope(x: Any) -> Any:
    """Return the derivative of silu at x."""
    s = sigmoid(x)
    return s * (ONE + x * (ONE - s))
