"""The toy model of `toy.py`, trained by the real loop."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule

from mamba_training.run import RunResult, fit
from mamba_training.settings import RunSettings


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module `toy.py`: `ToyModel` and `ToyData`."""
    name = "training_toy"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("toy.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def toy_run(tmp_path: Path, toy: ModuleType) -> Callable[..., tuple[Any, RunResult]]:
    """A function (max_steps=12, resume=False, ...) that trains the toy in `tmp_path/run` -> (model, result)."""

    def run(
        model: LightningModule | None = None,
        data: LightningDataModule | None = None,
        config: dict[str, Any] | None = None,
        **settings: Any,
    ) -> tuple[Any, RunResult]:
        torch.manual_seed(0)
        model = model or toy.ToyModel()
        chosen = {
            "out": tmp_path / "run",
            "max_steps": 12,
            "progress": False,
            "keep_best": False,
            "precision": "32-true",
            **settings,
        }
        return model, fit(model, data or toy.ToyData(), RunSettings(**chosen), config=config)

    return run


@pytest.fixture
def rows() -> Callable[[Path], list[dict[str, str]]]:
    """A function that reads a `metrics.csv`."""

    def read(path: Path) -> list[dict[str, str]]:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return read
