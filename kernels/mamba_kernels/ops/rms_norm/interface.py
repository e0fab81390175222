"""`rms_norm`: the public operator. Checks its arguments, chooses a backend, calls it.

Legend: D channels, the last dimension of x; any number of dimensions before it.
"""

from typing import overload

from torch import Tensor

from mamba_kernels.arguments import check_tensors
from mamba_kernels.ops.derivatives import backend_that_follows


@overload
def rms_norm(
    x: Tensor, weight: Tensor, eps: float = 1e-5, residual: None = None, backend: str | None = None
) -> Tensor: ...


@overload
def rms_norm(
    x: Tensor, weight: Tensor, eps: float = 1e-5, *, residual: Tensor, backend: str | None = None
) -> tuple[Tensor, Tensor]: ...


@overload
def rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor, backend: str | None = None
) -> tuple[Tensor, Tensor]: ...


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Norm x over its last dimension: x / sqrt(mean(x^2) + eps) * weight; or x + residual, in the same pass.

    With a residual this is one step of a pre-norm stack: the sum is the stream that goes on, kept in float32
    however narrow x is, and the normed sum feeds the next block. Differentiable in every tensor. Computes in float32
    (float64 if an input is float64).

    Args:
        x: (..., D). Any strides; no copy is made as long as channels are neighbours and rows evenly spaced.
        weight: (D,).
        eps: Added to the mean square, inside the root.
        residual: As x, in any floating dtype.
        backend: "reference", "torch", "numba" or "triton"; None chooses, see `mamba_kernels.dispatch`.

    Returns:
        The normed tensor in x's dtype; with a residual the pair (normed x + residual, x + residual), the sum in
        float32 (float64 if an input is float64).

    Raises:
        ValueError: A shape or the backend does not fit; the message says what is accepted.
        TypeError: A dtype does not fit.

    Source:
        Zhang & Sennrich 2019 (arXiv:1910.07467), equation 4.
    """
    op = "rms_norm"
    if x.dim() == 0:
        raise ValueError(f"{op}: x must be (..., channels), found a scalar")
    expected = {"x": (x, x.shape), "weight": (weight, x.shape[-1:]), "residual": (residual, x.shape)}
    check_tensors(op, expected, x.device)
    chosen = backend_that_follows(op, backend, x, weight, residual)
    if chosen == "numba":
        from mamba_kernels.ops.rms_norm.numba_op import rms_norm_numba as run
    elif chosen == "triton":
        from mamba_kernels.ops.rms_norm.triton_op import rms_norm_triton as run
    elif chosen == "reference":
        from mamba_kernels.ops.rms_norm.reference import rms_norm_reference as run
    else:
        from mamba_kernels.ops.rms_norm.torch import rms_norm_torch as run
    normed, total = run(x, weight, eps, residual)
    return normed if residual is None else (normed, total)
