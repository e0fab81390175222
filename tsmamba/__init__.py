"""Forecasting on selective state space models: `Forecaster` for tables, `tsmamba` for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mamba_configs.former_paths import keep_former_paths

if TYPE_CHECKING:
    from tsmamba.forecaster import Forecaster

__all__ = ["Forecaster"]


def __getattr__(name: str) -> Any:
    """Imports the forecaster when it is first asked for: the command line's help needs no torch."""
    if name == "Forecaster":
        from tsmamba.forecaster import Forecaster

        return Forecaster
    raise AttributeError(f"module 'tsmamba' has no attribute {name!r}")


keep_former_paths("tsmamba", {"fitted": "fitting.fitted", "models": "networks", "plots": "output.plots"})
