"""LayerNorm and RMSNorm with a residual, a second input, dropout and a second weight in one call, as mamba-ssm's.

The plain RMSNorm, with and without a residual, is `mamba_kernels.rms_norm`; everything else is torch's own operators.

Legend: D channels, the last dimension; any number of dimensions before it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mamba_kernels import rms_norm
from mamba_kernels.arguments import compute_dtype


def _dropped(x: Tensor, dropout_p: float) -> tuple[Tensor, Tensor]:
    """x with dropout, and where it was kept."""
    kept = torch.rand(x.shape, device=x.device) > dropout_p
    return x.masked_fill(~kept, 0.0) / (1.0 - dropout_p), kept


def _normed(
    total: Tensor, weight: Tensor, bias: Tensor | None, eps: float, is_rms_norm: bool, dtype: torch.dtype
) -> Tensor:
    if not is_rms_norm:
        wide = compute_dtype(total, weight)
        bias = None if bias is None else bias.to(wide)
        return F.layer_norm(total.to(wide), weight.shape, weight.to(wide), bias, eps).to(dtype)
    out = rms_norm(total, weight, eps)
    return (out if bias is None else out + bias).to(dtype)


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Any:
    """Norm dropout(rowscale x) + dropout(x1) + residual, as mamba-ssm's function of this name does.

    Args:
        x: (..., D).
        weight: (D,).
        bias: (D,) or None.
        residual: As x, in its own dtype.
        x1: As x; excludes `rowscale`.
        weight1: (D,), for a second normed output.
        bias1: (D,).
        eps: Added to the variance, or mean square, inside the root.
        dropout_p: Probability with which an element of x and of x1 is dropped.
        rowscale: (...), a factor for each row of x.
        prenorm: Also return the sum that was normed.
        residual_in_fp32: Without a residual, whether that sum is float32 rather than in x's dtype.
        is_rms_norm: RMSNorm instead of LayerNorm.
        return_dropout_mask: Also return where x, and x1, were kept; None where nothing was dropped.

    Returns:
        The normed sum in x's dtype, alone or first of a tuple: (out[, out1][, sum][, mask, mask1]).

    Raises:
        ValueError: A shape does not fit, or x1 and rowscale come together.
    """
    _check(x, residual, x1, rowscale)
    plain = dropout_p == 0.0 and rowscale is None and x1 is None
    mask = mask1 = None
    wide = compute_dtype(x, weight, residual)
    if is_rms_norm and plain and residual is not None:
        out, total = rms_norm(x, weight, eps, residual)
        out = (out if bias is None else out + bias).to(x.dtype)
    else:
        total = x if plain else x.to(wide)
        if rowscale is not None:
            total = total * rowscale.unsqueeze(-1).to(wide)
        if dropout_p > 0.0:
            total, mask = _dropped(total, dropout_p)
        if x1 is not None:
            second = x1.to(wide)
            if dropout_p > 0.0:
                second, mask1 = _dropped(second, dropout_p)
            total = total + second
        if residual is not None:
            total = total.to(wide) + residual.to(wide)
        out = _normed(total, weight, bias, eps, is_rms_norm, x.dtype)
    results = [out]
    if weight1 is not None:
        results.append(_normed(total, weight1, bias1, eps, is_rms_norm, x.dtype))
    if prenorm:
        kept = residual.dtype if residual is not None else torch.float32 if residual_in_fp32 else x.dtype
        results.append(total.to(kept))
    if return_dropout_mask:
        return (*results, mask, mask1)
    return results[0] if len(results) == 1 else tuple(results)


def _check(x: Tensor, residual: Tensor | None, x1: Tensor | None, rowscale: Tensor | None) -> None:
    for name, tensor, shape in (
        ("residual", residual, x.shape),
        ("x1", x1, x.shape),
        ("rowscale", rowscale, x.shape[:-1]),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"layer_norm_fn: {name} must have shape {tuple(shape)}, found {tuple(tensor.shape)}")
    if x1 is not None and rowscale is not None:
        raise ValueError("layer_norm_fn: x1 excludes rowscale; scale the rows of x before the call")


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Any:
    """Norm as `layer_norm_fn(..., is_rms_norm=True)` does."""
    return layer_norm_fn(
        *(x, weight, bias, residual, x1, weight1, bias1, eps, dropout_p, rowscale, prenorm, residual_in_fp32),
        is_rms_norm=True,
        return_dropout_mask=return_dropout_mask,
    )


def _reference(
    is_rms_norm: bool, dtype: torch.dtype, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> Tensor:
    if not is_rms_norm:
        return F.layer_norm(x.to(weight.dtype), weight.shape, weight, bias, eps).to(dtype)
    out = x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight
    return (out if bias is None else out + bias).to(dtype)


def layer_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    dropout_mask: Tensor | None = None,
    dropout_mask1: Tensor | None = None,
    upcast: bool = False,
    is_rms_norm: bool = False,
) -> Any:
    """Norm in plain torch, in x's own dtype unless `upcast` to float32: what `layer_norm_fn` is judged by.

    Masks (as x, bool) say what a dropout kept; other arguments and results are those of `layer_norm_fn`.
    """
    dtype = x.dtype
    if upcast:
        x, weight = x.float(), weight.float()
        bias, residual, x1, weight1, bias1 = (
            None if tensor is None else tensor.float() for tensor in (bias, residual, x1, weight1, bias1)
        )
    if rowscale is not None:
        x = x * rowscale.unsqueeze(-1)
    total = _kept(x, dropout_p, dropout_mask)
    if x1 is not None:
        total = total + _kept(x1, dropout_p, dropout_mask1)
    if residual is not None:
        total = (total + residual).to(total.dtype)
    results = [_reference(is_rms_norm, dtype, total, weight, bias, eps)]
    if weight1 is not None:
        results.append(_reference(is_rms_norm, dtype, total, weight1, bias1, eps))
    if prenorm:
        results.append(total)
    return results[0] if len(results) == 1 else tuple(results)


def _kept(x: Tensor, dropout_p: float, mask: Tensor | None) -> Tensor:
    if dropout_p == 0.0:
        return x
    return F.dropout(x, dropout_p) if mask is None else x.masked_fill(~mask, 0.0) / (1.0 - dropout_p)


def rms_norm_ref(x: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any, **named: Any) -> Any:
    """Norm as `layer_norm_ref(..., is_rms_norm=True)` does."""
    return layer_norm_ref(x, weight, bias, *arguments, **named, is_rms_norm=True)


class RMSNorm(nn.Module):
    """RMSNorm (Zhang and Sennrich 2019) that can add a residual, and drop out, on its way.

    Args:
        hidden_size: D.
        eps: Added to the mean square, inside the root.
        dropout_p: Probability with which an element of the input is dropped in training.
        device: Of the weight.
        dtype: Of the weight.
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        dropout_p: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.drop = nn.Dropout(dropout_p) if dropout_p > 0.0 else None
        self.weight = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to ones."""
        nn.init.ones_(self.weight)

    def forward(
        self, x: Tensor, residual: Tensor | None = None, prenorm: bool = False, residual_in_fp32: bool = False
    ) -> Any:
        """Norm x + residual (..., D); with `prenorm` return the pair (normed, sum)."""
        dropout_p = self.drop.p if self.drop is not None and self.training else 0.0
        return rms_norm_fn(
            *(x, self.weight, None, residual),
            eps=self.eps,
            dropout_p=dropout_p,
            prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
        )


def layer_norm_linear_fn(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    residual: Tensor | None = None,
    eps: float = 1e-6,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
) -> Any:
    """Norm as `layer_norm_fn` does, then multiply by `linear_weight` (M, D) and add `linear_bias` (M,)."""
    found = layer_norm_fn(
        *(x, norm_weight, norm_bias, residual),
        eps=eps,
        prenorm=prenorm,
        residual_in_fp32=residual_in_fp32,
        is_rms_norm=is_rms_norm,
    )
    normed, *rest = found if prenorm else (found,)
    out = F.linear(normed.to(linear_weight.dtype), linear_weight, linear_bias)
    return (out, *rest) if prenorm else out
