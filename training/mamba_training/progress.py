"""What a user sees of a run: a bar in a terminal, a plain line now and then in a log file, and notes between them."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from mamba_training.ranks import is_first_process

Units = Callable[[Mapping[str, Any]], str]
"""Turns the step's metrics (at least `loss`, in nats) into the words shown in the progress."""

_WINDOW_SECONDS = 20.0
_REDRAW_SECONDS = 0.2


def say(text: str) -> None:
    """Tell the user one line on stderr; of processes that train together only the first speaks."""
    if is_first_process():
        print(text, file=sys.stderr)


def nats_and_bits(metrics: Mapping[str, Any]) -> str:
    """`loss 1.3412 nats, 1.9350 bits/base`, with the latest validation beside it: the usual words for DNA."""
    loss = metrics.get("loss", math.nan)
    text = f"loss {loss:.4f} nats, {loss / math.log(2):.4f} bits/base"
    if (held_out := metrics.get("val_loss")) is not None:
        text += f", val {held_out / math.log(2):.4f}"
    return text


def clock(seconds: float | int) -> str:
    """`0:00:07`, `1:02:03`: seconds for people."""
    if not math.isfinite(seconds):
        return "-:--:--"
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def amount(number: float | int) -> str:
    """`950`, `12.3k`, `4.56M`: at least three digits of a number."""
    for limit, divisor, suffix in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (math.inf, 1e9, "G")):
        if number < limit:
            return f"{number / divisor:.3g}{suffix}"
    return str(number)


@dataclass(frozen=True)
class Moment:
    """A run at one step.

    Args:
        step, total: optimizer steps done, and in all (None while unknown).
        tokens: trained on so far.
        seconds: of the run so far, earlier sessions included.
        limit: seconds after which the run ends, or None.
        lr: the learning rate.
        metrics: the latest values, `loss` in nats among them.
    """

    step: int
    total: int | None
    tokens: int
    seconds: float
    limit: float | int | None
    lr: float
    metrics: Mapping[str, Any]


class Reporter:
    """Shows a run's progress and notes on one console.

    Args:
        enabled: show progress; notes are shown in any case.
        units: the words for the metrics.
        every: seconds between two plain lines where the console is no terminal.
        console: where to write; stderr by default.
    """

    def __init__(
        self,
        enabled: bool = True,
        units: Units = nats_and_bits,
        every: float | int = 10.0,
        console: Console | None = None,
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._enabled, self._units, self._every = enabled, units, every
        self._live: Progress | None = None
        self._task = None
        self._drawn_at = -math.inf
        self._pace: deque[tuple[float, int, int]] = deque(maxlen=64)

    def note(self, text: str) -> None:
        """One line for the user, above the bar if there is one."""
        self.console.print(text, markup=False, soft_wrap=True)

    def start(self) -> None:
        """Draw the bar, if this is a terminal."""
        if self._enabled and self.console.is_terminal:
            columns: list[ProgressColumn] = [
                BarColumn(bar_width=20),
                _Steps(),
                TextColumn("{task.fields[words]}", markup=False),
            ]
            self._live = Progress(*columns, console=self.console, refresh_per_second=2, transient=False)
            self._task = self._live.add_task("", total=None, words="starting")
            self._live.start()

    def stop(self) -> None:
        """Take the bar away, leaving its last state."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, moment: Moment, *, final: bool = False) -> None:
        """Show this step, if the last drawing is long enough ago."""
        now = time.monotonic()
        wait = _REDRAW_SECONDS if self._live is not None else self._every
        if not self._enabled or (now - self._drawn_at < wait and not final):
            return
        self._drawn_at = now
        self._pace.append((now, moment.step, moment.tokens))
        while len(self._pace) > 2 and now - self._pace[0][0] > max(_WINDOW_SECONDS, 2 * self._every):
            self._pace.popleft()
        words = self._words(moment)
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=moment.step, total=moment.total, words=words)
        else:
            of = "" if moment.total is None else f"/{moment.total:,}"
            self.note(f"step {moment.step:,}{of}  {words}")

    def _words(self, moment: Moment) -> str:
        (t0, step0, tokens0), (t1, step1, tokens1) = self._pace[0], self._pace[-1]
        speed, left = "", math.inf
        if t1 > t0 and step1 > step0:
            speed = f"{amount((tokens1 - tokens0) / (t1 - t0))} tokens/s, "
            if moment.total is not None:
                left = (moment.total - moment.step) * (t1 - t0) / (step1 - step0)
        if moment.limit is not None:
            left = min(left, max(0.0, moment.limit - moment.seconds))
        shown = self._units(moment.metrics)
        return f"{shown}, {speed}lr {moment.lr:.2e}, {clock(moment.seconds)} gone, {clock(left)} left"


class _Steps(ProgressColumn):
    """`120/4,000`, or `120` while the run's length is unknown."""

    def render(self, task: Task) -> Text:
        of = "" if task.total is None else f"/{int(task.total):,}"
        return Text(f"{int(task.completed):,}{of}")
