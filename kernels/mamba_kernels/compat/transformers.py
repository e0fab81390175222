"""Weights from and to `transformers`' Mamba and Mamba-2, without importing transformers.

    converted = read_folder("mamba-130m-hf")  # or from_transformers(model.state_dict(), model.config)
    backbone = Backbone(converted.config)
    backbone.load_state_dict(converted.backbone)
    hidden, state = backbone(converted.embedding[ids])
    logits = hidden @ converted.head.T

and back:

    write_folder("for-transformers", backbone.config, backbone.state_dict(), embedding, head)
    # transformers.AutoModelForCausalLM.from_pretrained("for-transformers")
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mamba_kernels.blocks import BackboneConfig

_SHARED_NAMES = {  # theirs, within `layers.I.`, and ours, within `blocks.I.`
    "norm.weight": "norm.weight",
    "mixer.in_proj.weight": "mixer.in_proj.weight",
    "mixer.in_proj.bias": "mixer.in_proj.bias",
    "mixer.conv1d.weight": "mixer.ssm.conv_weight",
    "mixer.conv1d.bias": "mixer.ssm.conv_bias",
    "mixer.A_log": "mixer.ssm.A_log",
    "mixer.D": "mixer.ssm.D",
    "mixer.out_proj.weight": "mixer.out_proj.weight",
    "mixer.out_proj.bias": "mixer.out_proj.bias",
}
_LAYER_NAMES = {
    "mamba": {
        **_SHARED_NAMES,
        "mixer.x_proj.weight": "mixer.ssm.x_proj.weight",
        "mixer.dt_proj.weight": "mixer.ssm.dt_proj.weight",
        "mixer.dt_proj.bias": "mixer.ssm.dt_proj.bias",
    },
    "mamba2": {**_SHARED_NAMES, "mixer.dt_bias": "mixer.ssm.dt_bias", "mixer.norm.weight": "mixer.ssm.norm_weight"},
}
_ARCHITECTURES = {"mamba": "MambaForCausalLM", "mamba2": "Mamba2ForCausalLM"}

DNA_TOKENS = {
    **{"[CLS]": 0, "[SEP]": 1, "[BOS]": 2, "[MASK]": 3, "[PAD]": 4, "[RESERVED]": 5, "[UNK]": 6},
    **{"A": 7, "C": 8, "G": 9, "T": 10, "N": 11},
}
"""The ids of HyenaDNA's and Caduceus' character tokenisers; their embeddings are padded to 16 rows."""


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
    """Reads a `MambaForCausalLM`, `Mamba2ForCausalLM`, `MambaModel` or `Mamba2Model`.

    Args:
        state_dict: Theirs; tensors are not copied.
        config: Their `MambaConfig` or `Mamba2Config`, or the dictionary in their `config.json`.

    Raises:
        ValueError: The config asks for something that our mixers do not do, or a weight is missing or unknown.
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
        for name, our_name in _layer_names(ours).items():
            theirs = f"layers.{index}.{name}"
            if theirs not in rest:
                raise ValueError(f"the weight {theirs!r} is missing; the config asks for {len(ours.layers)} layers")
            tensor = rest.pop(theirs)
            backbone[f"blocks.{index}.{our_name}"] = tensor.squeeze(1) if name == "mixer.conv1d.weight" else tensor
    if rest:
        raise ValueError(f"weights that the config does not speak of: {', '.join(sorted(rest)[:5])}")
    return Converted(ours, backbone, embedding, head)


