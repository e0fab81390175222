"""LayerNorm and RMSNorm with a gate, over all channels or groups of them, as mamba-ssm has them.

Legend: D channels, the last dimension; any number of dimensions before it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mamba_kernels import rms_norm
from mamba_kernels.arguments import compute_dtype


def _in_groups(x: Tensor, eps: float, group_size: int, is_rms_norm: bool) -> Tensor:
    """Norm each group of neighbouring channels, without a weight."""
    parts = x.unflatten(-1, (-1, group_size))
    if is_rms_norm:
        return rms_norm(parts, parts.new_ones(group_size), eps).flatten(-2)
    return F.layer_norm(parts, (group_size,), None, None, eps).flatten(-2)


def layernorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
) -> Tensor:
    """Norm x and multiply by silu(z), or norm x silu(z).

    Args:
        x: (..., D).
        weight: (D,).
        bias: (D,) or None.
        z: As x.
        eps: Added to the variance, or mean square, inside the root.
        group_size: Channels that are normed together; all of them if None.
        norm_before_gate: Whether the norm comes first.
        is_rms_norm: RMSNorm instead of LayerNorm.

    Returns:
        As x, in x's dtype; computed in float32 (float64 if an input is).

    Raises:
        ValueError: z is not as x, or the groups do not divide the channels.
    """
    if z is not None and z.shape != x.shape:
        raise ValueError(f"layernorm_fn: z must have shape {tuple(x.shape)}, found {tuple(z.shape)}")
    channels = x.shape[-1]
    if group_size is not None and (group_size < 1 or channels % group_size):
        raise ValueError(f"layernorm_fn: groups of {group_size} channels do not divide {channels} channels")
    wide = compute_dtype(x, weight, z)
    gate = None if z is None else F.silu(z.to(wide))
    total = x.to(wide)
    if gate is not None and not norm_before_gate:
        total = total * gate
    if is_rms_norm and group_size in (None, channels):
        out = rms_norm(total, weight, eps)
    else:
        out = _in_groups(total, eps, group_size or channels, is_rms_norm) * weight.to(wide)
    if bias is not None:
        out = out + bias.to(wide)
    if gate is not None and norm_before_gate:
        out = out * gate
    return out.to(x.dtype)


def rmsnorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """Norm as `layernorm_fn(..., is_rms_norm=True)` does."""
    return layernorm_fn(x, weight, bias, z, eps, group_size, norm_before_gate, is_rms_norm=True)


def rms_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    upcast: bool = True,
) -> Tensor:
    """Norm in plain torch, in float32 or, without `upcast`, in x's dtype: what `rmsnorm_fn` is judged by."""
    wide = torch.promote_types(x.dtype, torch.float32) if upcast else x.dtype
    total, gate = x.to(wide), None if z is None else F.silu(z.to(wide))
    if gate is not None and not norm_before_gate:
        total = total * gate
    parts = total.unflatten(-1, (-1, group_size or x.shape[-1]))
    out = (parts / torch.sqrt(parts.square().mean(-1, keepdim=True) + eps)).flatten(-2) * weight.to(wide)
    out = out if bias is None else out + bias.to(wide)
    return (out if gate is None or not norm_before_gate else out * gate).to(x.dtype)


class LayerNorm(nn.Module):
    """LayerNorm with a gate and groups: see `layernorm_fn`.

    Args:
        hidden_size: D.
        eps: Added to the variance, inside the root.
        group_size: Channels that are normed together; all of them if None.
        norm_before_gate: Whether the norm comes before the gate.
        device: Of the parameters.
        dtype: Of the parameters.
    """

    is_rms_norm = False

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.group_size, self.norm_before_gate = eps, group_size, norm_before_gate
        self.weight = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.bias = None if self.is_rms_norm else nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to ones, the bias to zeros."""
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """Norm x (..., D), gated by z, shaped alike."""
        return layernorm_fn(
            *(x, self.weight, self.bias, z, self.eps, self.group_size, self.norm_before_gate, self.is_rms_norm)
        )


class RMSNorm(LayerNorm):
    """RMSNorm with a gate and groups, without a bias; arguments as those of `LayerNorm`."""

    is_rms_norm = True
