"""How far work is that is counted."""

from __future__ import annotations

import time

from rich.console import Console

from genomamba.prediction.shown_progress import ShownProgress
from mamba_training.progress import clock


class CountingProgress(ShownProgress):
    """Counts what is done, and shows it on stderr.

    Args:
        total: how many there are, where it is known.
        console: where to write; stderr by default.
        done, what: what is done with what, in a word each.
    """

    def __init__(
        self, total: int | None, console: Console | None = None, *, done: str = "scored", what: str = "records"
    ) -> None:
        super().__init__(console)
        self._total = total
        self._words = done, what
        self._done = self._first = 0

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

    def words(self, now: float) -> str:
        """What is done, the rate since the start, and the time that the rest will take at this rate."""
        rate = (self._done - self._first) / max(now - self._began, 1e-9)
        of = "" if self._total is None else f" of {self._total:,}"
        left = ""
        if self._total is not None and rate > 0:
            left = f", {clock((self._total - self._done) / rate)} left"
        done, what = self._words
        return f"{done} {self._done:,}{of} {what}, {rate:,.1f} a second{left}"
