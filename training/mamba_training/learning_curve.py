"""The learning curve of one or several runs, drawn from their `metrics.csv` without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mamba_data_prep.atomic import atomic_write
from mamba_training.metrics_log import read_rows

__all__ = ["Curves", "draw_learning_curve", "plot_learning_curve"]

_COLOURS = ("tab:red", "black", "tab:orange", "tab:green")


@dataclass(frozen=True)
class Curves:
    """What a picture of a run shows.

    Attributes:
        x: the column along the axis, `step` or `tokens`.
        unit: by which `x` is divided.
        nats: by which the loss is divided: 1 shows nats, log 2 bits.
        held_out: further columns and what they are called; each is drawn where it has values.
        labels: of the axes.
        guess: the value of guessing, drawn as a dotted line; None draws none.
    """

    x: str = "step"
    unit: float = 1.0
    nats: float = 1.0
    held_out: Mapping[str, str] = field(default_factory=lambda: {"val_loss": "validation"})
    labels: tuple[str, str] = ("step", "loss, nats")
    guess: float | None = None


def draw_learning_curve(picture: Path, logs: Sequence[Path], curves: Curves, *, title: str = "") -> None:
    """Draw runs into a PNG, which appears whole or not at all.

    Args:
        picture: the file.
        logs: each run's `metrics.csv`; one that isn't there is left out.
        curves: what is shown.
        title: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    plot_learning_curve(axes, logs, curves)
    axes.set_title(title)
    with atomic_write(picture, "wb") as file:
        figure.savefig(file, format="png", dpi=150)


def plot_learning_curve(axes: Any, logs: Sequence[Path], curves: Curves) -> None:
    """Draw runs into the axes of a Matplotlib figure: the loss smoothed, each step pale behind it, and validation."""
    lowest: list[float] = []
    for number, log in enumerate(path for path in logs if path.is_file()):
        rows = list(read_rows(log))
        place, loss = _column(rows, curves.x) / curves.unit, _column(rows, "loss") / curves.nats
        named = number == 0
        if len(logs) == 1:
            axes.plot(place, loss, color="0.82", linewidth=0.8, label="training, each step")
        axes.plot(place, _smooth(loss), color="tab:blue", linewidth=1.2, label="training, smoothed" if named else None)
        lowest += _smooth(loss)[len(loss) // 10 :].tolist()
        for (name, label), colour in zip(curves.held_out.items(), _COLOURS, strict=False):
            values = _column(rows, name)
            there = np.isfinite(values)
            axes.plot(place[there], values[there], "o-", color=colour, markersize=3, label=label if named else None)
            lowest += values[there].tolist()
    axes.set(xlabel=curves.labels[0], ylabel=curves.labels[1])
    if curves.guess is not None:
        axes.axhline(curves.guess, color="0.5", linestyle=":", linewidth=1, label="guessing")
        finite = [value for value in lowest if np.isfinite(value)]
        axes.set_ylim(min(finite, default=0.9 * curves.guess) - 0.05, curves.guess + 0.05)
    axes.legend(loc="upper right", fontsize=8)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    return np.array([float(row.get(name) or "nan") for row in rows])


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over a thirtieth of the run."""
    if not len(values):
        return values
    width = max(1, len(values) // 30)
    sums = np.concatenate([[0.0], values.cumsum()])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(0, last - width)
    return (sums[last] - sums[first]) / (last - first)
