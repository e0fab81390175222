"""One HTML page with everything in it, pictures too, which opens anywhere and needs no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.provenance import versions

__all__ = ["details", "heading", "note", "number", "picture", "table", "words", "write_page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1120px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; font-size: 0.86rem; display: block; overflow-x: auto; margin: 0.6rem 0 }
th, td { padding: 0.2rem 0.5rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap }
th:first-child, td:first-child { text-align: left } tr.taken { font-weight: 600; background: #eef5fb }
svg, img { max-width: 100%; height: auto }
.note { background: #f6f6f6; padding: 0.5rem 0.9rem; border-left: 3px solid #1f77b4 }
details { margin: 0.4rem 0 } footer { margin-top: 3rem; color: #777; font-size: 0.8rem }
"""


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Writes a page, which appears whole or not at all; at its end stand the versions of what made it.

    Args:
        path: an `.html`.
        title: its heading.
        parts: HTML, from the functions beside this one.
    """
    made = ", ".join(f"{name} {one}" for name, one in versions().items() if one)
    head = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
    view = "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    body = "".join([f"<h1>{html.escape(title)}</h1>", *parts, f"<footer>{html.escape(made)}</footer>"])
    with atomic_write(path) as file:
        file.write(f"{head}{view}<style>{_STYLE}</style></head><body>{body}</body></html>\n")


def heading(text: str) -> str:
    """A heading of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def words(text: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(text)}</p>"


def note(text: str) -> str:
    """A paragraph that is to be seen."""
    return f'<p class="note">{html.escape(text)}</p>'


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], marked: Sequence[int] = ()) -> str:
    """A table; numbers are rounded to four digits, and nothing stands where there is none.

    Args:
        heads: of the columns, the first of which are words.
        rows: texts and numbers.
        marked: rows that are told apart.
    """
    top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    body = "".join(
        f"<tr class='{'taken' if place in marked else 'other'}'>{''.join(map(_cell, row))}</tr>"
        for place, row in enumerate(rows)
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def picture(png: bytes, name: str) -> str:
    """A picture inside the page.

    Args:
        png: what a PNG file holds.
        name: told where pictures are not shown.
    """
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{html.escape(name, quote=True)}" src="data:image/png;base64,{data}">'


def details(summary: str, *parts: str) -> str:
    """What is shown when its summary is clicked on."""
    return f"<details><summary>{html.escape(summary)}</summary>{''.join(parts)}</details>"


def number(value: float | int | None) -> str:
    """A number in four digits, or nothing.

    Examples:
        >>> number(0.123456), number(12_345.6), number(None)
        ('0.1235', '12,346', '')
    """
    if value is None or value != value:
        return ""
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 10_000 else f"{value:,.4g}"


def _cell(value: Any) -> str:
    plain = value.item() if hasattr(value, "item") else value
    if plain is None or (isinstance(plain, int | float) and not isinstance(plain, bool)):
        return f"<td>{number(plain)}</td>"
    return f"<td>{html.escape(str(plain))}</td>"
