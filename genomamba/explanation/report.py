"""The page of an explanation: one HTML file with its pictures inside, which opens anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mamba_training import web_page as web


def write_page(
    path: Path,
    *,
    title: str,
    lines: Sequence[str],
    records: Mapping[str, tuple[Path, pd.DataFrame]],
    memory: Path | None,
) -> None:
    """Writes the page.

    Args:
        path: an `.html`.
        title: of the page.
        lines: what was explained, by what model and how.
        records: for each sequence its picture, and its strongest bases.
        memory: picture of what the layers remember.
    """
    parts = [web.words(line) for line in lines]
    for name, (picture, strongest) in records.items():
        rows = [[_cell(value) for value in row] for row in strongest.to_numpy()]
        parts += [web.heading(name), web.picture(picture.read_bytes(), name)]
        if rows:
            parts.append(web.table(list(map(str, strongest.columns)), rows))
    if memory is not None:
        parts += [
            web.heading("What the layers remember"),
            web.picture(memory.read_bytes(), "memory"),
            web.words(_MEMORY),
        ]
    web.write_page(path, title, parts)


_MEMORY = (
    "A selective layer multiplies what it holds by exp(-step x rate) at every base, and chooses the step from what it "
    "reads. Left: bases after which 1/e is left, at each channel's median step; dots are the median channel, bars 5 to "
    "95 % of them. Right: how much larger the steps are after a word of three bases."
)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
