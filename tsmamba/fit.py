"""From a panel to a fitted forecaster, everything chosen on rows that the fit did not see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mamba_data_prep.errors import UserError

from tsmamba.config import FitConfig, load_config
from tsmamba.fitted import FittedModel, Forecast
from tsmamba.models import LinearModel, Shape
from tsmamba.panel import Panel
from tsmamba.ridge import errors, fit_ridge
from tsmamba.scaling import PanelScaler
from tsmamba.windows import Origins, Windows

__all__ = ["FittedModel", "Forecast", "fit_panel"]

DEFAULT_LOOKBACK = 512


@dataclass(frozen=True)
class Plan:
    """Which windows train, and which choose.

    Attributes:
        windows: of the panel.
        train: origins whose horizons end before the held-back rows.
        valid: origins whose horizons lie in the held-back rows.
    """

    windows: Windows
    train: Origins
    valid: Origins


def fit_panel(
    panel: Panel,
    horizon: int,
    config: FitConfig | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> FittedModel:
    """Fits a forecaster.

    The last `config.valid_rows` rows of each series are held back: scales and weights are fitted on what comes before,
    and the held-back rows choose. With `config.refit` the chosen model is then fitted on all rows.

    Args:
        panel: the series; nothing outside it is read.
        horizon: rows to forecast.
        config: what to fit; the preset `auto` by default.
        out: the run folder, into which the bundle is written as `model/`; None keeps nothing.
        resume: go on with the run in `out`.
        quiet: show no progress.

    Returns:
        The fitted model; `report` tells what was chosen.

    Raises:
        UserError: the series are too short for the horizon, or the run folder is in the way.
        Interrupted: stopped; the run can be resumed with `out` and `resume`.
    """
    config = config or load_config()
    if horizon < 1:
        raise UserError("the horizon must be at least 1 row", found=horizon)
    held_back = held_back_rows(panel, horizon, config)
    scaler = PanelScaler.fit(panel, held_back)
    lookback = choose_lookback(panel, horizon, config, held_back)
    windows = Windows(panel, scaler, lookback, horizon)
    plan = make_plan(windows, held_back)
    best = fit_ridge(windows, plan.train, plan.valid)[0]
    shape = Shape(lookback, horizon, n_levels=len(config.levels))
    model = LinearModel(shape)
    model.weight.copy_(best.weight)
    model.set_offsets(errors(best.weight, windows, plan.valid)[0], config.levels)
    report = {
        "model": "ridge", "strength": best.strength, "valid_mse": best.mse, "valid_mae": best.mae,
        "train_windows": len(plan.train), "valid_windows": len(plan.valid),
    }  # fmt: skip
    names = {"past": panel.past_names, "future": panel.future_names, "static": panel.static_names}
    fitted = FittedModel(config, shape, model, scaler, names, report)
    if out is not None:
        fitted.save(out / "model")
    return fitted


def held_back_rows(panel: Panel, horizon: int, config: FitConfig) -> list[int]:
    """Rows at each series' end that choose: a fifth of the series, at least one horizon and never more than half.

    Raises:
        UserError: no series is long enough to train on.
    """
    if isinstance(config.valid_rows, int):
        rows = [min(config.valid_rows, max(length - 2, 0)) for length in panel.lengths]
    else:
        rows = [min(max(horizon, length // 5), length // 2) for length in panel.lengths]
    longest = max(length - held for length, held in zip(panel.lengths, rows, strict=True))
    if longest < horizon + 2:
        raise UserError(
            "the series are too short for this horizon", found=f"{max(panel.lengths)} rows, horizon {horizon}",
            accepted=f"at least {2 * (horizon + 2)} rows", fix="shorten the horizon, or use a naive method",
        )  # fmt: skip
    return rows


def choose_lookback(panel: Panel, horizon: int, config: FitConfig, held_back: list[int]) -> int:
    """As asked; otherwise 512 rows, or what leaves at least half of the longest training part for targets."""
    if isinstance(config.lookback, int):
        return config.lookback
    longest = max(length - held for length, held in zip(panel.lengths, held_back, strict=True))
    return int(np.clip((longest - horizon) // 2, 1, DEFAULT_LOOKBACK))


def make_plan(windows: Windows, held_back: list[int]) -> Plan:
    """Origins of training and of choosing; no training horizon reaches into the held-back rows.

    Training begins where the context is full, or half of the training part where a series is shorter than that.
    """
    held = np.array([held_back[members[0]] for members in windows.members], dtype=np.int64)
    cut = windows.rows - held
    last = cut - windows.horizon
    first = np.minimum(windows.lookback, np.maximum(last // 2, 1))
    train = windows.usable(windows.origins(first.tolist(), last.tolist()))
    valid_last = np.maximum(windows.rows - windows.horizon, cut)
    valid = windows.usable(windows.origins(cut.tolist(), valid_last.tolist()))
    return Plan(windows, train, valid)
