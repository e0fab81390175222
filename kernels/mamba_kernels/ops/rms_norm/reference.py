"""RMSNorm as its definition reads: the truth that every other backend is held to."""

import torch
from jaxtyping import Float
from torch import Tensor

from mamba_kernels.arguments import compute_dtype


def rms_norm_reference(
    x: Float[Tensor, "*rows D"], weight: Float[Tensor, " D"], eps: float, residual: Float[Tensor, "*rows D"] | None
) -> tuple[Float[Tensor, "*rows D"], Float[Tensor, "*rows D"]]:
    """Compute x / sqrt(mean(x^2) + eps) * weight in float32, or float64 if an input is float64.

    Zhang & Sennrich 2019 (arXiv:1910.07467), equation 4, with eps inside the root.

    Returns:
        The normed sum in x's dtype, and the sum x + residual in the dtype computed in (x itself without a residual).
    """
    dtype = compute_dtype(x, weight, residual)
    total = x.to(dtype) if residual is None else x.to(dtype) + residual.to(dtype)
    normed = total / torch.sqrt(total.square().mean(-1, keepdim=True) + eps) * weight.to(dtype)
    return normed.to(x.dtype), x if residual is None else total
