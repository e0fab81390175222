"""`genomamba fetch`: public data by name, checked, resumed, and kept where every run finds it again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from genomamba.fetching.catalogue import catalogue, entry_named
from genomamba.fetching.download import fetch_file
from genomamba.prediction.counting import CountingProgress
from mamba_data_prep.errors import Interrupted
from mamba_training.progress import say

VARIABLE: Final = "SEQMAMBA_DATA"
"""The environment variable that names the folder."""


def run_fetch(*, name: str | None = None, out: Path | None = None, offline: bool = False) -> dict[str, Any]:
    """Fetches what a name stands for; without a name, tells what there is.

    Args:
        name: of an entry of the catalogue.
        out: the folder of all that is fetched; by default what `SEQMAMBA_DATA` names, or the user's cache.
        offline: take what is there already, and read nothing from the network.

    Returns:
        `folder`, `files` and `terms`, or of the catalogue `data`; under `text` the same for people.

    Raises:
        UserError: there is nothing of that name, or a file cannot be had whole.
        Interrupted: stopped; what has come is kept, and the same call goes on there.
    """
    if name is None:
        return _listed()
    entry, folder = entry_named(name), (out or default_folder()) / name
    paths = []
    for file in entry.files:
        progress = CountingProgress(None, done="fetched", what="bytes")

        def came(count: int, total: int | None, progress: CountingProgress = progress) -> None:
            if total is not None:
                progress.begin(total, count)
            else:
                progress.advance(count)

        try:
            with progress.shown():
                paths.append(fetch_file(file, folder, offline=offline, say=say, on_bytes=came))
        except KeyboardInterrupt:
            raise Interrupted("by the keyboard; what has come is kept: run the same command to go on") from None
    shown = [str(path) for path in paths]
    text = [f"{entry.about} -> {folder}", *(f"  {path}" for path in shown[:8])]
    text += [f"  and {len(shown) - 8} more"] if len(shown) > 8 else []
    return {
        "folder": str(folder), "files": shown, "terms": entry.terms, "text": "\n".join([*text, f"terms: {entry.terms}"])
    }  # fmt: skip


def default_folder() -> Path:
    """Where what is fetched lies unless a command says otherwise."""
    import pooch

    return Path(os.environ.get(VARIABLE) or pooch.os_cache("seqmamba"))


def _listed() -> dict[str, Any]:
    known = catalogue()
    width = max(map(len, known))
    lines = []
    for name, entry in known.items():
        ways = ", ".join(dict.fromkeys(file.known for file in entry.files))
        many = f"{len(entry.files)} files, " if len(entry.files) > 1 else ""
        lines.append(f"{name:{width}}  {entry.about} ({many}{ways}); {entry.terms}")
    return {
        "data": {name: entry.model_dump(mode="json") for name, entry in known.items()},
        "text": "\n".join([*lines, f"folder: {default_folder()} ({VARIABLE} or --out names another)"]),
    }
