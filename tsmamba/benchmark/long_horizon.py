"""`tsmamba benchmark`: a forecaster on a long-horizon data set, by the exact protocol, beside what was published.

Training rows alone give the scales; errors are means over channels, windows and steps on data scaled by them; windows
lie one row apart, and all of them are scored.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tsmamba.benchmark.protocol import Borders, TestErrors, read_rows, score_test
from tsmamba.benchmark.published import published_rows
from tsmamba.benchmark.text import table_of
from tsmamba.config import FitConfig, load_config
from tsmamba.fitting.fit import fit_ablation, fit_panel
from tsmamba.fitting.fitted import FittedModel
from tsmamba.fitting.residual import IDENTITY, OFF
from tsmamba.fitting.shrinkage import Saving
from tsmamba.panel.panel import Panel


def benchmark_config(
    model: str | Path, borders: Borders, lookback: int | None, seed: int, overrides: Sequence[str] = ()
) -> FitConfig:
    """A model's preset under the protocol: the validation rows choose, and nothing is fitted on them."""
    rows = borders.valid - borders.train
    return load_config(model, overrides, valid_rows=rows, refit=False, lookback=lookback, seed=seed)


def run_benchmark(
    name: str,
    data: Path,
    horizon: int,
    *,
    lookback: int | None = None,
    model: str = "auto",
    config: str | None = None,
    overrides: Sequence[str] = (),
    seeds: int = 3,
    first_seed: int = 0,
    beside: bool = True,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fits a model for each seed on the training rows, chooses on the validation rows, and scores the test rows once.

    Args:
        name: etth1, etth2, ettm1, ettm2 or custom (70, 10 and 20 % of the rows).
        data: a wide CSV, times first.
        horizon: rows to forecast.
        lookback: rows of context; the preset's by default.
        model: a preset.
        config: a preset's name or a YAML file, in place of `model`.
        overrides: `KEY=VALUE` texts on top of it.
        seeds: how many models; ridge regression needs one.
        first_seed: of them; the others follow it.
        beside: score the ridge and the naive forecasts too.
        quiet: show no progress.

    Returns:
        Scores of each seed with mean and spread, the ridge and naive forecasts beside them, the published rows, and
        under `text` a table for people. Of `auto` also `ablation`: its ridge alone (`network off`), a linear map in
        its Mamba's place (`backbone = identity`) and its Mamba whatever the validation rows say; `mamba_saves` is
        what the whole saves of the first two's test error.

    Raises:
        UserError: the file or the borders don't fit.
    """
    source, model = (model, model) if config is None else (config, load_config(config, overrides).model)
    panel = read_rows(data)
    borders = Borders.of(name, len(panel.series[0]))
    panel = panel.before(len(panel.series[0]) - borders.test)
    drawn = range(first_seed, first_seed + (1 if model == "ridge" else seeds))
    runs = [_run(panel, borders, horizon, lookback, source, seed, quiet, overrides) for seed in drawn]
    rows = [run[model].row for run in runs]
    others = _others(panel, borders, horizon, lookback, model, quiet) if beside else []
    published = published_rows(name, horizon)
    result = {
        "benchmark": name, "data": data.name, "horizon": horizon, "model": model, "borders": vars(borders),
        "channels": len(panel), "test_windows": rows[0]["test_windows"], "seeds": rows,
        "summary": _summary(model, rows), **(_ablated(runs, horizon) if model == "auto" else {}),
        "beside": others, "published": published,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }  # fmt: skip
    return {**result, "text": table_of(result)}


@dataclass(frozen=True)
class Scored:
    """A fitted model's row, and its squared errors window by window."""

    row: dict[str, Any]
    square: np.ndarray


def _run(
    panel: Panel,
    borders: Borders,
    horizon: int,
    lookback: int | None,
    source: str,
    seed: int,
    quiet: bool,
    overrides: Sequence[str] = (),
) -> dict[str, Scored]:
    """The rows of a seed: of the model, and of `auto` those of its ablation too."""
    config = benchmark_config(source, borders, lookback, seed, overrides)
    model = config.model
    if not quiet:
        print(f"fitting {model}, horizon {horizon}, seed {seed}", file=sys.stderr)
    start = time.perf_counter()
    training = panel.before(borders.test - borders.valid)
    alone = model != "auto"
    fits = {model: fit_panel(training, horizon, config)} if alone else fit_ablation(training, horizon, config)
    seconds = time.perf_counter() - start
    errors = {id(fitted.model): score_test(fitted, panel, borders) for fitted in fits.values()}
    return {
        name: Scored(_row(name, seed, fitted, errors[id(fitted.model)], seconds), errors[id(fitted.model)].square)
        for name, fitted in fits.items()
    }


def _row(name: str, seed: int, fitted: FittedModel, errors: TestErrors, seconds: float) -> dict[str, Any]:
    return {
        "model": name, "seed": seed, "lookback": fitted.lookback, "mse": errors.mse, "mae": errors.mae,
        "test_windows": errors.windows, "drop_last": errors.dropped, "coverage": errors.coverage,
        "seconds": round(seconds, 1), "parameters": fitted.n_parameters, "chosen": dict(fitted.report),
    }  # fmt: skip


def _ablated(runs: Sequence[dict[str, Scored]], horizon: int) -> dict[str, Any]:
    """The rows without the network and without its Mamba, and what the whole saves of their errors on the test rows."""
    names = [name for name in runs[0] if name != "auto"]
    return {
        "ablation": [_summary(name, [run[name].row for run in runs]) for name in names],
        "ablation_seeds": [run[name].row for run in runs for name in names],
        "mamba_saves": {name: saved_on_test(runs, name, horizon).to_dict() for name in (OFF, IDENTITY)},
    }


def saved_on_test(runs: Sequence[dict[str, Scored]], other: str, horizon: int) -> Saving:
    """What `auto` saves of another row's squared error, paired over stretches of test windows a horizon long.

    Args:
        runs: one a seed; their errors are averaged first.
        other: the row.
        horizon: neighbouring windows share most of what they are scored on: those a horizon apart share nothing.
    """
    ours, theirs = (np.mean([run[name].square for run in runs], axis=0) for name in ("auto", other))
    starts = np.arange(max(len(ours) // horizon, 1)) * horizon
    return Saving.of(1 - np.add.reduceat(ours, starts) / np.maximum(np.add.reduceat(theirs, starts), 1e-12))


def _others(
    panel: Panel, borders: Borders, horizon: int, lookback: int | None, model: str, quiet: bool
) -> list[dict[str, Any]]:
    seasons = sorted({1, panel.season})
    found = [_naive(panel, borders, horizon, season) for season in seasons]
    if model == "ridge":
        return found
    ridge = _run(panel, borders, horizon, lookback if model == "auto" else None, "ridge", 0, quiet)
    return [ridge["ridge"].row, *found]


def _naive(panel: Panel, borders: Borders, horizon: int, season: int) -> dict[str, Any]:
    """The last value, or the last season, repeated."""
    square = absolute = count = 0.0
    n = borders.test - borders.valid - horizon + 1
    at = borders.valid + np.arange(n)[:, None]
    step = np.arange(horizon)
    for one in panel.series:
        training = one.values[: borders.train]
        scale = np.nanstd(training) or 1.0
        error = (one.values[at + step] - one.values[at - season + step % season]) / scale
        square += float(np.nansum(error**2))
        absolute += float(np.nansum(np.abs(error)))
        count += float(np.isfinite(error).sum())
    label = "naive" if season == 1 else f"seasonal naive ({season})"
    return {"model": label, "lookback": season, "mse": square / max(count, 1), "mae": absolute / max(count, 1)}


def _summary(model: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {"model": model, "lookback": rows[0]["lookback"], "seeds": len(rows)}
    for key in ("mse", "mae"):
        values = np.array([row[key] for row in rows])
        found |= {key: float(values.mean()), f"{key}_sd": float(values.std(ddof=1)) if len(rows) > 1 else None}
    return found
