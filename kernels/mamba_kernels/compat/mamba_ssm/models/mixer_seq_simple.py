"""A stack of blocks between an embedding and a head, under mamba-ssm's names.

Legend: B batch, L length, M width, V vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mamba_kernels.compat.mamba_ssm.models.config_mamba import MambaConfig
from mamba_kernels.compat.mamba_ssm.modules.block import Block
from mamba_kernels.compat.mamba_ssm.modules.mamba2 import Mamba2
from mamba_kernels.compat.mamba_ssm.modules.mamba_simple import Mamba
from mamba_kernels.compat.mamba_ssm.modules.mha import MHA
from mamba_kernels.compat.mamba_ssm.modules.mlp import GatedMLP
from mamba_kernels.compat.mamba_ssm.ops.triton.layer_norm import RMSNorm, layer_norm_fn
from mamba_kernels.compat.mamba_ssm.utils.generation import GenerationMixin
from mamba_kernels.compat.mamba_ssm.utils.hf import load_config_hf, load_state_dict_hf

MIXERS: dict[str, type[nn.Module]] = {"Mamba1": Mamba, "Mamba2": Mamba2}
"""Mixers by the `layer` of a configuration's `ssm_cfg`."""


def create_block(
    d_model: int,
    d_intermediate: int,
    ssm_cfg: dict[str, Any] | None = None,
    attn_layer_idx: list[int] | None = None,
    attn_cfg: dict[str, Any] | None = None,
    norm_epsilon: float = 1e-5,
    rms_norm: bool = False,
    residual_in_fp32: bool = False,
    fused_add_norm: bool = False,
    layer_idx: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Block:
    """Make the block of one layer; arguments as those of `MambaConfig`.

    Raises:
        ValueError: `ssm_cfg` names no mixer.
    """
    made: dict[str, Any] = {"device": device, "dtype": dtype}
    if layer_idx in (attn_layer_idx or []):
        mixer = partial(MHA, layer_idx=layer_idx, **(attn_cfg or {}), **made)
    else:
        settings = dict(ssm_cfg or {})
        name = settings.pop("layer", "Mamba1")
        if name not in MIXERS:
            raise ValueError(f"ssm_cfg: layer must be one of {', '.join(MIXERS)}, found {name!r}")
        mixer = partial(MIXERS[name], layer_idx=layer_idx, **settings, **made)
    norm = partial(RMSNorm if rms_norm else nn.LayerNorm, eps=norm_epsilon, **made)
    mlp: Callable[[int], nn.Module] = nn.Identity
    if d_intermediate:
        mlp = partial(GatedMLP, hidden_features=d_intermediate, out_features=d_model, **made)
    block = Block(d_model, mixer, mlp, norm, fused_add_norm=fused_add_norm, residual_in_fp32=residual_in_fp32)
    block.layer_idx = layer_idx  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return block


def _init_weights(
    module: nn.Module,
    n_layer: int,
    initializer_range: float = 0.02,
    rescale_prenorm_residual: bool = True,
    n_residuals_per_layer: int = 1,
) -> None:
    """Draw embeddings, zero biases, scale down what feeds the stream, by the root of how much does (GPT-2's rule)."""
    if isinstance(module, nn.Linear):
        if module.bias is not None and not getattr(module.bias, "_no_reinit", False):
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=initializer_range)
    if not rescale_prenorm_residual:
        return
    for name, parameter in module.named_parameters():
        if name in ("out_proj.weight", "fc2.weight"):
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
            with torch.no_grad():
                parameter /= math.sqrt(n_residuals_per_layer * n_layer)