def to_transformers(
    config: BackboneConfig, backbone: Mapping[str, Tensor], embedding: Tensor, head: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Writes a `MambaForCausalLM` or `Mamba2ForCausalLM`; the inverse of `from_transformers`.

    Args:
        config: Of a causal backbone, all of whose mixers are `mamba`, or all `mamba2`.
        backbone: `Backbone.state_dict()`.
        embedding: (vocabulary, d_model).
        head: (vocabulary, d_model); None, or the embedding itself, ties it to the embedding.

    Returns:
        Their state dict, and the keyword arguments of their `MambaConfig` or `Mamba2Config`.

    Raises:
        ValueError: The backbone has something that their models have not.
    """
    kind = config.layers[0]
    if not config.causal or set(config.layers) != {kind} or kind not in _LAYER_NAMES:
        raise ValueError(
            "transformers' Mamba is causal and made of mamba mixers only, or of mamba2 mixers only; this backbone has "
            f"layers {sorted(set(config.layers))}, bidirectional = {config.bidirectional!r}, "
            f"reverse_complement = {config.reverse_complement!r}"
        )
    if config.expand != int(config.expand):
        raise ValueError(f"transformers' Mamba takes a whole number for expand; this backbone has {config.expand}")
    state_dict = {"backbone.embeddings.weight": embedding, "backbone.norm_f.weight": backbone["norm.weight"]}
    state_dict["lm_head.weight"] = embedding if head is None else head
    their_names = {ours: theirs for theirs, ours in _LAYER_NAMES[kind].items()}
    for name, tensor in backbone.items():
        if name.startswith("blocks."):
            _, index, inner = name.split(".", 2)
            theirs = their_names[inner]
            layer_tensor = tensor[:, None] if theirs == "mixer.conv1d.weight" else tensor
            state_dict[f"backbone.layers.{index}.{theirs}"] = layer_tensor
    return state_dict, _their_config(config, vocabulary=embedding.shape[0], tied=_tied(embedding, head))


def _tied(embedding: Tensor, head: Tensor | None) -> bool:
    """Say whether the head is the embedding: left out, or the same numbers in the same place of memory."""
    if head is None or head is embedding:
        return True
    return head.shape == embedding.shape and head.data_ptr() == embedding.data_ptr() and head.device.type != "meta"


def read_folder(folder: str | Path) -> Converted:
    """Reads a model that transformers' `save_pretrained` wrote: `config.json` and safetensors, in one file or several.

    Raises:
        ValueError: A file is missing or is not what its name says, or `from_transformers` refuses what it holds.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder)
    config, index = path / "config.json", path / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(_read_json(index).get("weight_map", {}).values())
    state_dict: dict[str, Tensor] = {}
    for name in sorted(names):
        if Path(name).name != name or not (path / name).is_file():
            raise ValueError(f"{path} holds no file {name!r}; weights in other formats can run code and are not read")
        try:
            state_dict.update(load_file(path / name))
        except SafetensorError as error:
            raise ValueError(f"{path / name} is not a safetensors file: {error}") from None
    return from_transformers(state_dict, _read_json(config))


def write_folder(
    folder: str | Path,
    config: BackboneConfig,
    backbone: Mapping[str, Tensor],
    embedding: Tensor,
    head: Tensor | None = None,
) -> Path:
    """Writes what transformers' `from_pretrained` reads; arguments as those of `to_transformers`.

    Returns:
        The folder, made if need be.

    Raises:
        ValueError: As `to_transformers`.
    """
    from safetensors.torch import save_file

    state_dict, values = to_transformers(config, backbone, embedding, head)
    if values["tie_word_embeddings"]:
        del state_dict["lm_head.weight"]  # safetensors holds no tensor twice; they tie it again when they read it
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    text = json.dumps({**values, "architectures": [_ARCHITECTURES[values["model_type"]]]}, indent=2)
    (path / "config.json").write_text(text + "\n", encoding="utf-8")
    return path


def map_vocabulary(table: Tensor, theirs: Mapping[str, int], ours: Mapping[str, int], rows: int) -> Tensor:
    """Reorders the rows of an embedding or a head from one tokeniser's ids to another's.

    HyenaDNA and Caduceus number their tokens alike (`DNA_TOKENS`), as this package's DNA models do, so their tables
    need no mapping; this is for tokenisers that differ.

    Args:
        table: (their vocabulary, d_model).
        theirs: Token to its row in `table`.
        ours: Token to its row in the result; a token unknown to them gets the mean of their rows.
        rows: Of the result; rows that stand for no token are zero.

    Returns:
        (rows, d_model).

    Raises:
        ValueError: An id lies outside its table.
    """
    for name, ids, size in (("theirs", theirs, table.shape[0]), ("ours", ours, rows)):
        for token, number in ids.items():
            if not 0 <= number < size:
                raise ValueError(f"{name}[{token!r}] = {number} is not a row of a table of {size}")
    mapped = table.new_zeros(rows, table.shape[1])
    mean = table[sorted(set(theirs.values()))].mean(0)
    for token, number in ours.items():
        mapped[number] = table[theirs[token]] if token in theirs else mean
    return mapped


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_hook=_plain_number)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; a model of transformers is a folder with that file") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold an object, found {type(values).__name__}")
    return values


