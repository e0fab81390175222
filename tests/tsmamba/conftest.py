"""Small panels with a season, made on the spot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mamba_data_prep.series.times.frequency import DAY, Frequency
from tsmamba.config import FitConfig, load_config
from tsmamba.panel.panel import Panel


def waves(rows: int, channels: int, seed: int = 0) -> np.ndarray:
    """Days of 24 rows with noise, each channel with its own level, unit and phase: (rows, channels)."""
    rng = np.random.default_rng(seed)
    at = np.arange(rows)[:, None]
    phase = rng.uniform(0, 2 * np.pi, channels)
    return 10 * np.arange(1, channels + 1) + np.arange(1, channels + 1) * (
        np.sin(2 * np.pi * at / 24 + phase) + 0.1 * rng.normal(size=(rows, channels))
    )


@pytest.fixture
def hourly() -> Callable[..., Panel]:
    """A function (rows=400, channels=2, seed=0) -> an hourly panel."""

    def make(rows: int = 400, channels: int = 2, seed: int = 0) -> Panel:
        times = np.datetime64("2024-01-01", "ns") + np.arange(rows) * np.timedelta64(3600, "s")
        return Panel.wide(
            waves(rows, channels, seed), None, times.astype("datetime64[ns]"), Frequency("duration", DAY // 24)
        )

    return make


@pytest.fixture
def tiny() -> Callable[..., FitConfig]:
    """A function (model, **changes) -> a configuration whose fit takes a second."""

    def make(model: str = "auto", **changes: object) -> FitConfig:
        small = {
            "lookback": 48, "network__d_model": 8, "network__n_layers": 1, "network__d_state": 4,
            "network__d_feedforward": 8, "network__patch": 8, "network__stride": 8, "train__epochs": 1,
            "train__least_steps": 4, "train__most_steps": 4, "train__validations": 2, "train__batch_size": 16,
        }  # fmt: skip
        return load_config(model, **{**small, **changes})

    return make
