"""What commands show on the terminal: what is being done, tables, and how to go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tsmamba.config import Note

_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


@contextmanager
def shown_progress(quiet: bool) -> Iterator[Note]:
    """Says on stderr what is being done: in one changing line on a terminal, else in a line every 10 seconds."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _silent if quiet else _plain_lines()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading")

        def note(text: str) -> None:
            bar.update(task, description=text)

        yield note


def _silent(text: str) -> None:
    """Says nothing."""


def _plain_lines() -> Note:
    """Prints the latest words, at most every 10 seconds."""
    began = said = time.monotonic()

    def note(text: str) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _EVERY:
            said = now
            print(f"{now - began:.0f} s: {text}", file=sys.stderr, flush=True)

    return note


def table_text(table: Any) -> str:
    """A rich table as text, as wide as the terminal (100 columns elsewhere)."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100
    console = Console(width=width, color_system=None, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")
