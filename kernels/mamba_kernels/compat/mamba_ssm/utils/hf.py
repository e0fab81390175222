"""Configurations and weights of mamba-ssm's models, in folders and on Hugging Face's hub, under mamba-ssm's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The files in which weights are looked for, in this order."""


def _file(model_name: str | Path, names: tuple[str, ...]) -> Path:
    """The first of the files that a folder, or a repository on the hub, holds.

    Raises:
        FileNotFoundError: It holds none of them, or the hub cannot be asked.
    """
    folder = Path(model_name)
    if folder.is_dir():
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise FileNotFoundError(f"{folder} holds no {' and no '.join(names)}")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError:
        raise FileNotFoundError(
            f"{model_name} is no folder, and asking the hub for it needs the package huggingface_hub"
        ) from None
    for name in names:
        try:
            return Path(hf_hub_download(str(model_name), name))
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f"the repository {model_name} holds no {' and no '.join(names)}")


def load_config_hf(model_name: str | Path) -> dict[str, Any]:
    """Read a model's `config.json`.

    Raises:
        FileNotFoundError: There is none.
    """
    return json.loads(_file(model_name, (CONFIG,)).read_text(encoding="utf-8"))


def load_state_dict_hf(
    model_name: str | Path, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Read a model's weights, without running code from their file.

    Args:
        model_name: A folder, or a repository on the hub.
        device: On which they are put.
        dtype: That floating weights are cast to.

    Raises:
        FileNotFoundError: There are none.
    """
    path = _file(model_name, WEIGHTS)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        weights = load_file(path)
    else:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    return {
        name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        for name, tensor in weights.items()
    }