class MixerModel(nn.Module):
    """Embedding, blocks and a last norm; arguments as those of `MambaConfig`."""

    def __init__(
        self,
        d_model: int,
        n_layer: int,
        d_intermediate: int,
        vocab_size: int,
        ssm_cfg: dict[str, Any] | None = None,
        attn_layer_idx: list[int] | None = None,
        attn_cfg: dict[str, Any] | None = None,
        norm_epsilon: float = 1e-5,
        rms_norm: bool = False,
        initializer_cfg: dict[str, Any] | None = None,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        self.embedding = nn.Embedding(vocab_size, d_model, **made)
        self.layers = nn.ModuleList(
            create_block(
                *(d_model, d_intermediate, ssm_cfg, attn_layer_idx, attn_cfg, norm_epsilon, rms_norm),
                *(residual_in_fp32, fused_add_norm, index),
                **made,
            )
            for index in range(n_layer)
        )
        self.norm_f = (RMSNorm if rms_norm else nn.LayerNorm)(d_model, eps=norm_epsilon, **made)
        residuals = 1 if d_intermediate == 0 else 2
        self.apply(partial(_init_weights, n_layer=n_layer, **(initializer_cfg or {}), n_residuals_per_layer=residuals))

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> dict[int, Any]:
        """Return each layer's states before the first token."""
        layers: list[Any] = list(self.layers)
        return {
            index: layer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)
            for index, layer in enumerate(layers)
        }

    def forward(self, input_ids: Tensor, inference_params: Any = None, **mixer_kwargs: Any) -> Tensor:
        """Token ids (B, L) to (B, L, M)."""
        hidden_states, residual = self.embedding(input_ids), None
        norm: Any = self.norm_f
        for layer in self.layers:
            hidden_states, residual = layer(hidden_states, residual, inference_params=inference_params, **mixer_kwargs)
        if not self.fused_add_norm:
            residual = hidden_states if residual is None else hidden_states + residual
            return norm(residual.to(norm.weight.dtype))
        return layer_norm_fn(
            *(hidden_states, norm.weight, norm.bias, residual),
            eps=norm.eps,
            residual_in_fp32=self.residual_in_fp32,
            is_rms_norm=isinstance(norm, RMSNorm),
        )


class CausalLMOutput(NamedTuple):
    """What a language model gives: logits (B, L, V)."""

    logits: Tensor


class MambaLMHeadModel(nn.Module, GenerationMixin):
    """A language model of Mamba, Mamba-2 and attention layers, with mamba-ssm's weights and files.

    Args:
        config: Sizes and layers.
        initializer_cfg: `initializer_range`, `rescale_prenorm_residual`, `n_residuals_per_layer`.
        device: Of the weights.
        dtype: Of the weights.
    """

    def __init__(
        self,
        config: MambaConfig,
        initializer_cfg: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.config = config
        multiple = config.pad_vocab_size_multiple
        rows = -(-config.vocab_size // multiple) * multiple
        self.backbone = MixerModel(
            *(config.d_model, config.n_layer, config.d_intermediate, rows, config.ssm_cfg, config.attn_layer_idx),
            config.attn_cfg,
            rms_norm=config.rms_norm,
            initializer_cfg=initializer_cfg,
            fused_add_norm=config.fused_add_norm,
            residual_in_fp32=config.residual_in_fp32,
            **made,
        )
        self.lm_head = nn.Linear(config.d_model, rows, bias=False, **made)
        self.apply(partial(_init_weights, n_layer=config.n_layer, **(initializer_cfg or {})))
        self.tie_weights()

    def tie_weights(self) -> None:
        """Make head and embedding one matrix, if the configuration says so."""
        if self.config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> dict[int, Any]:
        """Return each layer's states before the first token."""
        return self.backbone.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        inference_params: Any = None,
        num_last_tokens: int = 0,
        **mixer_kwargs: Any,
    ) -> CausalLMOutput:
        """Token ids (B, L) to logits.

        Args:
            input_ids: (B, L).
            position_ids: Of no influence; callers for transformers' models pass it.
            inference_params: Where states are kept and, from the second call on, taken from.
            num_last_tokens: Give the logits of so many last positions only; 0 for all.
            mixer_kwargs: For every mixer: `seq_idx`, `cu_seqlens`.
        """
        hidden_states = self.backbone(input_ids, inference_params=inference_params, **mixer_kwargs)
        if num_last_tokens > 0:
            hidden_states = hidden_states[:, -num_last_tokens:]
        return CausalLMOutput(self.lm_head(hidden_states))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> MambaLMHeadModel:
        """Read a model of mamba-ssm's: a folder with `config.json` and weights, or a repository on the hub.

        Raises:
            FileNotFoundError: There is no such folder or file.
        """
        config = MambaConfig(**load_config_hf(pretrained_model_name))
        model = cls(config, device=device, dtype=dtype, **kwargs)
        model.load_state_dict(load_state_dict_hf(pretrained_model_name, device=device, dtype=dtype))
        return model

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `pytorch_model.bin` and `config.json`, which mamba-ssm reads, into a folder made if need be."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.state_dict(), folder / "pytorch_model.bin")
        (folder / "config.json").write_text(json.dumps(vars(self.config), indent=4), encoding="utf-8")
