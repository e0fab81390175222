"""What comes next: the one value that every method gives, in the data's own units.

Shapes: `S` series, `H` horizon, `Q` quantile levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Forecast:
    """Point forecasts and quantiles of some series.

    Attributes:
        ids: the series' names.
        levels: of the quantiles, ascending.
        point: (series, H).
        quantiles: (series, H, Q), not falling along Q.
    """

    ids: tuple[str, ...]
    levels: tuple[float, ...]
    point: Float[np.ndarray, "S H"]
    quantiles: Float[np.ndarray, "S H Q"]

    def first(self, steps: int) -> Forecast:
        """Gives the forecast's first rows alone.

        Args:
            steps: how many, at most H.
        """
        return replace(self, point=self.point[:, :steps], quantiles=self.quantiles[:, :steps])
