"""Attention under mamba-ssm's names, by torch's own scaled dot products on any device.

Legend: B batch, L length, M width, H heads of queries, J heads of keys and values (J divides H), E channels of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mamba_kernels import causal_conv1d
from mamba_kernels.compat.mamba_ssm.modules.states import advance_inputs
from mamba_kernels.compat.packed import reset_of


def rotate(x: Tensor, positions: Tensor, channels: int, base: float, interleaved: bool) -> Tensor:
    """Turn the first channels of each head by angles that grow with the position (Su et al. 2021, eq. 34).

    Args:
        x: (B, L, H, E).
        positions: (L,) or (B, L).
        channels: How many, even.
        base: Of the wavelengths.
        interleaved: Whether neighbours are turned against each other, and not one half against the other.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    rates = base ** -(torch.arange(0, channels, 2, device=x.device, dtype=wide) / channels)
    angles = (positions.to(wide).unsqueeze(-1) * rates).unsqueeze(-2)  # (..., L, 1, channels / 2)
    cos, sin = angles.cos(), angles.sin()
    turned, rest = x[..., :channels].to(wide), x[..., channels:]
    first, second = turned.unflatten(-1, (-1, 2)).unbind(-1) if interleaved else turned.chunk(2, dim=-1)
    pair = (first * cos - second * sin, first * sin + second * cos)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([turned.to(x.dtype), rest], dim=-1)


