"""What a run tells when it is over: the summary on the screen, the model card, and the learning curve."""

from __future__ import annotations

import math
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from genomamba.config import PretrainConfig
from mamba_configs.yaml_files import write_yaml
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.splits import Split
from mamba_data_prep.provenance import versions
from mamba_training.metrics_log import read_rows

GUESSING_BITS = 2.0


def summary(result: dict[str, Any]) -> str:
    """The comparison with the Markov model, as a table for the terminal."""
    rows = _rows(result)
    width = max(len(row[0]) for row in rows)
    lines = [f"{'':{width}}  {'validation':>10}  {'test':>10}  {'perplexity':>10}"]
    lines += [f"{name:{width}}  {valid:10.4f}  {test:10.4f}  {2**test:10.4f}" for name, valid, test in rows]
    ahead = result["markov"]["test_bits"] - result["test"]["bits"]
    verdict = f"{abs(ahead):.4f} bits per base {'better' if ahead > 0 else 'worse'} than the best Markov model on test"
    minutes, seconds = divmod(round(result["seconds"]), 60)
    return "\n".join(
        [
            f"bits per base on held-out windows of {result['window']:,} bases",
            *lines,
            verdict,
            f"{result['step']:,} steps, {result['tokens']:,} tokens, {minutes}:{seconds:02d} minutes; "
            f"model in {result['model']}",
        ]
    )


def _rows(result: dict[str, Any]) -> list[tuple[str, float, float]]:
    markov = result["markov"]
    return [
        (f"this model ({result['n_parameters']:,} parameters)", result["valid"]["bits"], result["test"]["bits"]),
        (
            f"Markov, order {markov['order']}, m = {markov['strength']:g}, same bases",
            markov["valid_bits"],
            markov["test_bits"],
        ),
        ("guessing", GUESSING_BITS, GUESSING_BITS),
    ]


def provenance(settings: PretrainConfig, genome: Genome, split: Split, result: dict[str, Any]) -> dict[str, Any]:
    """Everything needed to know, and to repeat, what a model was made from; plain values for JSON."""
    return {
        "genome": {
            "file": genome.path.name,
            "records": len(genome),
            "bases": int(genome.lengths.sum()),
            **genome.fingerprint.to_dict(),
        },
        "split": split.description,
        "settings": settings.model_dump(mode="json", exclude={"fasta", "bed", "content"}),
        "result": {key: value for key, value in result.items() if key not in ("out", "model")},
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def model_card(made: dict[str, Any]) -> str:
    """The model card, Markdown."""
    genome, result = made["genome"], made["result"]
    table = "\n".join(f"| {name} | {valid:.4f} | {test:.4f} | {2**test:.4f} |" for name, valid, test in _rows(result))
    settings = write_yaml(made["settings"])
    return f"""# DNA language model

Predicts the next base from the bases before it ({result["n_parameters"]:,} parameters, trained on windows of
{result["window"]:,} bases). Made by `{made["command"]}` on {made["created"]}.

## Data

`{genome["file"]}`: {genome["records"]:,} record(s), {genome["bases"]:,} bases, {genome["size"]:,} bytes,
xxh3-128 `{genome["xxh3_128"]}`.

Split (no base is in two parts): {_described(made["split"])}.

## Held-out figures

Bits per base on windows the model was not trained on; perplexity on the test windows. The Markov model is the best
interpolated one of orders 0 to 12, fitted on the same bases, its order and smoothing chosen on validation.

| | validation | test | perplexity |
|---|---|---|---|
{table}

{result["step"]:,} steps, {result["tokens"]:,} tokens, {result["seconds"]:,.0f} seconds; weights of step
{result["best_step"]:,}, the best on validation.

## Limits

It has seen one genome. It scores and represents DNA; it is no evidence of function, and nothing for clinical use.

## Settings

```yaml
{settings}```

## Versions

{", ".join(f"{name} {version}" for name, version in made["versions"].items())}
"""


def _described(split: dict[str, Any]) -> str:
    plain = {key: value for key, value in split.items() if isinstance(value, str | int | float | list)}
    return ", ".join(f"{key} {value}" for key, value in plain.items()) or "see config.json"


def draw_learning_curve(metrics: Path, picture: Path, *, title: str) -> None:
    """Draws bits per base against tokens: training, validation and the Markov model of the same bases.

    Args:
        metrics: the run's `metrics.csv`.
        picture: PNG to write.
        title: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(read_rows(metrics))
    tokens, loss = _column(rows, "tokens"), _column(rows, "loss") / math.log(2)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(tokens, loss, color="0.82", linewidth=0.8, label="training, each step")
    axes.plot(tokens, _smooth(loss), color="tab:blue", linewidth=1.2, label="training, smoothed")
    for name, style, color, label in (
        ("val_bits", "o-", "tab:red", "validation"),
        ("markov_bits", "--", "black", "best Markov model of the same bases"),
    ):
        values = _column(rows, name)
        there = np.isfinite(values)
        axes.plot(tokens[there], values[there], style, color=color, markersize=3, label=label)
    axes.axhline(GUESSING_BITS, color="0.5", linestyle=":", linewidth=1, label="guessing")
    shown = [values[np.isfinite(values)] for values in (_column(rows, "val_bits"), _smooth(loss)[len(loss) // 10 :])]
    low = min([float(values.min()) for values in shown if len(values)], default=1.8)
    axes.set(xlabel="tokens", ylabel="bits per base", title=title, ylim=(low - 0.05, GUESSING_BITS + 0.05))
    axes.legend(loc="upper right", fontsize=8)
    figure.savefig(picture, dpi=150)


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row.get(name) or "nan") for row in rows])


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over a thirtieth of the run."""
    width = max(1, len(values) // 30)
    sums = np.concatenate([[0.0], values.cumsum()])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(0, last - width)
    return (sums[last] - sums[first]) / (last - first)