def _plain_number(values: dict[str, Any]) -> Any:
    """Transformers writes infinity as `{"__float__": "Infinity"}`, since JSON has none."""
    return float(values["__float__"]) if set(values) == {"__float__"} else values


def _layer_names(config: BackboneConfig) -> dict[str, str]:
    absent = set() if config.conv_bias else {"mixer.conv1d.bias"}
    if not config.proj_bias:
        absent |= {"mixer.in_proj.bias", "mixer.out_proj.bias"}
    return {theirs: ours for theirs, ours in _LAYER_NAMES[config.layers[0]].items() if theirs not in absent}


def _our_config(values: Mapping[str, Any]) -> BackboneConfig:
    kind = values.get("model_type", "mamba")
    if kind not in _LAYER_NAMES:
        raise ValueError(f"model_type = {kind!r} is not accepted; it must be one of {', '.join(_LAYER_NAMES)}")
    activation = values.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ValueError(f"hidden_act = {activation!r} is not accepted; our mixers have silu")
    for name in ("hidden_size", "num_hidden_layers"):
        if name not in values:
            raise ValueError(f"the config lacks {name!r}: it is not one of transformers' {_ARCHITECTURES[kind]}")
    width = values["hidden_size"]
    inner = values.get("intermediate_size") or int(values.get("expand", 2) * width)
    return BackboneConfig(
        d_model=width,
        layers=[kind] * values["num_hidden_layers"],
        d_conv=values.get("conv_kernel", 4),
        expand=inner / width,
        dt_min=values.get("time_step_min", 1e-3),
        dt_max=values.get("time_step_max", 1e-1),
        dt_floor=values.get("time_step_floor", 1e-4),
        conv_bias=values.get("use_conv_bias", True),
        proj_bias=values.get("use_bias", False),
        norm_eps=values.get("layer_norm_epsilon", 1e-5),
        **(_our_mamba(values) if kind == "mamba" else _our_mamba2(values, inner)),
    )


def _our_mamba(values: Mapping[str, Any]) -> dict[str, Any]:
    rank = values.get("time_step_rank", "auto")
    return {"d_state": values.get("state_size", 16), "dt_rank": rank if rank == "auto" else int(rank)}


def _our_mamba2(values: Mapping[str, Any], inner: int) -> dict[str, Any]:
    low, high = values.get("time_step_limit", (0.0, math.inf))
    if float(low) > 0 or float(high) != math.inf:
        raise ValueError(f"time_step_limit = {[low, high]} is not accepted; our step sizes have no limit")
    heads, head_width = values.get("num_heads", 128), values.get("head_dim", 64)
    if heads * head_width != inner:
        raise ValueError(f"num_heads = {heads} times head_dim = {head_width} is not the inner width {inner}")
    groups = values.get("n_groups", 8)
    return {"d_state": values.get("state_size", 128), "head_width": head_width, "n_groups": groups}


def _their_config(config: BackboneConfig, *, vocabulary: int, tied: bool) -> dict[str, Any]:
    kind = config.layers[0]
    own = (
        {"time_step_rank": config.rank}
        if kind == "mamba"
        else {
            "num_heads": config.ssd_heads,
            "head_dim": config.channels_per_head,
            "n_groups": config.n_groups,
        }
    )
    return {
        "model_type": kind,
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
        "time_step_min": config.dt_min,
        "time_step_max": config.dt_max,
        "time_step_floor": config.dt_floor,
        "tie_word_embeddings": tied,
        **own,
    }