class MHA(nn.Module):
    """Softmax attention, with shared keys, a short convolution, rotary positions and a gated MLP beside it if asked.

    Args:
        embed_dim: M.
        num_heads: H.
        num_heads_kv: J; None for H.
        head_dim: E; None for M / H.
        mlp_dim: Channels and gates of an MLP beside the attention, rounded up to a multiple of 256.
        qkv_proj_bias: Whether the first projection has a bias.
        out_proj_bias: Whether the last one has.
        softmax_scale: Factor of the products; None for 1 / sqrt(E).
        causal: Whether a position sees nothing of what follows.
        layer_idx: Under which its memory lies in `InferenceParams`.
        d_conv: Taps of a convolution over queries, keys and values; 0 for none.
        rotary_emb_dim: Channels of a head that are turned by position; 0 for none.
        rotary_emb_base: Of their wavelengths.
        rotary_emb_interleaved: Whether neighbours are turned against each other.
        device: Of the weights.
        dtype: Of the weights.

    Raises:
        ValueError: The heads do not divide.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_heads_kv: int | None = None,
        head_dim: int | None = None,
        mlp_dim: int = 0,
        qkv_proj_bias: bool = True,
        out_proj_bias: bool = True,
        softmax_scale: float | None = None,
        causal: bool = False,
        layer_idx: int | None = None,
        d_conv: int = 0,
        rotary_emb_dim: int = 0,
        rotary_emb_base: float = 10000.0,
        rotary_emb_interleaved: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.embed_dim, self.layer_idx, self.d_conv = embed_dim, layer_idx, d_conv
        self.rotary_emb_dim, self.rotary_emb_base = rotary_emb_dim, rotary_emb_base
        self.rotary_emb_interleaved = rotary_emb_interleaved
        self.softmax_scale, self.causal = softmax_scale, causal
        self.num_heads = num_heads
        self.num_heads_kv = num_heads if num_heads_kv is None else num_heads_kv
        if num_heads % self.num_heads_kv or (head_dim is None and embed_dim % num_heads):
            raise ValueError(
                f"MHA: num_heads must be a multiple of num_heads_kv and, without head_dim, divide embed_dim;"
                f" found {num_heads}, {self.num_heads_kv} and {embed_dim}"
            )
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.mlp_dim = math.ceil(mlp_dim / 256) * 256
        qkv = self.head_dim * (num_heads + 2 * self.num_heads_kv)
        self.in_proj = nn.Linear(embed_dim, qkv + self.mlp_dim, bias=qkv_proj_bias, **made)
        if d_conv > 0:
            self.conv1d = nn.Conv1d(qkv, qkv, d_conv, padding=d_conv - 1, groups=qkv, **made)
        self.out_proj = nn.Linear(self.head_dim * num_heads + self.mlp_dim // 2, embed_dim, bias=out_proj_bias, **made)

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return room for keys and values (B, L, 2, J, E), and the convolution's state (B, channels, K) or None."""
        weight = self.out_proj.weight
        conv_state = None
        if self.d_conv > 0:
            conv_state = weight.new_zeros(batch_size, self.conv1d.weight.shape[0], self.d_conv, dtype=dtype)
        return weight.new_zeros(
            batch_size, max_seqlen, 2, self.num_heads_kv, self.head_dim, dtype=dtype
        ), conv_state  # fmt: skip

    def forward(
        self,
        x: Tensor,
        inference_params: Any = None,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        """Mix (B, L, M) along L.

        Args:
            x: (B, L, M).
            inference_params: Where keys and values are kept; tokens are taken to follow those that it has seen.
            seq_idx: (B, L) integers that number packed sequences, which do not see each other.
            cu_seqlens: (S + 1,), another way to tell where sequences begin.

        Raises:
            ValueError: There is no room for the tokens, or packed sequences come with `inference_params`.
        """
        if inference_params is not None and (seq_idx is not None or cu_seqlens is not None):
            raise ValueError("MHA: packed sequences exclude inference_params; generate them as rows of a batch")
        memory, begun, row = None, 0, 0
        if inference_params is not None:
            memory = self._memory(inference_params, x)
            begun, row = inference_params.seqlen_offset, inference_params.batch_size_offset
        reset = reset_of("MHA", seq_idx, cu_seqlens, *x.shape[:2])
        qkv, mlp = self.in_proj(x).split([self.in_proj.out_features - self.mlp_dim, self.mlp_dim], dim=-1)
        if self.d_conv > 0:
            before = None if memory is None else advance_inputs(memory[1], qkv, begun > 0)
            taps = self.conv1d.weight.squeeze(1)
            qkv = causal_conv1d(qkv, taps, self.conv1d.bias, initial_state=before, reset=reset)
        q, k, v = qkv.unflatten(-1, (-1, self.head_dim)).split(
            [self.num_heads, self.num_heads_kv, self.num_heads_kv], dim=2
        )
        if self.rotary_emb_dim > 0:
            positions = _positions(reset, x, begun)
            turn = (self.rotary_emb_dim, self.rotary_emb_base, self.rotary_emb_interleaved)
            q, k = rotate(q, positions, *turn), rotate(k, positions, *turn)
        if memory is not None:
            k, v = self._remember(memory[0], k, v, begun, row)
        context = self._attend(q, k, v, begun, reset)
        if self.mlp_dim > 0:
            up, gate = mlp.chunk(2, dim=-1)
            context = torch.cat([context, up * F.silu(gate)], dim=-1)
        return self.out_proj(context)

    def _memory(self, inference_params: Any, x: Tensor) -> Any:
        kept = inference_params.key_value_memory_dict
        if self.layer_idx is None:
            raise ValueError("MHA: generation needs layer_idx in the constructor, under which keys and values are kept")
        if self.layer_idx not in kept:
            kept[self.layer_idx] = self.allocate_inference_cache(x.shape[0], inference_params.max_seqlen, x.dtype)
        return kept[self.layer_idx]

    def _remember(self, cache: Tensor, k: Tensor, v: Tensor, begun: int, row: int) -> tuple[Tensor, Tensor]:
        """Write keys and values behind those that are there, and return them all."""
        end = begun + k.shape[1]
        if end > cache.shape[1] or row + k.shape[0] > cache.shape[0]:
            raise ValueError(
                f"MHA: there is room for {cache.shape[0]} rows of {cache.shape[1]} positions, found"
                f" {row + k.shape[0]} of {end}; take an InferenceParams with larger max_batch_size and max_seqlen"
            )
        rows = slice(row, row + k.shape[0])
        cache[rows, begun:end] = torch.stack([k, v], dim=2).to(cache.dtype)
        past = cache[rows, :end].to(k.dtype)
        return past[:, :, 0], past[:, :, 1]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, begun: int, reset: Tensor | None) -> Tensor:
        """Queries (B, L, H, E) over keys and values (B, begun + L, J, E); gives (B, L, H E)."""
        shared = self.num_heads // self.num_heads_kv
        k, v = (tensor.repeat_interleave(shared, dim=2).transpose(1, 2) for tensor in (k, v))
        mask, causal = None, self.causal
        if reset is not None or (causal and begun):
            mask = torch.ones(q.shape[1], k.shape[2], dtype=torch.bool, device=q.device)
            mask = mask.tril(begun) if causal else mask
            if reset is not None:
                number = reset.cumsum(1)
                mask = (mask & (number.unsqueeze(2) == number.unsqueeze(1))).unsqueeze(1)
            causal = False
        context = F.scaled_dot_product_attention(
            q.transpose(1, 2), k, v, attn_mask=mask, is_causal=causal, scale=self.softmax_scale
        )
        return context.transpose(1, 2).flatten(2)


def _positions(reset: Tensor | None, x: Tensor, begun: int) -> Tensor:
    """Positions (L,) from `begun` on, or (B, L) counted from each sequence's start."""
    positions = torch.arange(begun, begun + x.shape[1], device=x.device)
    if reset is None:
        return positions
    return positions - torch.where(reset, positions, 0).cummax(1).values
