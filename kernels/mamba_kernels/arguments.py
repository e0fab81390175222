"""What operators ask of their arguments, and how they say so.

The public functions take plain `Tensor` annotations and check shapes themselves: what a caller gets wrong is answered
by a sentence with the shape found and the one accepted, whether or not a run-time type checker is installed.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from mamba_kernels.dispatch import NUMBA_DTYPES


def check_tensors(op: str, expected: Mapping[str, tuple[Tensor | None, Sequence[int]]], device: torch.device) -> None:
    """Check shape, device and dtype of an operator's tensors; None stands for an argument that was left out.

    Args:
        op: Operator name, for messages.
        expected: Argument name -> (tensor, the shape it must have). `reset` must be bool, all others floating.
        device: The device on which all of them must lie.

    Raises:
        ValueError: A shape or a device does not fit.
        TypeError: A dtype does not fit.
    """
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{op}: {name} must have shape {tuple(shape)}, found {tuple(tensor.shape)}")
        if tensor.device != device:
            raise ValueError(f"{op}: {name} is on {tensor.device}, x on {device}; move them to one device")
        if name == "reset":
            if tensor.dtype != torch.bool:
                raise TypeError(f"{op}: reset must be bool, found {tensor.dtype}")
        elif not tensor.is_floating_point():
            raise TypeError(f"{op}: {name} must be of a real floating dtype, found {tensor.dtype}")


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which torch keeps to the dtypes it is given, on any device, the meta device included."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def widest_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Return the dtype that decides the backend: float64, else one that no kernel reads, else the first tensor's."""
    present = [tensor.dtype for tensor in tensors if tensor is not None]
    if torch.float64 in present:
        return torch.float64
    return next((dtype for dtype in present if dtype not in NUMBA_DTYPES), present[0])


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Return the dtype that an operator computes in: float64 if any tensor has it, else float32."""
    wide = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32
