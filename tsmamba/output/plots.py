"""Pictures of series and their forecasts, drawn without a display."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.series import SeriesFrame
from mamba_data_prep.series.times.frequency import to_wall
from tsmamba.evaluation import metrics
from tsmamba.evaluation.backtest import Backtest
from tsmamba.panel.forecast import Forecast

_INK, _BLUE, _GREY, _ORANGE = "#222222", "#1f77b4", "#999999", "#d95f02"
_MOST_PANELS = 12
_SHADES = {0: 0.16, 1: 0.24, 2: 0.32}
_FURTHER_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS",
)  # fmt: skip
"""Fonts of Linux, Windows and macOS for names in scripts that the usual one lacks."""


@functools.cache
def _fonts() -> list[str]:
    """The usual font, and behind it those at hand that know more scripts."""
    here = set(get_font_names())
    return ["DejaVu Sans", *(name for name in _FURTHER_FONTS if name in here)]


def forecast_figure(frame: SeriesFrame, forecast: Forecast, title: str, past: Backtest | None = None) -> Figure:
    """One panel a series (the first 12): its recent past, the forecast and its intervals.

    Args:
        frame: the series.
        forecast: what follows them.
        title: of the figure.
        past: a backtest whose latest forecast that ends at the series' end is drawn over what came.
    """
    ids = list(forecast.ids)[:_MOST_PANELS]
    columns = 1 if len(ids) <= 3 else (2 if len(ids) <= 8 else 3)
    rows = -(-len(ids) // columns)
    figure = Figure(
        figsize=(9.0 if columns == 1 else 5.6 * columns, (3.9 if rows == 1 else 2.7 * rows) + 0.7), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for place, one in enumerate(axes):
        if place < len(ids):
            _draw(one, frame, forecast, ids[place], past, legend=place == 0)
        else:
            one.set_axis_off()
    more = f" (the first {_MOST_PANELS} of {len(forecast.ids)} series)" if len(forecast.ids) > _MOST_PANELS else ""
    figure.suptitle(_safe(title + more, 110), fontsize=11, x=0.01, ha="left")
    return figure


def _draw(axes: Axes, frame: SeriesFrame, forecast: Forecast, name: str, past: Backtest | None, legend: bool) -> None:
    rows = frame.frame[frame.frame["unique_id"] == name]
    horizon = forecast.point.shape[1]
    every = np.asarray(rows["y"], np.float64)
    silent = len(every) - 1 - int(np.flatnonzero(np.isfinite(every))[-1])  # rows at the end without a value
    recent = max(4 * horizon, 48) + silent
    values = every[-recent:]
    times, ahead = _axis(np.asarray(rows["ds"])[-recent:], frame), _axis(_future(frame, name, horizon), frame)
    place = forecast.ids.index(name)
    point, quantiles = forecast.point[place], forecast.quantiles[place]
    mark: dict[str, Any] = {"marker": "o", "markersize": 3} if len(ahead) <= 2 else {}
    axes.plot(times, values, color=_INK, linewidth=1.1, label="observed")
    alone, shown = _alone(values), [values, point]
    axes.plot(times[alone], values[alone], color=_INK, linestyle="none", marker=".", markersize=4)
    if past is not None and name in past.ids and past.horizon in past.steps_back and len(rows) > past.horizon:
        unseen = past.point[past.steps_back.index(past.horizon), past.ids.index(name)]
        shown.append(unseen)
        axes.plot(
            _axis(np.asarray(rows["ds"])[-past.horizon :], frame), unseen, color=_ORANGE,
            linewidth=1.0, linestyle="--", label="forecast of the last stretch, unseen",
        )  # fmt: skip
    for shade, (percent, (low, high)) in enumerate(sorted(metrics.intervals(forecast.levels).items(), reverse=True)):
        axes.fill_between(
            ahead, quantiles[:, low], quantiles[:, high], color=_BLUE, alpha=_SHADES.get(shade, 0.32), linewidth=0,
            label=f"{percent:g} % interval",
        )  # fmt: skip
    axes.plot(ahead, point, color=_BLUE, linewidth=1.4, label="forecast", **mark)
    axes.axvline(times[-1], color=_GREY, linewidth=0.8, linestyle=":")
    axes.set_title(_safe(name, 60), fontsize=9.5, loc="left")
    axes.grid(True, color="#e6e6e6", linewidth=0.6)
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    _keep_history_legible(axes, np.concatenate(shown), quantiles)
    if np.issubdtype(times.dtype, np.datetime64):
        locator = AutoDateLocator(minticks=3, maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if legend:
        axes.legend(fontsize=7.5, frameon=False, loc="upper left", ncols=2)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.22 * (high - low))


def _alone(values: np.ndarray) -> np.ndarray:
    """Observed values without an observed neighbour, which a line does not show."""
    seen = np.concatenate([[False], np.isfinite(values), [False]])
    return seen[1:-1] & ~seen[:-2] & ~seen[2:]


def _tick(value: float | int, place: int | None) -> str:
    """A number on an axis, with marks between thousands and without powers of ten."""
    return f"{value:,.10g}"


def _keep_history_legible(axes: Axes, lines: np.ndarray, quantiles: np.ndarray) -> None:
    """Limits the axis where a wide interval would press the lines flat, and says how far that reaches."""
    core = lines[np.isfinite(lines)]
    if not len(core):
        return
    low, high = float(core.min()), float(core.max())
    size = (high - low) or 0.1 * abs(low) or 1.0
    ends = quantiles[np.isfinite(quantiles)]
    least, most = (min(low, float(ends.min())), max(high, float(ends.max()))) if len(ends) else (low, high)
    bottom, top = max(least, low - 1.5 * size), min(most, high + 1.5 * size)
    for cut, end, edge, side in ((most > top, most, 0.99, "top"), (least < bottom, least, 0.01, "bottom")):
        if cut:
            axes.text(
                0.995, edge, f"interval to {end:,.4g}", transform=axes.transAxes, fontsize=7.5, color=_BLUE,
                ha="right", va=side,
            )  # fmt: skip
    margin = 0.05 * max(top - bottom, size)
    axes.set_ylim(bottom - margin, top + margin)


def coverage_figure(past: Backtest) -> Figure:
    """Coverage of each interval and the mean error, step by step ahead."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    scores = past.scores(axis=(0, 1))
    steps = np.arange(1, past.horizon + 1)
    for percent in metrics.intervals(past.levels):
        left.axhline(percent, color=_GREY, linewidth=0.8, linestyle=":")
        left.plot(steps, 100 * scores[f"coverage_{percent:g}"], marker=".", label=f"{percent:g} % interval")
    left.set(xlabel="step ahead", ylabel="values inside, %", ylim=(0, 104), title="Coverage on past rows")
    left.legend(fontsize=8, frameon=False, loc="lower left")
    right.plot(steps, scores["mase"], marker=".", color=_BLUE)
    right.set(xlabel="step ahead", ylabel="MASE", title="Error on past rows")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.title.set_fontsize(10)
        axes.grid(True, color="#e6e6e6", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, SVG, or a page that holds it; the file appears whole or not at all."""
    if path.suffix.lower() == ".html":
        page = f"<!doctype html><meta charset='utf-8'><title>{path.stem}</title>{svg(figure)}"
        with atomic_write(path) as file:
            file.write(page)
        return
    with atomic_write(path, "wb") as file:
        _render(figure, file, format=path.suffix.lower()[1:], dpi=130)


def svg(figure: Figure) -> str:
    """The figure as an SVG element for a page."""
    file = io.StringIO()
    _render(figure, file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def _render(figure: Figure, file: Any, **options: Any) -> None:
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_fontfamily(_fonts())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box in the picture says it
        figure.savefig(file, **options)


def _future(frame: SeriesFrame, name: str, horizon: int) -> np.ndarray:
    last = frame.frame.loc[frame.frame["unique_id"] == name, "ds"].iloc[-1]
    return frame.frequency.extend(last, horizon)


def _axis(times: Sequence[Any] | np.ndarray, frame: SeriesFrame) -> np.ndarray:
    """Times on the source's clock, as an axis shows them."""
    values = np.asarray(times)
    return to_wall(values, frame.zone) if np.issubdtype(values.dtype, np.datetime64) else values


def _safe(name: str, most: int) -> str:
    """A label that Matplotlib does not read as mathematics."""
    shown = name if len(name) <= most else name[: most - 1] + "."
    return shown.replace("$", r"\$")
