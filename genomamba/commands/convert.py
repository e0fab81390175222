"""`genomamba convert`: language models from and to Hugging Face's transformers, and any model to ONNX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genomamba import tokens
from genomamba.commands.checks import check_convert
from genomamba.config import ModelConfig
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from mamba_configs.settings import validated
from mamba_data_prep.atomic import AtomicDirectory
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import recorded_command, versions
from mamba_kernels.compat.transformers import Converted, map_vocabulary, read_folder, write_folder
from mamba_training.bundle import save_bundle
from mamba_training.model_card import model_card

_SHAPE = ("d_model", "d_state", "d_conv", "dt_rank", "dt_min", "dt_max", "n_groups", "conv_bias", "proj_bias")
"""Settings that a backbone and a model's configuration call by the same name, besides `expand` and `norm_eps`."""


def run_convert(
    *, model: Path, out: Path, letters: str | None, window: int, overwrite: bool = False, step: bool = False
) -> dict[str, Any]:
    """Writes a transformers folder or an ONNX file from one of our models, or a bundle from a folder of transformers.

    Args:
        model: our bundle or run folder, or what transformers' `save_pretrained` wrote.
        out: folder to write, or the ONNX file, which ends in .onnx.
        letters: the ids of a transformers model's tokens, such as `A=7,C=8,G=9,T=10`; None finds them in its files.
        window: bases that the bundle's model is said to read at a time.
        overwrite: replace an existing model.
        step: an ONNX file that takes one token, and a language model's state.

    Raises:
        UserError: it is neither, or it holds what the other side has not, or its vocabulary is not known.
    """
    theirs = _is_transformers(model)
    check_convert(model=model, out=out, overwrite=overwrite, step=step)
    if letters is not None and not theirs:
        raise UserError("--tokens is for models of transformers", path=model, fix="leave it out: ours are known")
    if out.suffix == ".onnx":
        return _to_onnx(model, out, step)
    try:
        return _to_bundle(model, out, letters, window) if theirs else _to_transformers(model, out)
    except ValueError as error:
        raise UserError(f"cannot be converted: {error}", path=model) from None


