"""Which files a command reads and where its output lies by default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".gz")


def beside(csv: Path, ending: str) -> Path:
    """The default output: beside the input, or here where that folder may not be written to."""
    name = csv.name
    while Path(name).suffix.lower() in _ENDINGS:
        name = Path(name).stem
    folder = csv.parent if csv.parent.is_dir() and os.access(csv.parent, os.W_OK) else Path()
    return folder / f"{name}{ending}"


def input_files(csv: Path, reading: Mapping[str, Any]) -> list[Path | None]:
    """The files that a command reads."""
    return [csv, reading.get("future"), reading.get("static"), reading.get("rules")]
