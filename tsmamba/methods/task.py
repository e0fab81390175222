"""What is to be forecast: what every method is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tsmamba.config import LEVELS


@dataclass(frozen=True)
class Task:
    """What is to be forecast.

    Attributes:
        horizon: rows ahead.
        season: rows of a season; 1 where there is none.
        levels: of the quantiles, ascending.
        seed: of whatever is drawn at random.
        max_time: at which training stops, such as "90s"; None sets no limit.
        device: auto, cpu or cuda.
        settings: of learnt methods, by dotted key; with `model` among them, of the methods of that model alone.
    """

    horizon: int
    season: int = 1
    levels: tuple[float, ...] = LEVELS
    seed: int = 0
    max_time: str | float | None = None
    device: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
