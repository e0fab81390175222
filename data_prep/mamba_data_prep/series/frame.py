"""The table that every forecaster works on: one row a series and step, with what is needed to write times back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.times.format import TimeFormat
from mamba_data_prep.series.times.frequency import Frequency


@dataclass(frozen=True)
class SeriesFrame:
    """Series on their regular grids.

    Attributes:
        frame: columns `unique_id` (str), `ds` (`datetime64[ns]` without zone: UTC instants if the source had a zone,
            else its wall clock; int64 where rows are only counted), `y` (float64, NaN where missing), covariates.
            Sorted by first appearance of the series, then by time; every step of a series' grid has its row.
        frequency: the step of the grid.
        layout: how the source held the series.
        zone: the source's time zone, or None.
        time_format: how the source writes its times.
        time_column: the source's name of the time column ("" where there was none).
        id_columns: the source's columns that name a series (long layout).
        target_columns: the source's columns that hold `y`.
        keys: one row a series, indexed by `unique_id`: its values of the id columns, and its target column as `column`.
        past_covariates: columns known up to the present.
        future_covariates: columns known for the times of `future` as well.
        static: one row a series, indexed by `unique_id`, or None.
        future: rows of the future covariates after each series' end (`unique_id`, `ds`, columns), or None.
        options: what was detected, as options that read the same file in the same way.
        report: what reading did.
    """

    frame: pd.DataFrame
    frequency: Frequency
    layout: Literal["wide", "long", "single"]
    time_format: TimeFormat
    zone: str | None = None
    time_column: str = ""
    id_columns: tuple[str, ...] = ()
    target_columns: tuple[str, ...] = ()
    keys: pd.DataFrame = field(default_factory=pd.DataFrame)
    past_covariates: tuple[str, ...] = ()
    future_covariates: tuple[str, ...] = ()
    static: pd.DataFrame | None = None
    future: pd.DataFrame | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    report: IngestReport = field(default_factory=IngestReport)

    @property
    def ids(self) -> list[str]:
        """The series' names, in order of first appearance."""
        return [str(name) for name in self.frame["unique_id"].unique()]

    def future_times(self, horizon: int) -> pd.DataFrame:
        """Gives the next `horizon` times of every series: columns `unique_id` and `ds`, in the series' order."""
        last = self.frame.groupby("unique_id", sort=False)["ds"].last()
        times = [self.frequency.extend(end, horizon) for end in last]
        ids = pd.Series(np.repeat(last.index.to_numpy(), horizon), dtype=self.frame["unique_id"].dtype)
        return pd.DataFrame({"unique_id": ids, "ds": np.concatenate(times)})

    def format_times(self, ds: Sequence | np.ndarray | pd.Series) -> list[str]:
        """Gives times as the source writes them, in its zone."""
        return self.time_format.format(np.asarray(ds), self.zone)
