"""Forecasting models on the shared backbone, made by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmamba.config import FitConfig
from tsmamba.networks.base import ForecastModel, Output, Shape
from tsmamba.networks.causal import CausalModel, StreamState
from tsmamba.networks.linear import LinearModel
from tsmamba.networks.residual import ResidualModel
from tsmamba.networks.smamba import SMamba
from tsmamba.networks.tsmamba import TSMamba

__all__ = [
    "CausalModel",
    "ForecastModel",
    "LinearModel",
    "Output",
    "ResidualModel",
    "SMamba",
    "Shape",
    "StreamState",
    "TSMamba",
    "build_model",
]

NETWORKS = {"smamba": SMamba, "tsmamba": TSMamba, "causal": CausalModel}


def build_model(config: FitConfig, shape: Shape, description: Mapping[str, Any] | None = None) -> ForecastModel:
    """The network of a configuration.

    Args:
        config: names the model and the network's shape.
        shape: what data and horizon decide.
        description: what a fitted model's `describe` gave; None for a new model.

    Raises:
        ValueError: there is no such model.
    """
    description = description or {}
    n_own = int(description.get("n_own", 0))
    if config.model == "ridge":
        return LinearModel(shape, n_own)
    if config.model == "auto":
        return ResidualModel(shape, config.network, n_own, description.get("backbone", "mamba"))
    if config.model in NETWORKS:
        return NETWORKS[config.model](shape, config.network)
    raise ValueError(f"no model is called {config.model!r}")
