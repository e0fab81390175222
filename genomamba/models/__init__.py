"""Models that ship with the package, and their names: wherever a command takes a model's folder, it takes these too."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mamba_data_prep.errors import UserError

_HERE = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """Name -> folder of the bundle, of every model that ships."""
    return {path.parent.name: path.parent for path in sorted(_HERE.glob("*/config.json"))}


def model_path(model: str | Path) -> Path:
    """The folder that is meant by a path, or by the name of a model that ships; a path that exists comes first.

    Raises:
        UserError: there is nothing of that name, but a model of nearly that.
    """
    path, names = Path(model), shipped()
    if path.exists():
        return path
    if str(model) in names:
        return names[str(model)]
    near = difflib.get_close_matches(str(model), names, n=1)
    if not near:
        return path  # whoever reads it says what is missing
    raise UserError(
        "there is no such model", found=str(model), accepted=f"a run, a bundle, or {', '.join(names)}",
        fix=f"did you mean {near[0]}?",
    )  # fmt: skip


def descriptions() -> Iterator[dict[str, Any]]:
    """What is to be said of each model that ships, in the order of their names."""
    for name, folder in shipped().items():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        result = config["training"]["result"]
        yield {
            "name": name,
            "kind": config["kind"],
            "n_parameters": result["n_parameters"],
            "window": config["window"],
            "trained_on": config["training"]["genome"]["file"],
            "tokens": result["tokens"],
            "test_bits": result["test"]["bits"],
            "megabytes": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 1),
        }
