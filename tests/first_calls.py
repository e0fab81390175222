"""Run-time types, checked at the first calls of each function within a test: shapes rarely change after these.

`--jaxtyping-packages` names `first_calls.checked` as its type checker, and `conftest.py` begins anew with every test.
Checked at every call, functions that are called a thousand times a test would take most of the suite's time.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from beartype import beartype

CALLS = 4
_checked: list[Callable[[], None]] = []
_left_alone: list[Any] = []


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The type checker that jaxtyping applies: beartype's, which sees to it that it isn't asked for ever."""
    strict, calls = beartype(function), 0

    def forget() -> None:
        nonlocal calls
        calls = 0

    @functools.wraps(function)
    def first(*given: Any, **named: Any) -> Any:
        nonlocal calls
        if not calls:
            _checked.append(forget)
        calls += 1
        if calls > CALLS:
            _leave_alone(function)
        return strict(*given, **named)

    return first


def begin_anew() -> None:
    """Lets every function be checked again."""
    while _checked:
        _checked.pop()()
    while _left_alone:
        del _left_alone.pop().__no_type_check__


def _leave_alone(function: Callable[..., Any]) -> None:
    """Tells jaxtyping to call a function without a check, where it is found by its name."""
    for one in _unwrapped(function):
        if not hasattr(one, "__no_type_check__"):
            one.__no_type_check__ = True
            _left_alone.append(one)


def _unwrapped(function: Callable[..., Any]) -> Iterator[Any]:
    """What a module holds under a function's name, and the plain functions inside of it."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    while found is not None:
        if type(found) is type(checked):
            yield found
        inside = (getattr(found, part, None) for part in ("fget", "__func__", "__wrapped__"))
        found = next((one for one in inside if one is not None), None)
