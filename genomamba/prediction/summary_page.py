"""The page of a classification: how many of each class, how sure, how long, and what the model promised of itself."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from genomamba.prediction.read_table import read_predictions
from genomamba.prediction.rows import ABSTAIN, Predictions
from mamba_training import web_page as web

_BINS: Final = 20
_MOST_CLASSES: Final = 12
"""Classes that are drawn; the commonest ones where there are more."""
_LONGEST: Final = 48
_BLUE: Final = "#1f77b4"


@dataclass
class Tallies:
    """What is counted of a table, in memory that does not grow with it.

    Attributes:
        classes: of the model.
        counts: rows of each class, and of "abstain".
        reasons: rows of each reason to abstain.
        bases: of each class and of "abstain".
        confidences: (C, bins) rows by predicted class and confidence.
        lengths: (bins, C + 1) rows by power of two of the length and class, "abstain" last.
    """

    classes: tuple[str, ...]
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bases: Counter[str] = field(default_factory=Counter)
    confidences: np.ndarray = field(init=False)
    lengths: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.confidences = np.zeros((len(self.classes), _BINS), np.int64)
        self.lengths = np.zeros((_LONGEST, len(self.classes) + 1), np.int64)

    def add(self, rows: Predictions) -> None:
        """Counts some rows."""
        number = {name: place for place, name in enumerate((*self.classes, ABSTAIN))}
        place, length = np.array([number[name] for name in rows.predicted]), rows.end - rows.start
        self.counts.update(rows.predicted)
        self.reasons.update(filter(None, rows.reason))
        for name, at in number.items():
            self.bases[name] += int(length[place == at].sum())
        doubling = np.log2(np.maximum(length, 1)).astype(int)
        np.add.at(self.lengths, (doubling, place), 1)
        named = place < len(self.classes)
        step = np.minimum((rows.confidence[named] * _BINS).astype(int), _BINS - 1)
        np.add.at(self.confidences, (place[named], step), 1)


def write_summary_page(
    path: Path, table: Path, title: str, facts: Mapping[str, Any], promised: Mapping[str, Any]
) -> None:
    """Writes the page of a table that `genomamba classify` or `rethreshold` wrote.

    Args:
        path: an `.html`.
        table: read again, chunk by chunk.
        title: of the page.
        facts: what the rows were made from, by what and how.
        promised: the model's scores on its own test split, by name; empty where they are not known.
    """
    tallies = tallied(read_predictions(table))
    parts = [web.table(["", ""], [[name, str(value)] for name, value in facts.items()])]
    parts += [web.heading("Classes"), *_classes(tallies)]
    if tallies.reasons:
        parts.append(web.table(["why rows abstain", "rows"], tallies.reasons.most_common()))
    parts += [web.heading("Confidence"), web.picture(_confidence_picture(tallies), "confidence by class")]
    parts += [web.heading("By length"), _by_length(tallies)]
    if promised:
        parts += [
            web.heading("What the model reached on its own test split"),
            web.table([name.replace("_", " ") for name in promised], [list(promised.values())]),
            web.words("Other sequences than those it was tested on may be classified worse, and surely."),
        ]
    web.write_page(path, title, parts)


def tallied(chunks: Iterator[Predictions]) -> Tallies:
    """Counts the rows of a table."""
    tallies = None
    for rows in chunks:
        tallies = tallies or Tallies(rows.classes)
        tallies.add(rows)
    return tallies or Tallies(())


def _classes(tallies: Tallies) -> list[str]:
    total = sum(tallies.counts.values())
    rows = []
    for place, name in enumerate((*tallies.classes, ABSTAIN)):
        count = tallies.counts[name]
        sure = tallies.confidences[place] if name != ABSTAIN else np.zeros(_BINS)
        mean = float(sure @ (np.arange(_BINS) + 0.5) / _BINS / sure.sum()) if sure.sum() else None
        rows.append([name, count, f"{count / max(total, 1):.1%}", tallies.bases[name], mean])
    rows.sort(key=lambda row: -row[1])
    return [
        web.words(f"{total:,} rows."),
        web.table(["class", "rows", "share", "bases", "mean confidence (bins of 0.05)"], rows),
    ]


def _by_length(tallies: Tallies) -> str:
    names = [name for name, _ in tallies.counts.most_common(_MOST_CLASSES)]
    places = [(*tallies.classes, ABSTAIN).index(name) for name in names]
    rows = [
        [f"{2**doubling:,} to {2 ** (doubling + 1) - 1:,}", int(counts.sum()), *(int(counts[at]) for at in places)]
        for doubling, counts in enumerate(tallies.lengths)
        if counts.any()
    ]
    return web.table(["bases", "rows", *names], rows)


def _confidence_picture(tallies: Tallies) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = sorted(range(len(tallies.classes)), key=lambda at: -int(tallies.confidences[at].sum()))[:_MOST_CLASSES]
    columns = min(3, max(1, len(order)))
    down = max(1, -(-len(order) // columns))
    figure = Figure(figsize=(3.4 * columns, 2.2 * down), layout="constrained")
    FigureCanvasAgg(figure)
    middles = (np.arange(_BINS) + 0.5) / _BINS
    for axes, at in zip(figure.subplots(down, columns, squeeze=False, sharex=True).ravel(), order, strict=False):
        axes.bar(middles, tallies.confidences[at], width=1 / _BINS, color=_BLUE)
        axes.set_title(_safe(tallies.classes[at]), fontsize="medium")
        axes.set(xlim=(0, 1), xlabel="confidence", ylabel="rows")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _safe(name: str) -> str:
    """A label that Matplotlib does not read as mathematics."""
    return (name if len(name) <= 32 else f"{name[:31]}.").replace("$", r"\$")
