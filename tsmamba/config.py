"""What a forecaster is made of: one frozen configuration, read from a preset and checked key by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mamba_configs import list_presets
from mamba_configs.settings import Real, Section, Whole, load_settings, read_settings, validated
from mamba_training.settings import parse_duration

APP = "tsmamba"
DEFAULT_PRESET = "auto"
MODELS = ("auto", "ridge", "smamba", "tsmamba", "causal")
LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
Note = Callable[[str], object]
"""A function that is told in a few words what is being done."""


class NetworkConfig(Section):
    """The shape of the Mamba network."""

    backbone: Literal["auto", "mamba", "identity", "off"] = Field(
        default="auto", description="auto, mamba, identity or off"
    )
    d_model: Whole = Field(default=32, ge=4, le=4096, description="a whole number from 4 to 4096 (channels)")
    n_layers: Whole = Field(default=1, ge=1, le=64, description="a whole number from 1 to 64")
    d_state: Whole = Field(default=8, ge=1, le=256, description="a whole number from 1 to 256 (states per channel)")
    d_conv: Whole = Field(default=2, ge=1, le=16, description="a whole number from 1 to 16 (taps of the convolution)")
    expand: Whole = Field(default=1, ge=1, le=8, description="a whole number from 1 to 8 (inner channels per channel)")
    d_feedforward: Whole = Field(default=64, ge=1, le=16384, description="a whole number from 1 to 16384 (channels)")
    patch: Whole = Field(default=16, ge=1, le=512, description="a whole number from 1 to 512 (rows)")
    stride: Whole = Field(default=16, ge=1, le=512, description="a whole number from 1 to 512 (rows)")
    dropout: Real = Field(default=0.2, ge=0, lt=1, description="a number from 0 up to 1")


class TrainConfig(Section):
    """How the network is trained."""

    epochs: Whole = Field(default=2, ge=1, le=10_000, description="a whole number from 1 to 10000")
    least_steps: Whole = Field(default=100, ge=1, description="a whole number of steps from 1")
    most_steps: Whole = Field(default=2000, ge=1, description="a whole number of steps from 1")
    validations: Whole = Field(default=6, ge=1, le=1000, description="a whole number from 1 to 1000")
    batch_size: Whole = Field(default=256, ge=1, le=65536, description="a whole number of windows from 1 to 65536")
    lr: Real = Field(default=5e-4, gt=0, le=1, description="a number between 0 and 1")
    schedule: Literal["cosine", "halving"] = Field(default="cosine", description="cosine or halving")
    weight_decay: Real = Field(default=0.01, ge=0, le=10, description="a number from 0 to 10")
    loss: Literal["mse", "mae", "huber"] = Field(default="mae", description="mse, mae or huber")
    patience: Whole | None = Field(default=None, ge=1, description="a whole number of validations from 1, or null")
    max_time: Real | str | None = Field(
        default=None, description="seconds, or a text such as 90s, 20m, 2h, 1h30m, or null"
    )
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = Field(default="auto", description="auto, cpu, gpu or mps")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        default="32-true", description="auto, 32-true or bf16-mixed"
    )

    @field_validator("max_time")
    @classmethod
    def _is_duration(cls, value: float | str | None) -> float | str | None:
        if value is not None:
            parse_duration(value, name="train.max_time")
        return value


class FitConfig(Section):
    """Everything that decides a fit, the data apart; its defaults are the preset `auto`."""

    model: Literal["auto", "ridge", "smamba", "tsmamba", "causal"] = Field(
        default="auto", description=", ".join(MODELS)
    )
    lookback: Whole | Literal["auto"] = Field(default="auto", description="a whole number of rows from 1, or auto")
    levels: tuple[Real, ...] = Field(default=LEVELS, description="ascending numbers between 0 and 1")
    seasons: tuple[Whole, ...] | Literal["auto"] = Field(default="auto", description="a list of rows, or auto")
    valid_rows: Whole | Literal["auto"] = Field(default="auto", description="a whole number of rows from 1, or auto")
    refit: bool = Field(default=True, description="true or false")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="a whole number from 0 to 2^32 - 1")
    network: NetworkConfig = Field(default_factory=NetworkConfig, description="a section")
    train: TrainConfig = Field(default_factory=TrainConfig, description="a section")

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if not levels or list(levels) != sorted(set(levels)) or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError("levels must be ascending numbers between 0 and 1")
        return levels

    @model_validator(mode="after")
    def _positive(self) -> FitConfig:
        for name in ("lookback", "valid_rows"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name}={value} is not positive")
        if self.network.backbone in ("identity", "off") and self.model != "auto":
            raise ValueError(f"network.backbone={self.network.backbone} needs model=auto, not {self.model}")
        return self


def load_config(source: str | Path = DEFAULT_PRESET, overrides: Sequence[str] = (), **changes: Any) -> FitConfig:
    """The configuration of a preset or a YAML file, with some of its values changed.

    Args:
        source: a preset's name (the models' names are presets) or the path of a YAML file; what a file leaves out is as
            in the preset of its model.
        overrides: `KEY=VALUE` texts with dotted keys, values read as YAML (`train.epochs=5`).
        changes: dotted keys with `__` for the dot (`train__max_time="2m"`); None leaves the value as it is.

    Raises:
        UserError: naming the file and line or the option, the key, the value, what is accepted and the nearest key.
    """
    flags = {key.replace("__", "."): value for key, value in changes.items()}
    beneath = None
    if str(source) not in list_presets(APP):
        model = read_settings(APP, source).values.get("model", DEFAULT_PRESET)
        beneath = read_settings(APP, model).values if model in MODELS else None
    return load_settings(APP, FitConfig, source, overrides, flags, beneath=beneath)


def checked(settings: Mapping[str, Any], source: str | Path | None = None) -> FitConfig:
    """Checks settings and makes a configuration of them.

    Raises:
        UserError: naming each refused key and its value.
    """
    return validated(FitConfig, settings, path=source)
