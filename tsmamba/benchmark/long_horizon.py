"""`tsmamba benchmark`: a forecaster on a long-horizon data set, by the exact protocol, beside what was published.

Rows are counted, never repaired: a benchmark's borders are row numbers. Training rows alone give the scales; errors are
means over channels, windows and steps on data scaled by them; windows lie one row apart, and all of them are scored.
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
import pandas as pd
import torch

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.times.frequency import DAY, Frequency
from tsmamba.benchmark.published import published_rows
from tsmamba.config import FitConfig, load_config
from tsmamba.fitting.fit import fit_panel
from tsmamba.fitting.fitted import FittedModel
from tsmamba.panel.panel import COUNTED, Panel

NAMES = ("etth1", "etth2", "ettm1", "ettm2", "custom")
_MONTH = 30 * 24
_LEGACY_BATCHES = (32, 512)
_WINDOWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class Borders:
    """Row numbers of a benchmark: training [0, train), validation [train, valid), test [valid, test).

    Contexts of the first windows reach back over a border; horizons never cross one.
    """

    train: int
    valid: int
    test: int

    @classmethod
    def of(cls, name: str, rows: int) -> Borders:
        """A data set's borders: 12, 4 and 4 months for ETT; 70, 10 and 20 % of the rows for others.

        Raises:
            UserError: there is no such benchmark, or the file has too few rows.
        """
        if name not in NAMES:
            raise UserError("there is no such benchmark", found=name, accepted=", ".join(NAMES))
        if name == "custom":
            train, test = int(rows * 0.7), int(rows * 0.2)
            return cls(train, rows - test, rows)
        month = _MONTH * (4 if name.startswith("ettm") else 1)
        if rows < 20 * month:
            raise UserError(
                f"{name} has more rows than this file", found=f"{rows:,}", accepted=f"{20 * month:,} or more"
            )
        return cls(12 * month, 16 * month, 20 * month)


@dataclass(frozen=True)
class TestErrors:
    """Errors on the whole test set, in scaled units.

    Attributes:
        mse, mae: means over windows, channels and steps.
        windows: starts that were scored.
        dropped: by batch size, MSE and MAE as a loader gives them that drops its last, incomplete batch.
        coverage: share of values within the 80 % and 95 % intervals, uncalibrated.
    """

    __test__ = False

    mse: float
    mae: float
    windows: int
    dropped: dict[str, tuple[float, float]]
    coverage: dict[str, float]


def read_rows(path: Path) -> Panel:
    """A wide CSV as it is: the first column are times, every other one is a channel.

    Raises:
        UserError: the file cannot be read as that.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({error})", path=path) from None
    channels = table.iloc[:, 1:]
    texts = [name for name in channels if not pd.api.types.is_numeric_dtype(channels[name])]
    if channels.shape[1] == 0 or texts:
        raise UserError(
            "a benchmark's columns after the first are numbers", path=path, found=", ".join(map(str, texts)) or "none"
        )
    times, frequency = _times(table.iloc[:, 0])
    return Panel.wide(channels.to_numpy(np.float64), [str(name) for name in channels], times, frequency)


