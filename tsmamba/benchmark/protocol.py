"""The protocol of the long-horizon benchmarks: which rows train, choose and test, and how the test rows are scored.

Rows are counted, never repaired: a benchmark's borders are row numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.times.frequency import DAY, Frequency
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
        square: (windows,) sums of squared errors, for comparisons window by window.
    """

    __test__ = False

    mse: float
    mae: float
    windows: int
    dropped: dict[str, tuple[float, float]]
    coverage: dict[str, float]
    square: np.ndarray


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
    return TestErrors(mse, mae, n, dropped, {width: count / total for width, count in inside.items()}, square)


def _means(square: np.ndarray, absolute: np.ndarray, known: np.ndarray, n: int) -> tuple[float, float]:
    total = max(float(known[:n].sum()), 1.0)
    return float(square[:n].sum()) / total, float(absolute[:n].sum()) / total
