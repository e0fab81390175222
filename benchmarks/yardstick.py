"""The selective scan in C++, compiled here and now for this machine: what the CPU kernels are measured against.

It is no part of the package, which needs no compiler; without `g++` the benchmarks leave this case out.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-std=c++17", "-fPIC")
TILE, SEGMENT, MOST_STATES = 64, 256, 64


class _Inputs(ctypes.Structure):
    _fields_ = [(n, ctypes.c_void_p) for n in ("x", "delta", "A", "B", "C", "skip", "z")] + [
        (n, ctypes.c_long) for n in ("L", "D", "N")
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [(n, ctypes.c_void_p) for n in ("x", "delta", "A", "B", "C", "skip", "z")]


def available() -> bool:
    """Whether there is a compiler."""
    return shutil.which("g++") is not None


@cache
def _library() -> ctypes.CDLL:
    folder = tempfile.mkdtemp(prefix="yardstick-")
    target = Path(folder) / "yardstick.so"
    compiled = target.with_suffix(".o")
    subprocess.run(["g++", *FLAGS, "-c", str(SOURCE), "-o", str(compiled)], check=True)
    # Linked without -ffast-math, which would have the whole process round tiny numbers to zero from its loading on.
    subprocess.run(["g++", "-shared", "-fopenmp", str(compiled), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    shutil.rmtree(folder)  # a loaded library needs its file no longer
    library.forward.restype = library.backward.restype = None
    return library


def _described(leaves: tuple[Tensor, ...]) -> _Inputs:
    x, _, A = leaves[:3]
    if x.shape[0] != 1 or x.shape[2] % TILE or A.shape[1] > MOST_STATES or not all(t.is_contiguous() for t in leaves):
        raise ValueError(f"the yardstick takes one dense row, channels in {TILE}s and at most {MOST_STATES} states")
    return _Inputs(*(tensor.data_ptr() for tensor in leaves), x.shape[1], x.shape[2], A.shape[1])


def _forward(leaves: tuple[Tensor, ...], checkpoints: Tensor | None) -> Tensor:
    y, described = torch.empty_like(leaves[0]), _described(leaves)
    saved = None if checkpoints is None else ctypes.c_void_p(checkpoints.data_ptr())
    _library().forward(ctypes.byref(described), ctypes.c_void_p(y.data_ptr()), saved)
    return y


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *leaves: Tensor) -> Tensor:
        segments, channels, states = -(-leaves[0].shape[1] // SEGMENT), leaves[0].shape[2], leaves[2].shape[1]
        checkpoints = torch.empty(segments, channels, states) if any(ctx.needs_input_grad) else None  # pyright: ignore
        ctx.save_for_backward(*leaves, *(() if checkpoints is None else (checkpoints,)))
        return _forward(leaves, checkpoints)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        *leaves, checkpoints = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        found = tuple(torch.empty_like(leaf) for leaf in leaves)
        described, out = _described(tuple(leaves)), _Gradients(*(tensor.data_ptr() for tensor in found))
        pointers = (ctypes.c_void_p(grad.data_ptr()), ctypes.c_void_p(checkpoints.data_ptr()))
        _library().backward(ctypes.byref(described), *pointers, ctypes.byref(out))
        return found


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor) -> Tensor:
    """`selective_scan` with skip and gate, of one row in float32, differentiable in everything."""
    return _Scan.apply(x, delta, A, B, C, D, z)  # pyright: ignore[reportReturnType]
