"""What every command does first: name its outputs, check its method, show on the terminal what is being done."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tsmamba.config import LEVELS, Note

_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""

_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".gz")


def quantile_levels(percents: Sequence[float]) -> tuple[float, ...]:
    """The quantile levels that bound central intervals of these widths, with the median."""
    if not percents:
        return LEVELS
    tails = [round((1 - percent / 100) / 2, 6) for percent in percents]
    return tuple(sorted({*tails, 0.5, *(round(1 - tail, 6) for tail in tails)}))


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


def command_line(more: str) -> str:
    """What a user types to run this command again with one more option."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join(words if more in words else [*words, more])


def table_text(table: Any) -> str:
    """A rich table as text, as wide as the terminal (100 columns elsewhere)."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100
    console = Console(width=width, color_system=None, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def check_method(name: str) -> None:
    """Refuses a method's name before anything is read.

    Raises:
        UserError: there is no such method.
    """
    from tsmamba.methods.methods import METHODS, no_such_method

    if name != "auto" and name not in METHODS:
        raise no_such_method(name)
