"""The demo's picture: how the language model learned, and what the classifier made of each fragment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genomamba.language_model.card import CURVES
from mamba_data_prep.atomic import atomic_write
from mamba_training.learning_curve import plot_learning_curve

# Okabe and Ito's colours, which people who don't see red or green can tell apart.
_LABELS = ("million bases read", "bits per base (lower is better)")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def read_predictions(path: Path) -> pd.DataFrame:
    """The table of predictions, with the species that each fragment's name tells as a column `truth`."""
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    return table.assign(truth=table["seq_id"].str.partition(":")[0])


def recognised(path: Path) -> tuple[int, int]:
    """How many fragments were given their own species, and how many there are."""
    table = read_predictions(path)
    return int(np.count_nonzero(table["predicted"].to_numpy() == table["truth"].to_numpy())), len(table)


def draw(out: Path) -> Path:
    """Draw `predictions.png` in the demo's folder from the files that the commands wrote there; returns its path."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.9])
    _learning_curve(left, out / "pretrain")
    _probabilities(right, read_predictions(out / "predictions.tsv"))
    path = out / "predictions.png"
    with atomic_write(path, "wb") as file:
        figure.savefig(file, dpi=150, format="png")
    return path


def _learning_curve(axes: Axes, run: Path) -> None:
    """Bits per base on held-out DNA against the bases read: this model's and the best Markov model's."""
    plot_learning_curve(axes, [run / "metrics.csv"], replace(CURVES, unit=1e6, labels=_LABELS))
    axes.set_title("Learning human DNA")
    axes.spines[["top", "right"]].set_visible(False)


def _probabilities(axes: Axes, table: pd.DataFrame) -> None:
    """One bar a fragment, grouped by true species, shortest first; its colours are the model's probabilities."""
    classes = [name.removeprefix("prob_") for name in table.columns if name.startswith("prob_")]
    table = table.assign(order=table["truth"].map(classes.index)).sort_values(["order", "length"])
    bottom = np.zeros(len(table))
    for name, colour in zip(classes, COLOURS, strict=False):
        height = table[f"prob_{name}"].to_numpy(float)
        axes.bar(np.arange(len(table)), height, bottom=bottom, width=0.9, color=colour, label=name)
        bottom += height
    for index, name in enumerate(classes):
        place = np.flatnonzero(table["order"].to_numpy() == index)
        right = int((table["predicted"].to_numpy()[place] == name).sum())
        axes.text(place.mean(), 1.02, f"{name}\n{right} of {len(place)}", ha="center", va="bottom", fontsize=9)
        axes.axvline(place.max() + 0.5, color="white", linewidth=3)
    axes.set(xlim=(-0.6, len(table) - 0.4), ylim=(0, 1), xticks=[], ylabel="probability")
    axes.set_xlabel("fragments, by true species (above: how many were right), from 300 to 4,000 bases")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(classes), frameon=False, title="predicted")
    axes.spines[["top", "right"]].set_visible(False)
