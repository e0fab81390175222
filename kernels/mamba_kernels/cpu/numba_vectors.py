"""Explicit vectors of float32 for Numba kernels: arithmetic, memory, and the functions that a scan needs.

Numba's automatic vectorising depends on what LLVM can prove about arrays that may overlap. A value of type `Vector`
is one LLVM vector, which the compiler splits over whatever registers the machine has (two of AVX-512, four of AVX2,
eight of NEON), so the loop is fast by construction, on every machine, and its rounding the same in every run.

Memory is addressed by plain integers (`tensor.data_ptr()`), so one compiled kernel serves every dtype and stride.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from mamba_kernels.cpu.numba_runtime import inlined

LANES = 32
"""Floats in a vector: enough independent work to hide the latency of a multiply-add, and few enough registers."""

ROW = 4 * LANES
"""Bytes of a vector in memory as float32."""

FLOAT32, BFLOAT16 = 0, 1
"""How a row is stored: the `dtype` argument of `load_row` and `store_row`."""

_f32 = np.float32
_ROUND = _f32(1.5 * 2**23)
"""Adding this to |x| < 2^22 rounds x to an integer, which then lies in the low bits of the sum."""

_INT16, _INT32, _FLOAT = ir.IntType(16), ir.IntType(32), ir.FloatType()
_WORD = ir.IntType(8 * np.dtype(np.intp).itemsize)


class Vector(types.Type):
    """The Numba type of `LANES` float32 values."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = Vector()


@register_model(Vector)  # pyright: ignore[reportOptionalCall]
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _lanes_of(_FLOAT))


def _lanes_of(element: Any) -> Any:
    return ir.VectorType(element, LANES)


def _constant(element: Any, value: Any) -> Any:
    return ir.Constant(_lanes_of(element), [value] * LANES)


def _spread(builder: Any, scalar: Any) -> Any:
    """Copy a scalar into every lane."""
    undefined = ir.Constant(_lanes_of(scalar.type), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, _constant(_INT32, 0))


def _bits(builder: Any, value: Any) -> Any:
    return builder.bitcast(value, _lanes_of(_INT32))


def _floats(builder: Any, bits: Any) -> Any:
    return builder.bitcast(bits, _lanes_of(_FLOAT))


def _define_operator(operation: Callable[..., Any], instruction: str) -> None:
    """Teach Numba `operation` between vectors, and between a vector and a float32; `a * b + c` may fuse, no more."""

    class Typing(AbstractTemplate):
        key = operation

        def generic(self, args: Any, kws: Any) -> Any:
            if vector in args and not kws:
                return signature(vector, *(a if a == vector else types.float32 for a in args))
            return None

    infer_global(operation, types.Function(Typing))

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = [a if kind == vector else _spread(builder, a) for a, kind in zip(args, sig.args, strict=True)]
        return getattr(builder, instruction)(*lanes, flags=("contract",))

    for left, right in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(operation, left, right)(lower)


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_operation, _instruction)


