"""What every command does first: name its outputs, check its method, show on the terminal what is being done."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mamba_data_prep.errors import UserError

from tsmamba.config import LEVELS
from tsmamba.selection import Note

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
    """On a terminal, a line that says what is being done and for how long."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("reading")

        def note(text: str) -> None:
            bar.update(task, description=text)

        yield note


def table_text(table: Any) -> str:
    """A rich table as text, as wide as the terminal (100 columns elsewhere)."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def check_method(name: str) -> None:
    """Refuses a method's name before anything is read.

    Raises:
        UserError: there is no such method.
    """
    from tsmamba.methods import LEARNED, LOCAL

    if name != "auto" and name not in LOCAL and name.removesuffix("_log") not in LEARNED:
        raise UserError("there is no such method", found=name, accepted=", ".join(("auto", *LOCAL, *LEARNED)))
