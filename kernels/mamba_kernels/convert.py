"""Weights from and to `transformers.MambaForCausalLM` and `MambaModel`, without importing transformers.

converted = from_transformers(model.state_dict(), model.config)
backbone = Backbone(converted.config)
backbone.load_state_dict(converted.backbone)
hidden, state = backbone(converted.embedding[ids])
logits = hidden @ converted.head.T
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mamba_kernels.blocks import BackboneConfig

_LAYER_NAMES = {  # theirs, within `layers.I.`, and ours, within `blocks.I.`
    "norm.weight": "norm.weight",
    "mixer.in_proj.weight": "mixer.in_proj.weight",
    "mixer.in_proj.bias": "mixer.in_proj.bias",
    "mixer.conv1d.weight": "mixer.ssm.conv_weight",
    "mixer.conv1d.bias": "mixer.ssm.conv_bias",
    "mixer.x_proj.weight": "mixer.ssm.x_proj.weight",
    "mixer.dt_proj.weight": "mixer.ssm.dt_proj.weight",
    "mixer.dt_proj.bias": "mixer.ssm.dt_proj.bias",
    "mixer.A_log": "mixer.ssm.A_log",
    "mixer.D": "mixer.ssm.D",
    "mixer.out_proj.weight": "mixer.out_proj.weight",
    "mixer.out_proj.bias": "mixer.out_proj.bias",
}
_OUR_LAYER_NAMES = {ours: theirs for theirs, ours in _LAYER_NAMES.items()}


@dataclass(frozen=True)
class Converted:
    """A model of theirs, in our parts.

    Attributes:
        config: For `Backbone(config)`.
        backbone: For `Backbone.load_state_dict`.
        embedding: (vocabulary, d_model).
        head: (vocabulary, d_model), the embedding itself where the two are tied; None for a `MambaModel`.
    """

    config: BackboneConfig
    backbone: dict[str, Tensor]
    embedding: Tensor
    head: Tensor | None


def from_transformers(state_dict: Mapping[str, Tensor], config: Any) -> Converted:
    """Reads a `MambaForCausalLM` or `MambaModel`.

    Args:
        state_dict: Theirs; tensors are not copied.
        config: Their `MambaConfig`, or the dictionary in their `config.json`.

    Raises:
        ValueError: The config asks for something that a `mamba` mixer does not do, or a weight is missing or unknown.
    """
    values = dict(config) if isinstance(config, Mapping) else config.to_dict()
    ours = _our_config(values)
    rest = {name.removeprefix("backbone."): tensor for name, tensor in state_dict.items()}
    try:
        backbone = {"norm.weight": rest.pop("norm_f.weight")}
        embedding = rest.pop("embeddings.weight")
    except KeyError as error:
        raise ValueError(f"this is no transformers Mamba: the weight {error.args[0]!r} is missing") from None
    head = rest.pop("lm_head.weight", None)
    if head is None and "backbone.norm_f.weight" in state_dict:
        head = embedding
    for index in range(len(ours.layers)):
        for name in _layer_names(ours):
            theirs = f"layers.{index}.{name}"
            if theirs not in rest:
                raise ValueError(f"the weight {theirs!r} is missing; the config asks for {len(ours.layers)} layers")
            tensor = rest.pop(theirs)
            backbone[f"blocks.{index}.{_LAYER_NAMES[name]}"] = (
                tensor.squeeze(1) if name == "mixer.conv1d.weight" else tensor
            )
    if rest:
        raise ValueError(f"weights that the config does not speak of: {', '.join(sorted(rest)[:5])}")
    return Converted(ours, backbone, embedding, head)


def to_transformers(
    config: BackboneConfig, backbone: Mapping[str, Tensor], embedding: Tensor, head: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Writes a `MambaForCausalLM`; the inverse of `from_transformers`.

    Args:
        config: Of a causal backbone of `mamba` mixers.
        backbone: `Backbone.state_dict()`.
        embedding: (vocabulary, d_model).
        head: (vocabulary, d_model); None ties it to the embedding.

    Returns:
        Their state dict, and the keyword arguments of their `MambaConfig`.

    Raises:
        ValueError: The backbone has something that their model has not.
    """
    if not config.causal or set(config.layers) != {"mamba"}:
        raise ValueError(
            "transformers' Mamba is causal and made of mamba mixers only; this backbone has "
            f"layers {sorted(set(config.layers))}, bidirectional = {config.bidirectional!r}, "
            f"reverse_complement = {config.reverse_complement!r}"
        )
    if config.expand != int(config.expand):
        raise ValueError(f"transformers' Mamba takes a whole number for expand; this backbone has {config.expand}")
    state_dict = {"backbone.embeddings.weight": embedding, "backbone.norm_f.weight": backbone["norm.weight"]}
    state_dict["lm_head.weight"] = embedding if head is None else head
    for name, tensor in backbone.items():
        if name.startswith("blocks."):
            _, index, inner = name.split(".", 2)
            theirs = _OUR_LAYER_NAMES[inner]
            layer_tensor = tensor[:, None] if theirs == "mixer.conv1d.weight" else tensor
            state_dict[f"backbone.layers.{index}.{theirs}"] = layer_tensor
    return state_dict, _their_config(config, vocabulary=embedding.shape[0], tied=head is None)


def _layer_names(config: BackboneConfig) -> list[str]:
    absent = set() if config.conv_bias else {"mixer.conv1d.bias"}
    if not config.proj_bias:
        absent |= {"mixer.in_proj.bias", "mixer.out_proj.bias"}
    return [name for name in _LAYER_NAMES if name not in absent]


def _our_config(values: Mapping[str, Any]) -> BackboneConfig:
    activation = values.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ValueError(f"hidden_act = {activation!r} is not accepted; a mamba mixer has silu")
    width = values["hidden_size"]
    rank = values.get("time_step_rank", "auto")
    inner = values.get("intermediate_size") or int(values.get("expand", 2) * width)
    return BackboneConfig(
        d_model=width,
        layers=["mamba"] * values["num_hidden_layers"],
        d_state=values.get("state_size", 16),
        d_conv=values.get("conv_kernel", 4),
        expand=inner / width,
        dt_rank=rank if rank == "auto" else int(rank),
        dt_min=values.get("time_step_min", 1e-3),
        dt_max=values.get("time_step_max", 1e-1),
        dt_floor=values.get("time_step_floor", 1e-4),
        conv_bias=values.get("use_conv_bias", True),
        proj_bias=values.get("use_bias", False),
        norm_eps=values.get("layer_norm_epsilon", 1e-5),
    )


def _their_config(config: BackboneConfig, *, vocabulary: int, tied: bool) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": config.d_model,
        "state_size": config.d_state,
        "num_hidden_layers": len(config.layers),
        "layer_norm_epsilon": config.norm_eps,
        "expand": int(config.expand),
        "conv_kernel": config.d_conv,
        "use_bias": config.proj_bias,
        "use_conv_bias": config.conv_bias,
        "hidden_act": "silu",
        "time_step_rank": config.rank,
        "time_step_min": config.dt_min,
        "time_step_max": config.dt_max,
        "time_step_floor": config.dt_floor,
        "tie_word_embeddings": tied,
    }