def _to_onnx(model: Path, out: Path, step: bool) -> dict[str, Any]:
    from genomamba.onnx_file import export_onnx
    from genomamba.public import load

    ours = load(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(ours, out, step=step)
    n_parameters = sum(parameter.numel() for parameter in ours.parameters())
    text = f"{out}: for onnxruntime, {n_parameters:,} parameters; the file's metadata tell the ids of the letters."
    return {"out": str(out), "kind": "onnx", "n_parameters": n_parameters, "text": text}


def _is_transformers(model: Path) -> bool:
    try:
        values = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # a run folder, or no model at all, of which the bundle's reader says more
    return isinstance(values, dict) and "model_type" in values and "checksums" not in values


def _to_transformers(model: Path, out: Path) -> dict[str, Any]:
    ours = GenomeLM.from_bundle(model)
    if not ours.objective.looks_ahead:
        raise UserError("a masked model has no form in transformers", path=model, accepted="a model of the next base")
    if ours.table is not None:
        raise UserError(
            "a model with a table of contexts has no form in transformers", path=model,
            fix="convert one trained with --set counts=null",
        )  # fmt: skip
    head = None if ours.lm_head is None else ours.lm_head.weight
    state = ours.backbone.state_dict()
    out.parent.mkdir(parents=True, exist_ok=True)
    with AtomicDirectory(out) as folder:
        write_folder(folder, ours.backbone.config, state, ours.embedding.weight, head)
        (folder / "vocab.json").write_text(json.dumps(tokens.VOCAB, indent=2) + "\n", encoding="utf-8")
    text = (
        f"{out}: for transformers' AutoModelForCausalLM.from_pretrained, {ours.n_parameters():,} parameters; the ids "
        "of the letters are in vocab.json. Take the softmax over A, C, G and T: the other rows are no predictions."
    )
    return {"out": str(out), "kind": "transformers", "n_parameters": ours.n_parameters(), "text": text}


def _to_bundle(model: Path, out: Path, letters: str | None, window: int) -> dict[str, Any]:
    converted = read_folder(model)
    if converted.head is None:
        raise ValueError("it has no output layer: this is a MambaModel, not a language model")
    ids = _read_letters(letters) if letters is not None else _find_letters(model, len(converted.embedding))
    tied = bool(torch.equal(converted.head, converted.embedding))
    shape = validated(ModelConfig, _shape(converted, tied), path=model)
    network = GenomeLM(shape).eval()
    state = {f"backbone.{name}": tensor for name, tensor in converted.backbone.items()}
    state["embedding.weight"] = _mapped(converted.embedding, ids)
    if not tied:
        state["lm_head.weight"] = _mapped(converted.head, ids)
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    made = {
        "converted_from": {
            "name": model.resolve().name,
            "letters": {name: ids[name] for name in ids if len(name) == 1},
        },
        "command": recorded_command(),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    config = {
        "format": 1,
        "kind": BUNDLE_KIND,
        "model": shape.model_dump(mode="json"),
        "window": window,
        "training": {**made, "settings": {"data": {"window": window}}},
    }
    save_bundle(out, network.state_dict(), config, _card(network, model, made))
    text = f"{out}: a language model of {network.n_parameters():,} parameters, {shape.n_layers} x {shape.d_model}"
    return {"out": str(out), "kind": BUNDLE_KIND, "n_parameters": network.n_parameters(), "letters": ids, "text": text}


def _shape(converted: Converted, tied: bool) -> dict[str, Any]:
    backbone = converted.config
    if backbone.expand != int(backbone.expand):
        raise ValueError(f"its inner width is {backbone.expand} times d_model; a whole number is accepted")
    own = {name: getattr(backbone, name) for name in _SHAPE}
    head_width = backbone.channels_per_head if "mamba2" in backbone.layers else "auto"
    return {
        **own,
        "n_layers": len(backbone.layers),
        "pattern": [backbone.layers[0]],
        "expand": int(backbone.expand),
        "head_width": head_width,
        "norm_eps": backbone.norm_eps,
        "tie_embeddings": tied,
    }


def _mapped(table: Tensor, ids: Mapping[str, int]) -> Tensor:
    """A table's rows under our ids; a letter that they lack, such as N, gets the mean of theirs."""
    if ids == tokens.VOCAB and len(table) == tokens.VOCAB_SIZE:
        return table
    ours = {token: number for token, number in tokens.VOCAB.items() if token in ids or len(token) == 1}
    return map_vocabulary(table, ids, ours, tokens.VOCAB_SIZE)


def _read_letters(text: str) -> dict[str, int]:
    ids: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if not name or not number.strip().isdecimal():
            raise UserError(
                "the ids of the tokens are not understood", found=part, accepted="A=7,C=8,G=9,T=10,N=11",
                fix="write a whole number behind each letter, and commas between them",
            )  # fmt: skip
        ids[name.strip() if name.startswith("[") else name.strip().upper()] = int(number)
    _check_letters(ids, "--tokens")
    return ids


def _find_letters(model: Path, rows: int) -> dict[str, int]:
    """The ids of the letters from the tokenizer's files, or HyenaDNA's and Caduceus' if the table has their size."""
    for found in (_vocab_json(model), _tokenizer_json(model), _vocab_txt(model)):
        lower = {name.upper(): number for name, number in found.items() if len(name) == 1}
        named = {**lower, **found}  # an upper-case letter of its own comes before a lower-case one
        if set(tokens.BASES) <= named.keys():
            return {name: number for name, number in named.items() if name in tokens.VOCAB}
    if rows in (len(tokens.VOCAB), tokens.VOCAB_SIZE):
        return dict(tokens.VOCAB)
    raise UserError(
        "it is not known which rows of the embedding stand for A, C, G and T", path=model, found=f"{rows} tokens",
        fix="say so: --tokens A=7,C=8,G=9,T=10,N=11",
    )  # fmt: skip


def _check_letters(ids: Mapping[str, int], source: str) -> None:
    missing = [base for base in tokens.BASES if base not in ids]
    if missing:
        raise UserError(
            f"{source} lacks {', '.join(missing)}", accepted="A=7,C=8,G=9,T=10,N=11", fix="add the id of each of them"
        )
    unknown = [name for name in ids if name not in tokens.VOCAB]
    if unknown:
        raise UserError(
            f"{source} names unknown tokens", found=", ".join(unknown), accepted=", ".join(tokens.VOCAB),
            fix="leave them out",
        )  # fmt: skip


def _vocab_json(model: Path) -> dict[str, int]:
    return _numbers(_json(model / "vocab.json"))


def _tokenizer_json(model: Path) -> dict[str, int]:
    inner = _json(model / "tokenizer.json").get("model")
    return _numbers(inner.get("vocab")) if isinstance(inner, dict) else {}


def _vocab_txt(model: Path) -> dict[str, int]:
    path = model / "vocab.txt"
    if not path.is_file():
        return {}
    return {line.strip(): number for number, line in enumerate(path.read_text(encoding="utf-8").splitlines())}


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"is not JSON ({error})", path=path, fix="mend it, or give --tokens") from None
    return values if isinstance(values, dict) else {}


def _numbers(values: Any) -> dict[str, int]:
    return {name: n for name, n in values.items() if type(n) is int} if isinstance(values, dict) else {}


def _card(network: GenomeLM, model: Path, made: Mapping[str, Any]) -> str:
    about = (
        f"Predicts the next base from the bases before it ({network.n_parameters():,} parameters). Converted from the\n"
        f"transformers model `{model.resolve().name}` by `{made['command']}` on {made['created']}."
    )
    limits = (
        "Nothing is known here of the data it was trained on, nor of what it was tested on: see its authors' own\n"
        "card, and score it on held-out sequence with `genomamba evaluate`."
    )
    return model_card("DNA language model, converted", about, {"Limits": limits})
