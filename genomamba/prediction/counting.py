"""How far work is that is counted: a line that changes on a terminal, and elsewhere a line every half a minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mamba_training.progress import clock

_EVERY_SECONDS = 30.0
_REDRAW_SECONDS = 0.2


class CountingProgress:
    """Counts what is done, and shows it on stderr.

    Args:
        total: how many there are, where it is known.
        console: where to write; stderr by default.
        done, what: what is done with what, in a word each.
    """

    def __init__(
        self, total: int | None, console: Console | None = None, *, done: str = "scored", what: str = "records"
    ) -> None:
        self._total = total
        self._words = done, what
        self._done = self._first = 0
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

    def begin(self, total: int, done: int) -> None:
        """Says how many there are, of which so many were done before."""
        self._total, self._done, self._first, self._began = total, done, done, time.monotonic()
        self.tick()

    def advance(self, count: int, *, done_before: bool = False) -> None:
        """Says that so many more are done, perhaps by an earlier run."""
        self._done += count
        if done_before:
            self._first, self._began = self._done, time.monotonic()
        self.tick()

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

    def words(self, now: float) -> str:
        """What is done, the rate since the start, and the time that the rest will take at this rate."""
        rate = (self._done - self._first) / max(now - self._began, 1e-9)
        of = "" if self._total is None else f" of {self._total:,}"
        left = ""
        if self._total is not None and rate > 0:
            left = f", {clock((self._total - self._done) / rate)} left"
        done, what = self._words
        return f"{done} {self._done:,}{of} {what}, {rate:,.1f} a second{left}"
