"""Ctrl-C and SIGTERM ask a run to stop after the present step; a second Ctrl-C stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Aborted(BaseException):
    """The second Ctrl-C: leave at once, without saving."""


class StopSignals:
    """While entered, SIGINT and SIGTERM set `requested` instead of killing the process.

    Args:
        note: told in one line when the first signal arrives.
    """

    def __init__(self, note: Callable[[str], object]) -> None:
        self.requested = ""
        self._note = note
        self._owner = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def install(self) -> None:
        """Take the signals (again: Lightning's Trainer puts its own handler over ours when it starts)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            present = signal.getsignal(number)
            if present != self._handle:
                self._before.setdefault(number, present)
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            self._in_a_data_worker(number)
            return
        if self.requested and number == signal.SIGINT:
            raise Aborted
        if not self.requested:
            self.requested = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
            self._note(f"{self.requested}: finishing this step and saving; Ctrl-C again leaves at once")

    @staticmethod
    def _in_a_data_worker(number: int) -> None:
        """A forked worker inherits this handler: it leaves Ctrl-C to the run, and obeys the run's SIGTERM."""
        if number == signal.SIGTERM:
            os._exit(0)
