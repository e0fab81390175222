"""Forecasts of one series row by row, from a state that never grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.times.frequency import Frequency, to_wall
from tsmamba.evaluation.conformal import recent_rows
from tsmamba.evaluation.metrics import seasonal_error
from tsmamba.evaluation.season_widths import constant_phases
from tsmamba.fitting.fitted import FittedModel
from tsmamba.networks import CausalModel
from tsmamba.panel.panel import COUNTED, calendar_features
from tsmamba.panel.scaling import standardised


class Recent:
    """What calibration reads of a series' past, kept row by row in constant memory (see `recent_scales`).

    Args:
        season: rows of a season.
    """

    def __init__(self, season: int) -> None:
        self.season = season
        self._rows: deque[float] = deque(maxlen=recent_rows(season))
        self._changes: dict[int, tuple[float, int]] = dict.fromkeys((season, 1), (0.0, 0))
        self._lowest, self._highest, self._seen = np.inf, -np.inf, 0

    def push(self, value: float) -> None:
        """Takes one row in, NaN where it is missing."""
        for step, (total, count) in self._changes.items():
            change = abs(value - self._rows[-step]) if len(self._rows) >= step else np.nan
            if np.isfinite(change):
                self._changes[step] = (total + change, count + 1)
        self._rows.append(value)
        if np.isfinite(value):
            self._lowest, self._highest = min(self._lowest, value), max(self._highest, value)
            self._seen += 1

    @property
    def scale(self) -> float:
        """The mean size of recent changes."""
        recent = np.array(self._rows, np.float64)
        found = [seasonal_error(recent, step) for step in (self.season, 1)]
        found += [total / count if count and total > 0 else np.nan for total, count in self._changes.values()]
        constant = self._seen > 1 and self._lowest == self._highest
        return next((one for one in found if np.isfinite(one)), 0.0 if constant else 1.0)

    def constant(self, levels: Sequence[float]) -> Float64[np.ndarray, " season"]:
        """The values of the next phases of the season that had one value throughout; see `constant_phases`."""
        if self.season < 2 or len(levels) < 2:
            return np.full(self.season, np.nan)
        return constant_phases(np.array(self._rows, np.float64), self.season, min(levels[0], 1 - levels[-1]))

    @property
    def floor(self) -> float:
        """The bound below which the values are taken not to fall: 0 if none ever did, else minus infinity."""
        return 0.0 if 0 <= self._lowest < np.inf else -np.inf


class Stream:
    """A causal forecaster that is fed a series row by row, each in constant time and memory.

    After any row the forecast is the one that reading the whole history at once gives. Its quantiles are the model's
    own; `Recent` keeps what calibrating them takes.

    Args:
        fitted: with a causal model.
        unique_id: of the series; it must be one of those fitted on, whose scale is known.
        frequency: of the rows, on whose zone's clock the calendar is read.

    Raises:
        UserError: the model is not causal, does not know the series, or reads static features.
    """

    def __init__(self, fitted: FittedModel, unique_id: str, frequency: Frequency = COUNTED) -> None:
        model = fitted.model
        if not isinstance(model, CausalModel):
            raise UserError(
                "only causal models can be fed row by row", found=fitted.config.model, accepted="causal",
                fix="fit one with the method causal",
            )  # fmt: skip
        if unique_id not in fitted.scaler.series:
            names = list(fitted.scaler.series)
            raise UserError(
                "the model does not know this series", found=unique_id, accepted=", ".join(names[:5]),
                fix="fit the model on data that hold it",
            )  # fmt: skip
        if model.shape.n_static:
            raise UserError("rows do not tell the static features that this model reads", fix="fit one without them")
        self.fitted, self.unique_id, self.frequency = fitted, unique_id, frequency
        self._model = model.eval()
        self._state = model.initial_state(1)

    def push(
        self,
        time: np.datetime64 | int,
        value: float | int | None,
        past: Sequence[float | int] = (),
        future: Sequence[float | int] = (),
    ) -> tuple[Float64[np.ndarray, " H"], Float64[np.ndarray, "H Q"]]:
        """Takes one row in, in constant time.

        Args:
            time: of the row: UTC where the frequency has a zone.
            value: observed, in the data's units; None or NaN where it is missing.
            past, future: the row's covariates, in the order of those fitted with.

        Returns:
            Point forecast and quantiles of the rows that follow, in the data's units.
        """
        scale = self.fitted.scaler.series[self.unique_id]
        seen = value is not None and np.isfinite(value)
        x = (float(value) - scale.mean) / scale.deviation if seen and value is not None else 0.0
        outside = self._covariates(time, past, future)
        output, self._state = self._model.step(torch.tensor([x]), torch.tensor([seen]), outside, self._state)
        point = output.point[0, 0].double().numpy() * scale.deviation + scale.mean
        return point, output.quantiles[0, 0].double().numpy() * scale.deviation + scale.mean

    def _covariates(
        self, time: np.datetime64 | int, past: Sequence[float | int], future: Sequence[float | int]
    ) -> torch.Tensor:
        scaler = self.fitted.scaler
        given = [
            standardised(np.array(values, np.float64).reshape(1, -1), scales)
            for values, scales in ((past, scaler.past), (future, scaler.future))
        ]
        times = np.array([time], dtype="datetime64[ns]" if isinstance(time, np.datetime64) else np.int64)
        calendar = calendar_features(to_wall(times, self.frequency.zone) if isinstance(time, np.datetime64) else times)
        row = np.concatenate([*given, calendar[:, list(self.fitted.calendar)]], axis=1)
        if row.shape[1] != self._model.shape.n_past + self._model.shape.n_future:
            expected = {kind: list(self.fitted.names.get(kind, ())) for kind in ("past", "future")}
            raise UserError(
                "a row has other covariates than the model",
                found=f"{len(past)} and {len(future)}",
                accepted=str(expected),
            )
        return torch.from_numpy(row.astype(np.float32))
