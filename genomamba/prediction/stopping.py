"""What stops a long piece of work, at a place where what is done can be kept: Ctrl-C, SIGTERM, a refused input."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mamba_data_prep.errors import UserError

T = TypeVar("T")


class InputRefused(Exception):
    """The input is refused where it has been read to; `error` is what is said of it."""

    def __init__(self, error: UserError) -> None:
        super().__init__(str(error))
        self.error = error


def until_refused(made: Iterable[T]) -> Iterator[T]:
    """Passes on what is made of an input, and tells its errors apart from those of writing the results.

    Raises:
        InputRefused: making the next one ended in a `UserError`.
    """
    try:
        yield from made
    except UserError as error:
        raise InputRefused(error) from None


def as_far_as_read(made: Iterable[T], refused: list[UserError]) -> Iterator[T]:
    """Ends where reading on is refused, and puts what is said of it aside: what was read comes first."""
    try:
        yield from made
    except UserError as error:
        refused.append(error)


@contextmanager
def stoppable() -> Iterator[Callable[[], Any]]:
    """Lets Ctrl-C and SIGTERM raise `KeyboardInterrupt`, at once or after a block that the given context keeps whole.

    Only the first one does: what it interrupts is then put away undisturbed. Only a main thread can arrange that; in
    others the signals do what they did.

    Example:
        with stoppable() as whole:
            for rows in found:
                with whole():
                    write(rows)
    """
    asked: list[str] = []
    shielded = False

    def stop(number: int, frame: object) -> None:
        asked.append("SIGTERM" if number == signal.SIGTERM else "the keyboard")
        if len(asked) == 1 and not shielded:
            raise KeyboardInterrupt(asked[0])

    @contextmanager
    def whole() -> Iterator[None]:
        nonlocal shielded
        shielded = True
        try:
            yield
        finally:
            shielded = False
        if asked:
            raise KeyboardInterrupt(asked[0])

    with _handled(stop):
        yield whole


@contextmanager
def unstoppable() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM do nothing, for the short time in which something is put away."""
    with _handled(lambda number, frame: None):
        yield


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)
