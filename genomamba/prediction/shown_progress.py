"""How progress is shown on stderr: a line that changes on a terminal, and elsewhere a line every half a minute."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_EVERY_SECONDS = 30.0
_REDRAW_SECONDS = 0.2


class ShownProgress(ABC):
    """Work whose progress is shown.

    Args:
        console: where to write; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bar: tuple[Progress, Any] | None = None
        self._began = self._shown = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the progress while the block runs."""
        if not self._console.is_terminal:
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as bar:
            self._bar = bar, bar.add_task("reading")
            yield

    def tick(self) -> None:
        """Shows how far the work is, if the last time is long enough ago."""
        now = time.monotonic()
        if now - self._shown < (_EVERY_SECONDS if self._bar is None else _REDRAW_SECONDS):
            return
        self._shown = now
        if self._bar is None:
            self._console.print(self.words(now), markup=False, soft_wrap=True)
        else:
            bar, task = self._bar
            bar.update(task, description=self.words(now))

    @abstractmethod
    def words(self, now: float) -> str:
        """How far the work is, in a line."""
