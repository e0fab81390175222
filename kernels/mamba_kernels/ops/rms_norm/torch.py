"""RMSNorm as torch's own operator: any device, differentiable, and it compiles."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.ops.derivatives import gradient_through


def rms_norm_torch(
    x: Float[Tensor, "*rows D"], weight: Float[Tensor, " D"], eps: float, residual: Float[Tensor, "*rows D"] | None
) -> tuple[Float[Tensor, "*rows D"], Float[Tensor, "*rows D"]]:
    """Compute with `torch.nn.functional.rms_norm`. Returns as `rms_norm_reference` does."""
    dtype = compute_dtype(x, weight, residual)
    total = x.to(dtype) if residual is None else x.to(dtype) + residual.to(dtype)
    normed = F.rms_norm(total, weight.shape, weight.to(dtype), eps)
    return normed.to(x.dtype), x if residual is None else total


def rms_norm_gradient(
    total: Float[Tensor, "*rows D"],
    weight: Float[Tensor, " D"],
    eps: float,
    grad: Float[Tensor, "*rows D"] | None,
    grad_total: Float[Tensor, "*rows D"] | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the sum and of the weight, such that they can be differentiated again.

    Args:
        total: The sum that was normed.
        weight: The norm's weight.
        eps: As of `rms_norm`.
        grad: Of the normed tensor, None where nothing depends on it.
        grad_total: Of the sum as a result of its own, None where nothing depends on it.
    """
    wide = None if grad is None else grad.to(total.dtype)
    total_grad, weight_grad, *_ = gradient_through(rms_norm_torch, (total, weight, eps, None), (wide, None))
    if grad_total is not None:
        total_grad = grad_total if total_grad is None else total_grad + grad_total
    return total_grad, weight_grad
