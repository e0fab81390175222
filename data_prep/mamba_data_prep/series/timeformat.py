"""Times as text: directives like those of `strftime`, which both read and write, and never guess."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mamba_data_prep.series.frequency import to_wall


@dataclass(frozen=True)
class TimeFormat:
    """How a column writes its times.

    Attributes:
        pattern: directives of `strftime`; `%-m` is a month without padding, `%q` a quarter, `%s` seconds since 1970,
            `%i` a plain integer.
    """

    pattern: str = "%Y-%m-%d %H:%M:%S"

    def format(self, times: np.ndarray, zone: str | None = None) -> list[str]:
        """Write times: UTC instants where there is a zone, else wall clock; integers as they are."""
        if times.dtype.kind in "iu":
            return [str(int(value)) for value in times]
        local = pd.DatetimeIndex(to_wall(times.astype("datetime64[ns]"), zone))
        return list(local.strftime(self.pattern))
