"""A model as files that cannot run code: `model.safetensors`, `config.json` and a model card, checked when read.

The folder appears whole or not at all. `config.json` carries the SHA-256 of the weights and of its own content, so a
changed byte, a mixed-up pair of files or a cut download is noticed. These sums guard against accidents, not against
forgers: what guards against those is that nothing in the folder is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from mamba_data_prep.atomic import AtomicDirectory, clean_orphans
from mamba_data_prep.errors import UserError
from mamba_training.checkpoint import DamagedCheckpoint, check_weights
from mamba_training.folders import CARD, CONFIG, WEIGHTS, model_folder

_SEAL = "checksums"
_MOST_TEXT_BYTES = 16 << 20
_MOST_HEADER_BYTES = 16 << 20
_AGAIN = "copy or train the model again"


@dataclass(frozen=True)
class Bundle:
    """A model that was read from its folder.

    Args:
        state: the weights by name, on the CPU.
        config: what the application wrote.
        card: the model card, Markdown.
        path: the bundle's folder.
        sha256: of `model.safetensors`, in hexadecimal.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    card: str
    path: Path
    sha256: str

    def check(self, expected: Mapping[str, Tensor]) -> None:
        """Compare names, shapes and types with a model's `state_dict()`.

        Raises:
            UserError: naming the first difference.
        """
        try:
            check_weights(self.state, expected)
        except DamagedCheckpoint as error:
            raise UserError(f"these weights do not fit the model: {error}", path=self.path / WEIGHTS) from None


def save_bundle(path: str | Path, state: Mapping[str, Tensor], config: Mapping[str, Any], card: str) -> Path:
    """Write a bundle; an older one under the same name is replaced in one step.

    Args:
        path: the bundle's folder, usually `runs/NAME/model`.
        state: the weights, finite; tensors that share memory (tied weights) are each written whole.
        config: plain values that JSON holds; the keys are the application's, `checksums` is ours.
        card: the model card, Markdown: data fingerprints, splits, metrics, versions.

    Returns:
        The folder.

    Raises:
        UserError: a weight is not finite, or the folder cannot be written.
        ValueError: `config` holds something that JSON cannot.
    """
    folder = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    _check_finite(tensors, folder)
    weights = tensors_to_bytes(tensors, metadata={"format": "pt"})
    plain = {key: value for key, value in config.items() if key != _SEAL}
    sealed = {**plain, _SEAL: {WEIGHTS: hashlib.sha256(weights).hexdigest(), CONFIG: _digest(plain)}}
    text = json.dumps(sealed, indent=2, allow_nan=False) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    clean_orphans(folder.parent)
    with AtomicDirectory(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(weights)
        (temporary / CONFIG).write_text(text, encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")
    return folder


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle from its folder, or from the run folder that holds it in `model/`.

    Raises:
        UserError: it is missing, an address, a pickle, damaged, or leads out of its folder.
    """
    folder = model_folder(path)
    config = _read_config(folder)
    seal = config.pop(_SEAL, None)
    if not isinstance(seal, dict) or not all(isinstance(seal.get(name), str) for name in (WEIGHTS, CONFIG)):
        raise UserError("has no checksums: this is not a model of this program", path=folder / CONFIG)
    if _digest(config) != seal[CONFIG]:
        raise UserError("was changed after it was written: its checksum is another", path=folder / CONFIG, fix=_AGAIN)
    data = _read_inside(folder, WEIGHTS)
    digest = hashlib.sha256(data).hexdigest()
    if digest != seal[WEIGHTS]:
        raise UserError("is damaged: its checksum is not that in config.json", path=folder / WEIGHTS, fix=_AGAIN)
    state = _tensors(data, folder / WEIGHTS)
    _check_finite(state, folder / WEIGHTS)
    card = _text(_read_inside(folder, CARD, _MOST_TEXT_BYTES), folder / CARD) if (folder / CARD).exists() else ""
    return Bundle(state, config, card, folder, digest)


def _read_inside(folder: Path, name: str, most: int | None = None) -> bytes:
    """The bytes of a plain file that lies in `folder` itself, not behind a link that leads out of it."""
    path = folder / name
    try:
        if path.resolve(strict=True).parent != folder.resolve():
            raise UserError("is a link that leads out of the model's folder", path=path)
        if not path.is_file():
            raise UserError("is not a plain file", path=path)
        if most is not None and path.stat().st_size > most:
            raise UserError("is too large to be what it claims", path=path, found=f"{path.stat().st_size:,} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError("is missing from the model", path=path, fix=_AGAIN) from None
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot be read ({error})", path=path) from None


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    text = _text(_read_inside(folder, CONFIG, _MOST_TEXT_BYTES), path)
    try:
        config = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not JSON ({str(error) or 'nested too deeply'})", path=path, fix=_AGAIN) from None
    if not isinstance(config, dict):
        raise UserError("is not a JSON object", path=path, found=type(config).__name__)
    return config


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"is not text ({error.reason} at byte {error.start:,})", path=path, fix=_AGAIN) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key appears twice")
    return table


def _digest(config: Mapping[str, Any]) -> str:
    """The hash of a configuration's content, whatever its layout."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Parse safetensors after its header was found to be in bounds."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MOST_HEADER_BYTES, len(data) - 8):
        raise UserError("has a header that is longer than the file allows", path=path, found=f"{length:,} bytes")
    try:
        return tensors_from_bytes(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError, RecursionError) as error:
        raise UserError(f"is not a safetensors file ({str(error)[:120]})", path=path, fix=_AGAIN) from None


def _check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not math.isfinite(float(tensor.detach().to(torch.float32).abs().sum())):
            if bool(torch.isfinite(tensor).all()):
                continue  # only their sum overflows
            raise UserError(f"the weight {name} holds values that are not finite", path=path)