def _times(column: pd.Series) -> tuple[np.ndarray, Frequency]:
    """Times as they are written, and the most common step between them; row numbers where they are no times."""
    if not pd.api.types.is_numeric_dtype(column):
        parsed = pd.to_datetime(column, errors="coerce")
        if parsed.notna().all() and len(parsed) > 1:
            times = parsed.to_numpy("datetime64[ns]")
            gaps, counts = np.unique(np.diff(times).astype(np.int64), return_counts=True)
            gap = int(gaps[counts.argmax()])
            if gap > 0:
                return times, Frequency("day", gap // DAY) if gap % DAY == 0 else Frequency("duration", gap)
    return np.arange(len(column)), COUNTED


def score_test(fitted: FittedModel, panel: Panel, borders: Borders) -> TestErrors:
    """Scores every window whose horizon lies in the test rows."""
    windows, horizon = fitted.windows(panel), fitted.horizon
    groups, n = len(windows.members), borders.test - borders.valid - horizon + 1
    if n < 1:
        raise UserError("no test window is as long as the horizon", found=horizon, accepted=f"up to {n + horizon - 1}")
    origins = windows.origins([borders.valid] * groups, [borders.test - horizon] * groups)
    square, absolute, known = np.zeros(n), np.zeros(n), np.zeros(n)
    inside = {"80": 0.0, "95": 0.0}
    fitted.model.eval()
    with torch.no_grad():
        for part, batch in windows.batches(origins, max(_WINDOWS_AT_A_TIME // len(windows.members[0]), 1)):
            output = fitted.model(batch)
            error = ((output.point - batch.y) * batch.known).double().numpy()
            place = part.row - borders.valid
            np.add.at(square, place, (error**2).sum(axis=(1, 2)))
            np.add.at(absolute, place, np.abs(error).sum(axis=(1, 2)))
            np.add.at(known, place, batch.known.sum(dim=(1, 2)).numpy())
            for width, (low, high) in {"80": (0.1, 0.9), "95": (0.025, 0.975)}.items():
                if low in fitted.levels and high in fitted.levels:
                    low_q, high_q = (output.quantiles[..., fitted.levels.index(level)] for level in (low, high))
                    inside[width] += float(((batch.y >= low_q) & (batch.y <= high_q) & batch.known).sum())
    dropped = {str(size): _means(square, absolute, known, n // size * size) for size in _LEGACY_BATCHES if n >= size}
    mse, mae = _means(square, absolute, known, n)
    total = max(float(known.sum()), 1.0)
    return TestErrors(mse, mae, n, dropped, {width: count / total for width, count in inside.items()})


def _means(square: np.ndarray, absolute: np.ndarray, known: np.ndarray, n: int) -> tuple[float, float]:
    total = max(float(known[:n].sum()), 1.0)
    return float(square[:n].sum()) / total, float(absolute[:n].sum()) / total


def benchmark_config(model: str, borders: Borders, lookback: int | None, seed: int) -> FitConfig:
    """A model's preset under the protocol: the validation rows choose, and nothing is fitted on them."""
    return load_config(model, valid_rows=borders.valid - borders.train, refit=False, lookback=lookback, seed=seed)


def run_benchmark(
    name: str,
    data: Path,
    horizon: int,
    *,
    lookback: int | None = None,
    model: str = "auto",
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
        seeds: how many models; ridge regression needs one.
        first_seed: of them; the others follow it.
        beside: score the ridge and the naive forecasts too.
        quiet: show no progress.

    Returns:
        Scores of each seed with mean and spread, the ridge and naive forecasts beside them, the published rows, and
        under `text` a table for people.

    Raises:
        UserError: the file or the borders don't fit.
    """
    panel = read_rows(data)
    borders = Borders.of(name, len(panel.series[0]))
    panel = panel.before(len(panel.series[0]) - borders.test)
    drawn = range(first_seed, first_seed + (1 if model == "ridge" else seeds))
    rows = [_run(panel, borders, horizon, lookback, model, seed, quiet) for seed in drawn]
    others = _others(panel, borders, horizon, lookback, model, quiet) if beside else []
    published = published_rows(name, horizon)
    result = {
        "benchmark": name, "data": data.name, "horizon": horizon, "model": model, "borders": vars(borders),
        "channels": len(panel), "test_windows": rows[0]["test_windows"], "seeds": rows,
        "summary": _summary(model, rows),
        "beside": others, "published": published,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }  # fmt: skip
    return {**result, "text": _text(result)}


def _run(
    panel: Panel, borders: Borders, horizon: int, lookback: int | None, model: str, seed: int, quiet: bool
) -> dict[str, Any]:
    if not quiet:
        print(f"fitting {model}, horizon {horizon}, seed {seed}", file=sys.stderr)
    start = time.perf_counter()
    config = benchmark_config(model, borders, lookback, seed)
    fitted = fit_panel(panel.before(borders.test - borders.valid), horizon, config)
    seconds = time.perf_counter() - start
    errors = score_test(fitted, panel, borders)
    return {
        "model": model, "seed": seed, "lookback": fitted.lookback, "mse": errors.mse, "mae": errors.mae,
        "test_windows": errors.windows, "drop_last": errors.dropped, "coverage": errors.coverage,
        "seconds": round(seconds, 1), "parameters": fitted.n_parameters, "chosen": dict(fitted.report),
    }  # fmt: skip


def _others(
    panel: Panel, borders: Borders, horizon: int, lookback: int | None, model: str, quiet: bool
) -> list[dict[str, Any]]:
    seasons = sorted({1, panel.season})
    found = [_naive(panel, borders, horizon, season) for season in seasons]
    if model == "ridge":
        return found
    return [_run(panel, borders, horizon, lookback if model == "auto" else None, "ridge", 0, quiet), *found]


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


def _text(result: dict[str, Any]) -> str:
    ours = result["summary"]
    spread = (
        f"{ours['seeds']} seeds, sd {ours['mse_sd']:.4f}/{ours['mae_sd']:.4f}" if ours["mse_sd"] is not None else ""
    )
    lines = [
        f"{result['benchmark']} ({result['data']}), horizon {result['horizon']}, {result['channels']} channels, "
        f"all {result['test_windows']:,} test windows",
        "",
        f"{'model':24} {'lookback':>8} {'MSE':>8} {'MAE':>8}",
        _line(ours, "this run  " + spread),
        *(_line(row, "this run") for row in result["beside"]),
        *(_line(row, "published") for row in result["published"]),
    ]
    first = result["seeds"][0]
    for size, (mse, mae) in first["drop_last"].items():
        lines.append(
            _line({"model": f"drop-last, batch {size}", "lookback": "", "mse": mse, "mae": mae}, "not comparable")
        )
    return "\n".join(lines)


def _line(row: dict[str, Any], remark: str) -> str:
    return f"{row['model']:24} {row['lookback']!s:>8} {row['mse']:8.4f} {row['mae']:8.4f}  {remark}"
