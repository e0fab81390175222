"""`tsmamba info`: what a run or a file is, and what this installation can do."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any


def run_info(what: str | None) -> dict[str, Any]:
    """Describes this installation.

    Returns:
        Plain values for programs, and under `text` for people.
    """
    facts = {name: metadata.version(name) for name in ("seqmamba", "torch", "numpy", "pandas")}
    facts["python"] = platform.python_version()
    return {"versions": facts, "text": "\n".join(f"{name:10} {value}" for name, value in facts.items())}
