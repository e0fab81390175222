"""Pictures of a classifier's scores, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from genomamba.classifier.metrics import Metrics
from mamba_data_prep.atomic import atomic_write

_BLUE, _GREY = "#1f77b4", "#888888"
_MOST_NUMBERS = 12


def plot_confusion(path: Path, metrics: Metrics, classes: Sequence[str]) -> None:
    """Share of each true class (row) that was given each class (column), with the counts where there is room."""
    counts = np.array(metrics.confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2.2 + 0.55 * min(len(classes), 20)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axes.set_xticks(range(len(classes)), [_safe(c) for c in classes], rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), [_safe(c) for c in classes])
    axes.set(xlabel="predicted", ylabel="true", title=f"{metrics.n:,} test examples, MCC {metrics.mcc:.3f}")
    if len(classes) <= _MOST_NUMBERS:
        for i, j in np.ndindex(counts.shape):
            axes.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", color="w" if shares[i, j] > 0.5 else "k")
    _save(figure, path)


def plot_reliability(path: Path, metrics: Metrics) -> None:
    """Accuracy against confidence of the predicted class; on the diagonal, confidences are honest."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    bins = metrics.reliability
    largest = max((b.count for b in bins), default=1)
    axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], color=_BLUE, linewidth=1)
    sizes = [10 + 150 * b.count / largest for b in bins]
    axes.scatter([b.confidence for b in bins], [b.accuracy for b in bins], s=sizes, color=_BLUE)
    title = f"ECE {metrics.ece:.3f}, Brier {metrics.brier:.3f}"
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=title)
    _save(figure, path)


def _safe(name: str) -> str:
    """A label that Matplotlib does not read as mathematics."""
    shown = name if len(name) <= 24 else name[:23] + "."
    return shown.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)
