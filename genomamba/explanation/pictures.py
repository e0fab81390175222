"""Pictures of an explanation: a sequence's letters as tall as they matter, and what the layers remember."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.ticker import StrMethodFormatter
from matplotlib.transforms import Affine2D

from mamba_data_prep.atomic import atomic_write

COLOURS = {"A": "#009E73", "C": "#0072B2", "G": "#E69F00", "T": "#D55E00"}
"""Okabe and Ito's, which people who don't see red or green can tell apart."""
_LOGO_BASES = 80
_WORDS_SHOWN = 16
_SEEN = 5
"""Words that were met less often are not shown."""


def draw_logo(axes: Axes, letters: str, heights: Float64[np.ndarray, " L"], first: int = 0) -> None:
    """Draws letters as tall as their values, those below zero upside down below the line.

    Args:
        axes: where to.
        letters: bases.
        heights: a value for each; NaN draws nothing.
        first: place of the first letter on the axis.
    """
    font = FontProperties(family="DejaVu Sans", weight="bold")
    for place, (letter, height) in enumerate(zip(letters, np.nan_to_num(heights), strict=True)):
        if not height or letter not in COLOURS:
            continue
        shape = TextPath((0, 0), letter, size=1, prop=font)
        box = shape.get_extents()
        fitted = Affine2D().translate(-box.x0, -box.y0).scale(0.92 / box.width, height / box.height)
        moved = fitted.translate(first + place - 0.46, 0)
        axes.add_patch(PathPatch(moved.transform_path(shape), facecolor=COLOURS[letter], linewidth=0))
    low, high = min(0.0, float(np.nanmin(heights, initial=0))), max(0.0, float(np.nanmax(heights, initial=0)))
    room = 0.05 * max(high - low, 1e-9)
    axes.set(xlim=(first - 0.6, first + len(letters) - 0.4), ylim=(low - room, high + room))
    axes.axhline(0, color="k", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def strongest_stretch(values: Float64[np.ndarray, " L"], width: int = _LOGO_BASES) -> tuple[int, int]:
    """The stretch of so many bases in which absolute values are greatest in sum."""
    width = min(width, len(values))
    sums = np.cumsum(np.concatenate([[0.0], np.abs(np.nan_to_num(values))]))
    start = int(np.argmax(sums[width:] - sums[: len(sums) - width]))
    return start, start + width


def draw_record(
    path: Path,
    *,
    title: str,
    letters: str,
    offset: int,
    importance: dict[str, Float64[np.ndarray, " L"]],
    mutations: Float64[np.ndarray, "L 4"] | None,
    opened: Float64[np.ndarray, "layers L"] | None,
) -> None:
    """One sequence: each method's track, the strongest stretch as a logo with all mutations, and the states' openness.

    Args:
        path: a `.png`; the same picture is written as `.svg` beside it.
        title: what is explained, and where.
        letters: the bases.
        offset: place of the first base in its record, 0-based.
        importance: a value for each base, by method, the one of the logo first.
        mutations: see `attribution.mutagenesis`.
        opened: see `remembered.openness`.
    """
    heights = [1.0] * len(importance) + ([1.4] if importance else [])
    heights += [0.8] if mutations is not None else []
    heights += [1.3] if opened is not None and len(opened) else []
    figure = Figure(figsize=(12, 1.2 + 1.25 * sum(heights)), layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(len(heights), 1, height_ratios=heights)))
    figure.suptitle(title.replace("$", r"\$"), fontsize=10)
    place = np.arange(offset + 1, offset + len(letters) + 1)
    for name, values in importance.items():
        axes = panels.pop(0)
        axes.fill_between(place, 0, np.nan_to_num(values), step="mid", color="#555555", linewidth=0)
        axes.set(xlim=(place[0] - 0.5, place[-1] + 0.5), ylabel=name)
        axes.spines[["top", "right"]].set_visible(False)
    if importance:
        name, values = next(iter(importance.items()))
        start, end = strongest_stretch(values)
        for axes in figure.axes[: len(importance)]:
            axes.axvspan(place[start] - 0.5, place[end - 1] + 0.5, color="#56B4E9", alpha=0.2, linewidth=0)
        axes = panels.pop(0)
        draw_logo(axes, letters[start:end], values[start:end], offset + 1 + start)
        axes.set_ylabel(f"{name}\n(blue stretch)")
        if mutations is not None:
            axes = panels.pop(0)
            part = mutations[start:end].T
            most = float(np.nanmax(np.abs(part), initial=1e-9))
            extent = (offset + 0.5 + start, offset + 0.5 + end, 3.5, -0.5)
            image = axes.imshow(part, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", extent=extent)
            axes.set_yticks(range(4), "ACGT")
            axes.set_ylabel("mutated to")
            figure.colorbar(image, ax=axes, label="bits", pad=0.01)
    if opened is not None and len(opened):
        axes = panels.pop(0)
        most = float(np.quantile(np.abs(opened), 0.99)) or 1.0
        extent = (place[0] - 0.5, place[-1] + 0.5, len(opened) - 0.5, -0.5)
        image = axes.imshow(opened, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto", extent=extent)
        axes.set(ylabel="layer", xlabel="base")
        figure.colorbar(image, ax=axes, label="openness", pad=0.01)
    else:
        figure.axes[-1].set_xlabel("base")
    for axes in figure.axes:
        if axes.get_label() != "<colorbar>":
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.yaxis.label.set_fontsize(8)
    _save(figure, path)


def draw_memory(path: Path, channels: pd.DataFrame, words: pd.DataFrame) -> None:
    """How long the channels of each layer hold a base, and after which words of three bases its states open.

    Args:
        path: a `.png`; the same picture is written as `.svg` beside it.
        channels: see `remembered.channel_table`.
        words: see `remembered.word_table`.
    """
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    layers = sorted(channels["layer"].unique())
    for shift, (column, colour) in zip((-0.2, 0.2), (("middle", "#0072B2"), ("longest", "#E69F00")), strict=True):
        held = [channels.loc[channels["layer"] == layer, column].to_numpy(float) for layer in layers]
        low, middle, high = np.array([np.quantile(one, [0.05, 0.5, 0.95]) for one in held]).T
        at = np.arange(len(layers)) + shift
        left.vlines(at, low, high, color=colour, linewidth=4, alpha=0.5)
        left.plot(at, middle, "o", color=colour, label=f"{column} of a channel's states")
    left.set(yscale="log", xlabel="layer", ylabel="bases held to 1/e", title="How long is a base remembered?")
    left.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    left.legend(frameon=False, fontsize=8)
    left.grid(axis="y", alpha=0.3)
    left.spines[["top", "right"]].set_visible(False)
    often = words["n"] >= min(_SEEN, words["n"].max())
    table = words[often].pivot_table(index="layer", columns="word", values="openness")
    spread = table.abs().max().sort_values(ascending=False).index[:_WORDS_SHOWN]
    shown = table[spread]
    most = float(np.nanmax(np.abs(shown.to_numpy()), initial=1e-9))
    image = right.imshow(shown, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
    right.set_xticks(range(shown.shape[1]), list(shown.columns), rotation=90, family="monospace")
    right.set_yticks(range(len(shown)), [str(layer) for layer in shown.index])
    right.set(ylabel="layer", title="After which bases does the state open (+) or stay closed (-)?")
    figure.colorbar(image, ax=right, label="log2 of the step over its median")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    for ending in ("png", "svg"):
        with atomic_write(path.with_suffix(f".{ending}"), "wb") as file:
            figure.savefig(file, format=ending, dpi=130)
