"""The page of an explanation: one HTML file with its pictures inside, which opens anywhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mamba_data_prep.atomic import atomic_write

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
img{max-width:100%}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.15rem .7rem;text-align:right;
border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}small{color:#666}"""


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
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(line)}</p>" for line in lines)]
    for name, (picture, strongest) in records.items():
        parts += [f"<h2>{html.escape(name)}</h2>", _image(picture, name), _table(strongest)]
    if memory is not None:
        parts += ["<h2>What the layers remember</h2>", _image(memory, "memory"), f"<p><small>{_MEMORY}</small></p>"]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    with atomic_write(path) as file:
        file.write(f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n")


_MEMORY = (
    "A selective layer multiplies what it holds by exp(-step x rate) at every base, and chooses the step from what it "
    "reads. Left: bases after which 1/e is left, at each channel's median step; dots are the median channel, bars 5 to "
    "95 % of them. Right: how much larger the steps are after a word of three bases."
)


def _image(path: Path, name: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(name, quote=True)}" src="data:image/png;base64,{data}">'


def _table(frame: pd.DataFrame) -> str:
    if frame.empty:
        return ""
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in frame.columns)
    rows = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in frame.to_numpy())
    return f"<table><tr>{head}</tr>{rows}</table>"


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else html.escape(str(value))
