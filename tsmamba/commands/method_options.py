"""What the options of methods and intervals mean, checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence

from tsmamba.config import LEVELS


def quantile_levels(percents: Sequence[float]) -> tuple[float, ...]:
    """The quantile levels that bound central intervals of these widths, with the median."""
    if not percents:
        return LEVELS
    tails = [round((1 - percent / 100) / 2, 6) for percent in percents]
    return tuple(sorted({*tails, 0.5, *(round(1 - tail, 6) for tail in tails)}))


def check_method(name: str) -> None:
    """Refuses a method's name before anything is read.

    Raises:
        UserError: there is no such method.
    """
    from tsmamba.methods.methods import METHODS, no_such_method

    if name != "auto" and name not in METHODS:
        raise no_such_method(name)