def _define(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a function for kernels out of one that emits its LLVM instructions.

    The decorated `f(builder, a, b)` is called as `f(a, b)` inside kernels, with these Numba types.
    """

    def wrap(emit: Callable[..., Any]) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = emit(builder, *args)
            return context.get_dummy_value() if result == types.void else value

        members = {"key": emit, "cases": [signature(result, *arguments)]}
        infer_global(emit, types.Function(type(f"_Typing_{emit.__name__}", (ConcreteTemplate,), members)))
        lower_builtin(emit, *arguments)(lower)
        return emit

    return wrap


def _call(builder: Any, name: str, result: Any, arguments: list[Any], **options: Any) -> Any:
    """Call an LLVM intrinsic function."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **options)


@_define(vector, types.float32)
def splat(builder: Any, scalar: Any) -> Any:
    """Makes a vector whose lanes are all the same."""
    return _spread(builder, scalar)


@_define(vector, vector, vector, vector)
def where_positive(builder: Any, condition: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where `condition` > 0, else `no`; a NaN condition takes `no`."""
    return builder.select(builder.fcmp_ordered(">", condition, _constant(_FLOAT, 0.0)), yes, no)


@_define(vector, vector, types.float32)
def at_least(builder: Any, value: Any, bound: Any) -> Any:
    """The greater of value and bound; NaN stays NaN."""
    bounds = _spread(builder, bound)
    return builder.select(builder.fcmp_ordered("<", value, bounds), bounds, value)


@_define(vector, vector, types.float32)
def at_most(builder: Any, value: Any, bound: Any) -> Any:
    """The lesser of value and bound; NaN stays NaN."""
    bounds = _spread(builder, bound)
    return builder.select(builder.fcmp_ordered(">", value, bounds), bounds, value)


@_define(vector, vector, vector)
def larger_magnitude(builder: Any, a: Any, b: Any) -> Any:
    """The greater of |a| and |b|; NaN is greater than everything. Compared as integers, which order so."""
    magnitude = _constant(_INT32, 0x7FFFFFFF)
    a_bits, b_bits = (builder.and_(_bits(builder, value), magnitude) for value in (a, b))
    return _floats(builder, builder.select(builder.icmp_signed(">", a_bits, b_bits), a_bits, b_bits))


@_define(types.float32, vector)
def largest(builder: Any, magnitudes: Any) -> Any:
    """The greatest lane of a result of `larger_magnitude`."""
    bits = _call(builder, f"llvm.vector.reduce.smax.v{LANES}i32", _INT32, [_bits(builder, magnitudes)])
    return builder.bitcast(bits, _FLOAT)


@_define(types.float32, vector)
def total(builder: Any, value: Any) -> Any:
    """The sum of the lanes, added as a tree."""
    start = ir.Constant(_FLOAT, -0.0)
    name = f"llvm.vector.reduce.fadd.v{LANES}f32"
    return _call(builder, name, _FLOAT, [start, value], fastmath=("reassoc",))


@_define(vector, vector)
def two_to(builder: Any, rounded: Any) -> Any:
    """2^i for `rounded` = i + 1.5 2^23 and -126 <= i <= 127."""
    exponent = builder.shl(_bits(builder, rounded), _constant(_INT32, 23))
    return _floats(builder, builder.add(exponent, _constant(_INT32, 127 << 23)))


@_define(vector, vector, vector)
def scaled(builder: Any, value: Any, rounded: Any) -> Any:
    """`value` 2^i by adding to its exponent: a cycle cheaper than multiplying, but a NaN in `rounded` is lost."""
    exponent = builder.shl(_bits(builder, rounded), _constant(_INT32, 23))
    return _floats(builder, builder.add(_bits(builder, value), exponent))


def _pointer(builder: Any, address: Any, pointee: Any) -> Any:
    return builder.inttoptr(address, pointee.as_pointer())


@_define(types.float32, types.intp)
def load_scalar(builder: Any, address: Any) -> Any:
    """Load the float32 at an address."""
    return builder.load(_pointer(builder, address, _FLOAT), align=4)


@_define(types.void, types.intp, types.float32)
def store_scalar(builder: Any, address: Any, value: Any) -> None:
    """Store a float32 at an address."""
    builder.store(value, _pointer(builder, address, _FLOAT), align=4)


@_define(types.intp, types.intp)
def load_byte(builder: Any, address: Any) -> Any:
    """Load the byte at an address, as a number from 0 to 255."""
    return builder.zext(builder.load(_pointer(builder, address, ir.IntType(8))), _WORD)


@_define(vector, types.intp)
def load(builder: Any, address: Any) -> Any:
    """A row of `LANES` float32, aligned or not."""
    return builder.load(_pointer(builder, address, _lanes_of(_FLOAT)), align=4)


@_define(types.void, types.intp, vector)
def store(builder: Any, address: Any, value: Any) -> None:
    """A row of `LANES` float32, aligned or not."""
    builder.store(value, _pointer(builder, address, _lanes_of(_FLOAT)), align=4)


@_define(vector, types.intp)
def load_bfloat16(builder: Any, address: Any) -> Any:
    """A row of `LANES` bfloat16, which are the upper halves of float32."""
    halves = builder.load(_pointer(builder, address, _lanes_of(_INT16)), align=2)
    return _floats(builder, builder.shl(builder.zext(halves, _lanes_of(_INT32)), _constant(_INT32, 16)))


@_define(types.void, types.intp, vector)
def store_bfloat16(builder: Any, address: Any, value: Any) -> None:
    """A row of `LANES` bfloat16, rounded to the nearest, ties to even; NaN stays NaN."""
    bits = _bits(builder, value)
    odd = builder.and_(builder.lshr(bits, _constant(_INT32, 16)), _constant(_INT32, 1))
    rounded = builder.add(bits, builder.add(odd, _constant(_INT32, 0x7FFF)))
    nan = builder.fcmp_unordered("uno", value, value)
    upper = builder.lshr(builder.select(nan, _constant(_INT32, 0x7FC00000), rounded), _constant(_INT32, 16))
    halves = builder.trunc(upper, _lanes_of(_INT16))
    builder.store(halves, _pointer(builder, address, halves.type), align=2)


@_define(types.void, types.intp, types.intp)
def _copy_half(builder: Any, target: Any, source: Any) -> None:
    value = builder.load(_pointer(builder, source, _INT16), align=2)
    builder.store(value, _pointer(builder, target, _INT16), align=2)


SPARE = 3 * ROW
"""Bytes of zeroed scratch that `load_row` and `store_row` need for rows that are not full."""


@inlined
def _copy(target: int, source: int, size: int) -> None:
    for offset in range(0, size, 2):
        _copy_half(target + offset, source + offset)


@inlined
def load_row(address: int, dtype: int, count: int, spare: int) -> Any:
    """Load `count` <= `LANES` elements of `dtype`; the other lanes are zero. Reads nothing beyond them."""
    if dtype == BFLOAT16:
        if count < LANES:
            _copy(spare, address, 2 * count)
            address = spare
        return load_bfloat16(address)
    if count < LANES:
        _copy(spare + ROW, address, 4 * count)
        address = spare + ROW
    return load(address)


@inlined
def store_row(address: int, dtype: int, value: Any, count: int, spare: int) -> None:
    """Store the first `count` <= `LANES` lanes as `dtype`. Writes nothing beyond them."""
    target = address if count == LANES else spare + 2 * ROW
    if dtype == BFLOAT16:
        store_bfloat16(target, value)
    else:
        store(target, value)
    if count < LANES:
        _copy(address, target, (2 if dtype == BFLOAT16 else 4) * count)


@inlined
def _exp2_fraction(f: Any) -> Any:
    """2^f for |f| <= 1/2 to 2e-7, and 1 for 0 exactly; minimax polynomial."""
    p = f * _f32(0.0013264715671539307) + _f32(0.009671513922512531)
    p = p * f + _f32(0.05550733953714371)
    p = p * f + _f32(0.24022242426872253)
    p = p * f + _f32(0.6931470036506653)
    return p * f + _f32(1.0)


@inlined
def exp2_bounded(x: Any) -> Any:
    """2^x for |x| < 126 and no NaN: the caller has made sure."""
    rounded = x + _ROUND
    return scaled(_exp2_fraction(x - (rounded - _ROUND)), rounded)


@inlined
def exp2(x: Any) -> Any:
    """2^x for any x: 0 and infinity where float32 ends, NaN for NaN."""
    x = at_most(at_least(x, _f32(-160.0)), _f32(130.0))
    rounded = x + _ROUND
    whole = rounded - _ROUND
    half = whole * _f32(0.5) + _ROUND
    rest = (whole - (half - _ROUND)) + _ROUND
    return _exp2_fraction(x - whole) * two_to(half) * two_to(rest)


LOG2_E = _f32(1.4426950408889634)


@inlined
def exp(x: Any) -> Any:
    """e^x to 2e-7 |x|, for any x."""
    return exp2(x * LOG2_E)


@inlined
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return splat(_f32(1.0)) / (exp(splat(_f32(0.0)) - x) + _f32(1.0))


@inlined
def softplus(x: Any) -> Any:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), to a few 1e-7 relatively, the small values included.

    log(1 + e) = 2 artanh(s) = 2 (s + s^3/3 + s^5/5 + ...) with s = e / (2 + e) <= 1/3.
    """
    zero = splat(_f32(0.0))
    e = exp(where_positive(x, zero - x, x))
    s = e / (e + _f32(2.0))
    s2 = s * s
    p = s2 * _f32(1 / 13) + _f32(1 / 11)
    p = p * s2 + _f32(1 / 9)
    p = p * s2 + _f32(1 / 7)
    p = p * s2 + _f32(1 / 5)
    p = p * s2 + _f32(1 / 3)
    p = p * s2 + _f32(1.0)
    return where_positive(x, x, zero) + _f32(2.0) * s * p
