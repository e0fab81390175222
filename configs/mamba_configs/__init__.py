"""YAML presets, every field commented, read through `importlib.resources`."""

from __future__ import annotations

from importlib import resources
from typing import Any

__all__ = ["list_presets", "load_preset", "preset_text"]


def list_presets(app: str) -> list[str]:
    """Names of the presets of an application (`genomamba` or `tsmamba`), sorted."""
    folder = resources.files(__name__) / app
    if not folder.is_dir():
        return []
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(app: str, name: str) -> str:
    """The YAML text of a preset, comments included, ready to be saved and edited.

    Raises:
        KeyError: there is no such preset; the message lists those that exist.
    """
    names = list_presets(app)
    if name not in names:
        raise KeyError(f"no preset {name!r} for {app}; there are: {', '.join(names) or 'none'}")
    return (resources.files(__name__) / app / f"{name}.yaml").read_text(encoding="utf-8")


def load_preset(app: str, name: str) -> dict[str, Any]:
    """The settings of a preset as nested dictionaries.

    Raises:
        KeyError: there is no such preset; the message lists those that exist.
    """
    from mamba_configs.yaml_files import document

    return document(preset_text(app, name)).values
