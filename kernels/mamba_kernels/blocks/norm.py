"""RMSNorm as a module."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mamba_kernels import rms_norm


class RMSNorm(nn.Module):
    """Scales each token to unit root mean square, then by a learnt weight (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        without_decay(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (..., width), normalised over its last dimension, in the weight's dtype whatever the stream's."""
        normed = cast(Tensor, rms_norm(x, self.weight, self.eps))  # without a residual there is one result
        return normed.to(self.weight.dtype)


def without_decay(*parameters: Tensor | None) -> None:
    """Marks parameters that weight decay would pull away from where they belong: norms, biases, A and D."""
    for parameter in parameters:
        if parameter is not None:
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
