"""What a language model is made of, under mamba-ssm's names."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class MambaConfig:
    """Sizes and layers of a `MambaLMHeadModel`, with the defaults of mamba-ssm 2.

    Attributes:
        d_model: Width.
        d_intermediate: Channels of an MLP after each mixer; 0 for none.
        n_layer: Layers.
        vocab_size: Tokens.
        ssm_cfg: Arguments of the mixer, and `layer`: "Mamba1" (default) or "Mamba2".
        attn_layer_idx: Layers that are attention.
        attn_cfg: Arguments of these.
        rms_norm: RMSNorm instead of LayerNorm.
        residual_in_fp32: Whether the residual stream is float32.
        fused_add_norm: Whether addition and norm are one call.
        pad_vocab_size_multiple: The vocabulary is rounded up to a multiple of it.
        tie_embeddings: Whether head and embedding are one matrix.
    """

    d_model: int = 2560
    d_intermediate: int = 0
    n_layer: int = 64
    vocab_size: int = 50277
    ssm_cfg: dict[str, Any] = field(default_factory=dict)
    attn_layer_idx: list[int] = field(default_factory=list)
    attn_cfg: dict[str, Any] = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True
