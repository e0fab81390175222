"""What a forecaster is made of: one frozen configuration, read from a preset and checked key by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mamba_configs import list_presets, load_preset
from mamba_data_prep.errors import UserError
from mamba_training.settings import parse_duration

APP = "tsmamba"
MODELS = ("auto", "ridge", "smamba", "tsmamba", "causal")
LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
Note = Callable[[str], object]
"""Told in a few words what is being done."""


class Section(BaseModel):
    """A part of a configuration: unknown keys are refused, values don't change after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class NetworkConfig(Section):
    """The shape of the Mamba network."""

    d_model: int = Field(default=32, ge=4, le=4096)
    n_layers: int = Field(default=1, ge=1, le=64)
    d_state: int = Field(default=8, ge=1, le=256)
    d_conv: int = Field(default=2, ge=1, le=16)
    expand: int = Field(default=1, ge=1, le=8)
    d_feedforward: int = Field(default=64, ge=1, le=16384)
    patch: int = Field(default=16, ge=1, le=512)
    stride: int = Field(default=16, ge=1, le=512)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class TrainConfig(Section):
    """How the network is trained."""

    epochs: int = Field(default=3, ge=1, le=10_000)
    least_steps: int = Field(default=100, ge=1)
    most_steps: int = Field(default=4000, ge=1)
    validations: int = Field(default=10, ge=1, le=1000)
    batch_size: int = Field(default=32, ge=1, le=65536)
    lr: float = Field(default=1e-3, gt=0, le=1)
    schedule: Literal["cosine", "halving"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    loss: Literal["mse", "mae", "huber"] = "huber"
    patience: int | None = Field(default=None, ge=1)
    max_time: float | str | None = None
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"

    @field_validator("max_time")
    @classmethod
    def _is_duration(cls, value: float | str | None) -> float | str | None:
        if value is not None:
            parse_duration(value, name="train.max_time")
        return value


class FitConfig(Section):
    """Everything that decides a fit, the data apart."""

    model: Literal["auto", "ridge", "smamba", "tsmamba", "causal"] = "auto"
    lookback: int | Literal["auto"] = "auto"
    levels: tuple[float, ...] = LEVELS
    seasons: tuple[int, ...] | Literal["auto"] = "auto"
    valid_rows: int | Literal["auto"] = "auto"
    refit: bool = True
    seed: int = Field(default=0, ge=0, lt=2**32)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if not levels or list(levels) != sorted(set(levels)) or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError("levels must be ascending numbers between 0 and 1")
        return levels


def load_config(source: str | Path = "auto", **changes: Any) -> FitConfig:
    """The configuration of a preset or a YAML file, with some of its values changed.

    Args:
        source: a preset's name (the models' names are presets) or the path of a YAML file.
        changes: dotted keys with `__` for the dot (`train__max_time="2m"`); None leaves the value as it is.

    Raises:
        UserError: no such preset or file, or a value is refused.
    """
    settings = _read(source)
    for key, value in changes.items():
        if value is not None:
            *sections, last = key.split("__")
            place = settings
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
    return checked(settings, source)


def checked(settings: Mapping[str, Any], source: str | Path | None = None) -> FitConfig:
    """Settings as a configuration.

    Raises:
        UserError: naming each refused key and its value.
    """
    try:
        return FitConfig.model_validate(dict(settings))
    except ValidationError as error:
        path = source if source is not None and Path(source).is_file() else None
        lines = [
            f"{'.'.join(map(str, item['loc']))}: {item['msg']} (found {item['input']!r})" for item in error.errors()
        ]
        raise UserError("the configuration is refused: " + "; ".join(lines), path=path) from None


def _read(source: str | Path) -> dict[str, Any]:
    if str(source) in list_presets(APP):
        return load_preset(APP, str(source))
    path = Path(source)
    if not path.is_file():
        raise UserError("no such preset, and no such file", found=str(source), accepted=", ".join(list_presets(APP)))
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as YAML ({str(error).splitlines()[0]})", path=path) from None
    if not isinstance(settings, dict):
        raise UserError("is not a list of settings", path=path, found=type(settings).__name__)
    return settings
