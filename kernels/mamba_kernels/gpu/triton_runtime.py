"""What the Triton operators share: how they are launched, and how tensors are handed to them."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LONGEST_STRIDE = 2**22
"""Rows further apart than this are copied: offsets inside a segment or chunk of at most 256 rows are 32-bit."""


def accumulator(dtype: torch.dtype) -> Any:
    """Return Triton's name of the dtype that a kernel computes in, for torch's."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def tensor_type(dtype: torch.dtype) -> Any:
    """Return Triton's name of a dtype, for torch's."""
    return tl.bfloat16 if dtype == torch.bfloat16 else accumulator(dtype)


def lanes(device: torch.device) -> int:
    """Return how many lanes run in step: 64 on AMD's CDNA, 32 elsewhere."""
    if device.type != "cuda" or torch.version.hip is None:
        return 32
    return torch.cuda.get_device_properties(device).warp_size


def cdiv(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def rows(tensor: Tensor) -> Tensor:
    """Return a (batch, length, ..., channels) tensor with neighbouring channels; a copy only if they are not."""
    close = tensor.stride(-1) == 1 or tensor.shape[-1] == 1
    return tensor if close and all(abs(s) < LONGEST_STRIDE for s in tensor.stride()[1:]) else tensor.contiguous()


def launch(kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Run a kernel on the device of its tensors; where a grid is empty, do nothing.

    Raises:
        ValueError: The tensors are on the CPU and Triton was imported without its interpreter.
    """
    if 0 in grid:
        return
    device = next(t.device for t in _flat(arguments) if isinstance(t, Tensor))
    if device.type == "cpu" and isinstance(kernel, triton.runtime.JITFunction):
        raise ValueError("backend='triton' on the CPU needs TRITON_INTERPRET=1 set before triton is first imported")
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel[grid](*arguments, **options)


def _flat(arguments: tuple[Any, ...]) -> list[Any]:
    return [t for a in arguments for t in (_flat(a) if isinstance(a, tuple) else [a])]
