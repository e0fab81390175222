"""Windows of a panel: contexts of `lookback` rows with the `horizon` rows that follow, gathered without copies kept.

Shapes: `B` windows, `M` series that are read together (one, or all channels of an aligned panel), `L` lookback,
`H` horizon, `P` past covariates, `F` covariates known ahead with the calendar's, `S` static features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from tsmamba.panel.panel import Panel
from tsmamba.panel.scaling import PanelScaler, standardised


class Batch(NamedTuple):
    """Windows in scaled units; what was not observed is 0 in `x` and `y` and False in `seen` and `known`."""

    x: Float[Tensor, "B M L"]
    seen: Bool[Tensor, "B M L"]
    y: Float[Tensor, "B M H"]
    known: Bool[Tensor, "B M H"]
    past: Float[Tensor, "B M L P"]
    future: Float[Tensor, "B M LH F"]
    static: Float[Tensor, "B M S"]
    who: Int[Tensor, "B M"]
    """Each series' number among those fitted on; -1 for others."""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(part.to(device) for part in self))


@dataclass(frozen=True)
class Origins:
    """Where forecasts begin: the rows before `row` of a group are known.

    Attributes:
        group: (n,) number of the group: of the series, or 0 where all channels are read together.
        row: (n,) rows of the group that the forecast may read.
    """

    group: Int64[np.ndarray, " n"]
    row: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: np.ndarray) -> Origins:
        """Gives the windows at some places."""
        return Origins(self.group[which], self.row[which])


class Windows:
    """A panel's windows of one shape.

    Args:
        panel: the series.
        scaler: their scales.
        lookback: rows of context; where a series begins later, the context is unobserved there.
        horizon: rows to forecast.
        together: read all channels of an aligned panel as one group.
        calendar: which calendar features to add to the covariates known ahead, by their columns.

    Raises:
        ValueError: the channels are to be read together, but their times differ.
    """

    def __init__(
        self,
        panel: Panel,
        scaler: PanelScaler,
        lookback: int,
        horizon: int,
        *,
        together: bool = False,
        calendar: Sequence[int] = (),
    ) -> None:
        if together and not panel.aligned:
            raise ValueError("only series with the same times can be read together")
        self.panel, self.lookback, self.horizon, self.together = panel, lookback, horizon, together
        groups = [list(range(len(panel)))] if together else [[number] for number in range(len(panel))]
        self.members = groups
        self.rows = np.array([len(panel.series[group[0]]) for group in groups], dtype=np.int64)
        spans = self.rows + lookback + horizon
        self._first = np.concatenate([[0], np.cumsum(spans)[:-1]]).astype(np.int64)
        channels, total = len(groups[0]), int(spans.sum())
        values = np.full((channels, total), np.nan, np.float32)
        self._past = np.zeros((channels, total, len(panel.past_names)), np.float32)
        n_calendar = len(calendar)
        self._future = np.zeros((channels, total, len(panel.future_names) + n_calendar), np.float32)
        numbers = {name: number for number, name in enumerate(scaler.series)}
        who = [[numbers.get(panel.series[number].unique_id, -1) for number in members] for members in groups]
        self._who = np.array(who, dtype=np.int64)
        self._static = np.zeros((len(groups), channels, len(panel.static_names)), np.float32)
        for group, members in enumerate(groups):
            for place, number in enumerate(members):
                self._fill(values, group, place, number, scaler, calendar)
        self._observed = np.isfinite(values)
        self._values = np.nan_to_num(values)

    def _fill(
        self, values: np.ndarray, group: int, place: int, number: int, scaler: PanelScaler, calendar: Sequence[int]
    ) -> None:
        panel, one = self.panel, self.panel.series[number]
        start, rows = self._first[group] + self.lookback, len(one)
        values[place, start : start + rows] = scaler.values(one)
        self._past[place, start : start + rows] = standardised(one.past, scaler.past)
        ahead = standardised(one.future, scaler.future)[: rows + self.horizon]
        n_known = ahead.shape[1]
        self._future[place, start : start + len(ahead), :n_known] = ahead
        if calendar:
            features = panel.calendar(number, self.horizon)[:, list(calendar)]
            self._future[place, start : start + len(features), n_known:] = features
        self._static[group, place] = standardised(one.static[None], scaler.static)[0]

    @property
    def n_past(self) -> int:
        """How many past covariates there are."""
        return self._past.shape[-1]

    @property
    def n_future(self) -> int:
        """How many covariates are known ahead, the calendar's among them."""
        return self._future.shape[-1]

    @property
    def n_static(self) -> int:
        """How many static features there are."""
        return self._static.shape[-1]

    def origins(self, first: Sequence[int], last: Sequence[int]) -> Origins:
        """Every row from `first` to `last`, both included, of each group, in order."""
        rows = [np.arange(low, high + 1, dtype=np.int64) for low, high in zip(first, last, strict=True)]
        group = np.repeat(np.arange(len(rows), dtype=np.int64), [len(one) for one in rows])
        return Origins(group, np.concatenate(rows))

    def usable(self, origins: Origins) -> Origins:
        """The origins with at least one observed value in the context and one in the horizon."""
        total = np.concatenate([[0], np.cumsum(self._observed.any(axis=0))])
        start = self._first[origins.group] + origins.row
        middle, end = start + self.lookback, start + self.lookback + self.horizon
        return origins.take((total[middle] > total[start]) & (total[end] > total[middle]))

    def batch(self, origins: Origins) -> Batch:
        """The windows of some origins."""
        start = self._first[origins.group] + origins.row
        at = start[:, None] + np.arange(self.lookback + self.horizon)
        values, observed = _rows_first(self._values, at), _rows_first(self._observed, at)
        context = slice(self.lookback), slice(self.lookback, None)
        return Batch(
            values[..., context[0]],
            observed[..., context[0]],
            values[..., context[1]],
            observed[..., context[1]],
            _rows_first(self._past, at[:, : self.lookback]),
            _rows_first(self._future, at),
            torch.from_numpy(self._static[origins.group]),
            torch.from_numpy(self._who[origins.group]),
        )

    def batches(self, origins: Origins, size: int) -> Iterator[tuple[Origins, Batch]]:
        """All windows of the origins in order, `size` at a time."""
        for first in range(0, len(origins), size):
            part = origins.take(np.arange(first, min(first + size, len(origins))))
            yield part, self.batch(part)


def _rows_first(table: np.ndarray, at: np.ndarray) -> Tensor:
    """Columns `at` (B, W) of a table (M, total, ...) as (B, M, W, ...)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(table[:, at], 0, 1)))
