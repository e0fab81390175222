"""Norm, mixer and MLP around a residual stream, under mamba-ssm's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mamba_kernels.compat.mamba_ssm.ops.triton.layer_norm import RMSNorm, layer_norm_fn


class Block(nn.Module):
    """Adds the last block's output to the stream, norms the stream, mixes: the stream and the output go on apart.

    Args:
        dim: Channels.
        mixer_cls: Makes the mixer from `dim`.
        mlp_cls: Makes the MLP from `dim`; `nn.Identity` for none.
        norm_cls: Makes a norm from `dim`.
        fused_add_norm: Whether addition and norm are one call; of no influence on the result but for rounding.
        residual_in_fp32: Whether the stream is float32.

    Raises:
        TypeError: `fused_add_norm` with a norm that is neither LayerNorm nor RMSNorm.
    """

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        mlp_cls: Callable[[int], nn.Module] = nn.Identity,
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__()
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        self.norm = norm_cls(dim)
        self.mixer = mixer_cls(dim)
        self.mlp = None
        if mlp_cls is not nn.Identity:
            self.norm2 = norm_cls(dim)
            self.mlp = mlp_cls(dim)
        if fused_add_norm and not isinstance(self.norm, nn.LayerNorm | RMSNorm):
            raise TypeError(f"Block: fused_add_norm takes LayerNorm or RMSNorm, found {type(self.norm).__name__}")

    def forward(
        self, hidden_states: Tensor, residual: Tensor | None = None, inference_params: Any = None, **mixer_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take the last block's output (B, L, M) and the stream before it, and give the same of this block."""
        hidden_states, residual = self._add_and_norm(self.norm, hidden_states, residual)
        hidden_states = self.mixer(hidden_states, inference_params=inference_params, **mixer_kwargs)
        if self.mlp is not None:
            hidden_states, residual = self._add_and_norm(self.norm2, hidden_states, residual)
            hidden_states = self.mlp(hidden_states)
        return hidden_states, residual

    def _add_and_norm(self, norm: Any, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.fused_add_norm:
            return layer_norm_fn(
                *(x, norm.weight, norm.bias, residual),
                eps=norm.eps,
                prenorm=True,
                residual_in_fp32=self.residual_in_fp32,
                is_rms_norm=isinstance(norm, RMSNorm),
            )
        stream = x if residual is None else x + residual
        normed = norm(stream.to(norm.weight.dtype))
        return normed, stream.to(torch.float32) if self.residual_in_fp32 else stream

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> Any:
        """Return the mixer's states before the first token."""
        mixer: Any = self.mixer
        return mixer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)
