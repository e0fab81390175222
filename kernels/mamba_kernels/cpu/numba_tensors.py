"""Tensors as Numba kernels take them: flat arrays with strides beside them, bfloat16 as the int16 of its bits."""

import numpy as np
import torch
from torch import Tensor


def channels_last(tensor: Tensor) -> Tensor:
    """Return the tensor itself if its last dimension has neighbouring elements, else a contiguous copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def flat_array(tensor: Tensor) -> np.ndarray:
    """View the memory from a tensor's first element to its last as one flat array: see `numba_elementwise.widen`.

    Kernels index it by strides in 64 bits. Rows cut from a flat array are contiguous to the compiler, which is what
    makes it vectorise; rows of a strided two-dimensional array are not.
    """
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    flat = tensor.detach().as_strided((span if tensor.numel() else 0,), (1,))
    return (flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat).numpy()


def float32_array(tensor: Tensor | None) -> np.ndarray:
    """Return a contiguous float32 array, empty for None; a copy only where the tensor is not one already."""
    if tensor is None:
        return np.empty(0, np.float32)
    if tensor.dtype != torch.float32 or not tensor.is_contiguous():
        tensor = tensor.to(torch.float32).contiguous()
    return tensor.detach().numpy()
