"""The picture of a study: values with their intervals, against a length or beside names."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mamba_data_prep.atomic import atomic_write

_MARKS = "osD^vPX*"
_WIDEST_NAME = 40
"""Letters of a name in one line; a path that is one word is broken too."""


@dataclass(frozen=True)
class Line:
    """Values under one name.

    Attributes:
        name: in the legend.
        x: where they stand: lengths in bases, or names.
        y: the values.
        intervals: (low, high) of each, or None without.
    """

    name: str
    x: Sequence[int | str]
    y: Sequence[float]
    intervals: Sequence[tuple[float, float]] | None = None


@dataclass(frozen=True)
class Chart:
    """Lines on common axes.

    Attributes:
        lines: lengths are drawn on a logarithmic axis, names one below the other.
        x, y: what the axes are called.
        reference: a value to compare with, and what it is called.
    """

    lines: Sequence[Line]
    x: str
    y: str
    reference: tuple[float, str] | None = None


def draw(chart: Chart, picture: Path, title: str) -> None:
    """Draws a chart into a PNG, which appears whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = all(isinstance(at, str) for line in chart.lines for at in line.x)
    names = list(dict.fromkeys(at for line in chart.lines for at in line.x)) if named else []
    figure = Figure(figsize=(7.5, max(3.6, 0.42 * len(names) + 1.6) if named else 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, line in enumerate(chart.lines):
        low_high = line.intervals or [(value, value) for value in line.y]
        error = [[max(y - low, 0) for y, (low, _) in zip(line.y, low_high, strict=True)],
                 [max(high - y, 0) for y, (_, high) in zip(line.y, low_high, strict=True)]]  # fmt: skip
        style = {"marker": _MARKS[number % len(_MARKS)], "capsize": 3, "label": line.name, "markersize": 5}
        if named:
            shift = 0.16 * (number - (len(chart.lines) - 1) / 2)
            places = [len(names) - 1 - names.index(at) + shift for at in line.x]
            axes.errorbar(line.y, places, xerr=error, linestyle="none", **style)
        else:
            axes.errorbar(line.x, line.y, yerr=error, linewidth=1, **style)
    if named:
        shown = ["\n".join(textwrap.wrap(str(name), _WIDEST_NAME)) for name in reversed(names)]
        axes.set_yticks(range(len(names)), shown)
        axes.set(xlabel=chart.y)
    else:
        axes.set_xscale("log", base=2)
        axes.set(xlabel=chart.x, ylabel=chart.y)
    if chart.reference is not None:
        mark = axes.axvline if named else axes.axhline
        mark(chart.reference[0], color="grey", linestyle=":", label=chart.reference[1])
    axes.set_title(title)
    axes.legend(fontsize="small")
    with atomic_write(picture, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
