"""Multi-head attention with rotary positions (Su et al. 2021, arXiv 2104.09864), causal or in both directions.

Shapes: `B` batch, `L` new tokens, `T` tokens seen before, `H` heads, `E` channels a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.norm import without_decay
from mamba_kernels.blocks.registry import Branch, LayerState, Mixer, Piece, register_mixer


@register_mixer("attention")
class AttentionMixer(Mixer):
    """Softmax attention. Its state `(keys, values (B, H, T, E), document (B, T))` grows with the input."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width = config.strand_width
        self.causal = config.bidirectional == "none"
        self.n_heads, self.head_width = config.head_count, width // config.head_count
        self.rope_theta = config.rope_theta
        self.qkv_proj = nn.Linear(width, 3 * width, bias=config.proj_bias)
        self.out_proj = nn.Linear(width, width, bias=config.proj_bias)
        without_decay(self.qkv_proj.bias, self.out_proj.bias)
        with torch.no_grad():  # the residual stream's variance must not grow with depth
            self.out_proj.weight.div_(math.sqrt(len(config.layers)))

    def branches(self) -> Sequence[Branch]:
        """One pass in one piece: what it remembers is as long as the input."""
        return (Branch(self._run, self.initial_state, divisible=False),)

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> LayerState:
        """Gives the state before any token: no keys and values."""
        empty = torch.zeros(batch_size, self.n_heads, 0, self.head_width, device=device, dtype=dtype)
        return empty, empty.clone(), torch.zeros(batch_size, 0, device=device, dtype=torch.int32)

    def mix(self, x: Tensor, state: LayerState | None, reset: Tensor | None) -> tuple[Tensor, LayerState]:
        """`x` (B, L, d_model); a token sees its own document only, and in the causal case nothing after itself."""
        batch, length, _ = x.shape
        seen = 0 if state is None else state[0].shape[2]
        qkv = self.qkv_proj(x).view(batch, length, 3, self.n_heads, self.head_width).permute(2, 0, 3, 1, 4)
        query, key = self._rotate(qkv[0], seen), self._rotate(qkv[1], seen)
        keys, values = key, qkv[2].contiguous()
        documents = self._documents(x, None if state is None else state[2], reset)
        if state is not None:
            keys = torch.cat([state[0].to(key.dtype), keys], dim=2)
            values = torch.cat([state[1].to(key.dtype), values], dim=2)
            documents = torch.cat([state[2], documents], dim=1)
        mask = None
        # Of an exported program's state it cannot be asked whether it is empty.
        if reset is not None or (state is not None and (torch.compiler.is_exporting() or seen)):
            mask = self._mask(documents, length)
        y = F.scaled_dot_product_attention(query, keys, values, mask, is_causal=self.causal and mask is None)
        y = self.out_proj(y.transpose(1, 2).reshape(batch, length, self.n_heads * self.head_width))
        return y, (keys, values, documents) if self.causal else ()

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Takes one token of each sequence, (B, d_model)."""
        y, state = self.mix(x[:, None], state, None)
        return y[:, 0], state

    def _run(self, x: Tensor, state: LayerState | None, piece: Piece) -> tuple[Tensor, LayerState]:
        return self.mix(x, state, piece.reset)

    def _rotate(self, x: Tensor, offset: int) -> Tensor:
        half = self.head_width // 2
        wide = torch.promote_types(x.dtype, torch.float32)
        rate = self.rope_theta ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
        angle = torch.arange(offset, offset + x.shape[2], device=x.device, dtype=torch.float64)[:, None] * rate
        cos, sin = angle.cos().to(wide), angle.sin().to(wide)
        left, right = x.to(wide).chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1).to(x.dtype)

    @staticmethod
    def _documents(x: Tensor, seen: Tensor | None, reset: Tensor | None) -> Tensor:
        """Each new token's document number (B, L), counted on from the last one seen."""
        if reset is None:
            new = torch.zeros(x.shape[:2], device=x.device, dtype=torch.int32)
        else:
            new = reset.to(torch.int32).cumsum(dim=1, dtype=torch.int32)
        return new if seen is None else new + F.pad(seen, (1, 0))[:, -1:]

    def _mask(self, documents: Tensor, length: int) -> Tensor:
        """Which keys each new token sees, (B, 1, L, T + L)."""
        total = documents.shape[1]
        visible = documents[:, total - length :, None] == documents[:, None, :]
        if self.causal:
            position = torch.arange(total, device=documents.device)
            visible = visible & (position[total - length :, None] >= position)
        return visible[:, None]
