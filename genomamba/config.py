"""What a pre-training run is made of: one frozen `PretrainConfig`, which the run folder keeps as `config.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from mamba_configs import list_presets, load_preset
from mamba_configs.settings import Real, Section, Whole, differences, leaves, load_settings, to_yaml, validated
from mamba_training.settings import parse_duration

__all__ = [
    "APP",
    "DEFAULT_PRESET",
    "CountsConfig",
    "DataConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PretrainConfig",
    "Real",
    "Section",
    "StageConfig",
    "TableShape",
    "TrainConfig",
    "Whole",
    "differences",
    "load_config",
    "to_yaml",
    "unknown_before",
    "validated",
]

APP = "genomamba"
DEFAULT_PRESET = "genomamba-1.4m"
HIGHEST_COUNTED: Final = 11
"""Bases of the longest contexts that a language model counts all of: 4 MB in its bundle."""
_ALL_HELD_TO: Final = 8


class ModelConfig(Section):
    """The shape of the network."""

    d_model: Whole = Field(default=128, ge=8, le=8192, description="a whole number from 8 to 8192 (channels)")
    n_layers: Whole = Field(default=12, ge=1, le=256, description="a whole number from 1 to 256")
    pattern: tuple[Literal["mamba", "mamba2", "s4d", "hyena", "attention"], ...] = Field(
        default=("mamba",),
        min_length=1,
        description="a list of mamba, mamba2, s4d, hyena and attention, repeated until n_layers are made",
    )
    d_state: Whole = Field(default=16, ge=1, le=256, description="a whole number from 1 to 256 (states per channel)")
    d_conv: Whole = Field(
        default=4, ge=1, le=16, description="a whole number from 1 to 16 (taps of the causal convolution)"
    )
    expand: Whole = Field(default=2, ge=1, le=8, description="a whole number from 1 to 8 (inner channels per channel)")
    bidirectional: Literal["none", "add", "concat"] = Field(default="none", description="none, add or concat")
    reverse_complement: Literal["none", "equivariant"] = Field(default="none", description="none or equivariant")
    tie_directions: bool = Field(default=True, description="true or false")
    n_heads: Whole | Literal["auto"] = Field(
        default="auto",
        description="a whole number that divides d_model into even parts, or auto",
    )
    dt_rank: Whole | Literal["auto"] = Field(
        default="auto", description="a whole number (rank of the step size's projection in mamba), or auto"
    )
    dt_min: Real = Field(default=1e-3, gt=0, le=10, description="a number from 0 to 10 (least initial step size)")
    dt_max: Real = Field(default=1e-1, gt=0, le=10, description="a number from 0 to 10 (greatest initial step size)")
    head_width: Whole | Literal["auto"] = Field(
        default="auto",
        description="a whole number that divides the inner channels (of a head of mamba2), or auto",
    )
    n_groups: Whole = Field(
        default=1, ge=1, le=256, description="a whole number that divides the heads of mamba2 (groups that share B, C)"
    )
    conv_bias: bool = Field(default=True, description="true or false")
    proj_bias: bool = Field(default=False, description="true or false")
    tie_embeddings: bool = Field(default=True, description="true or false (the output layer is the embedding)")
    chunk_size: Whole | Literal["auto"] | None = Field(
        default="auto", description="a whole number of positions, auto, or null for the whole window at once"
    )
    norm_eps: Real = Field(default=1e-5, gt=0, lt=1, description="a number between 0 and 1")
    embedding_std: Real = Field(default=0.02, gt=0, le=1, description="a number between 0 and 1")

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if isinstance(self.n_heads, int) and (self.n_heads < 1 or self.d_model % (2 * self.n_heads)):
            raise ValueError(f"n_heads={self.n_heads} does not divide d_model={self.d_model} into even parts")
        for name in ("chunk_size", "dt_rank", "head_width"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name}={value} is not positive")
        if self.reverse_complement == "equivariant" and self.d_model % 2:
            raise ValueError(f"d_model={self.d_model} is odd, and an equivariant model has half of it for each strand")
        if self.reverse_complement == "equivariant" and not self.tie_embeddings:
            raise ValueError("an equivariant model's output layer is its embedding: tie_embeddings=true")
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min={self.dt_min} is above dt_max={self.dt_max}")
        return self

    @property
    def layers(self) -> list[str]:
        """The mixer of each layer: `pattern` repeated up to `n_layers`."""
        return [self.pattern[index % len(self.pattern)] for index in range(self.n_layers)]


class TableShape(Section):
    """What is needed to build a table before its numbers are read.

    Attributes:
        order: bases of the contexts that are all held.
        long_contexts: how many contexts of `LONG_ORDER` bases are held.
    """

    order: Whole = Field(ge=0, le=HIGHEST_COUNTED, description=f"a whole number from 0 to {HIGHEST_COUNTED}")
    long_contexts: Whole = Field(ge=0, le=2**26, description="a whole number from 0")

    @property
    def held_orders(self) -> list[int]:
        """Lengths of the contexts that are all held; the shorter ones serve where a sequence begins or after an N."""
        return sorted({*range(min(self.order, _ALL_HELD_TO) + 1), self.order})

    @property
    def starts(self) -> list[int]:
        """Where the contexts of each of `held_orders` begin in the table."""
        sizes = [4**order for order in self.held_orders]
        return [sum(sizes[:index]) for index in range(len(sizes))]

    @property
    def size(self) -> int:
        """Contexts that are held but for the long ones."""
        return sum(4**order for order in self.held_orders)


class ObjectiveConfig(Section):
    """What a language model is asked in training."""

    kind: Literal["next_base", "masked"] = Field(default="next_base", description="next_base or masked")
    fraction: Real = Field(
        default=0.15, gt=0, lt=1, description="a number between 0 and 1 (share of the bases that masked asks for)"
    )


class CountsConfig(Section):
    """The table of contexts that is a part of the language model."""

    order: Whole | Literal["auto"] = Field(
        default="auto", description=f"a whole number of bases from 0 to {HIGHEST_COUNTED}, or auto"
    )
    long_contexts: Whole = Field(
        default=400_000, ge=0, le=2**26, description="a whole number of contexts of 16 bases, 0 for none"
    )

    @model_validator(mode="after")
    def _in_range(self) -> CountsConfig:
        if isinstance(self.order, int) and not 0 <= self.order <= HIGHEST_COUNTED:
            raise ValueError(f"order={self.order} is outside 0 .. {HIGHEST_COUNTED}")
        return self


class StageConfig(Section):
    """A part of a run on shorter windows."""

    window: Whole = Field(ge=16, le=2**24, description="a whole number of bases that divides data.window")
    share: Real = Field(gt=0, lt=1, description="a number between 0 and 1 (of the run)")


class DataConfig(Section):
    """Windows of the genome, and which of them are held out."""

    window: Whole = Field(
        default=4096, ge=16, le=2**24, description="a whole number from 16 to 2^24 (bases), such as 2^12"
    )
    max_n_fraction: Real = Field(default=0.5, ge=0, le=1, description="a number from 0 to 1")
    reverse_complement: bool = Field(default=True, description="true or false")
    valid_bases: Whole = Field(default=2**17, ge=1, description="a whole number (bases scored at each validation)")
    final_bases: Whole = Field(default=2**19, ge=1, description="a whole number (bases scored at the end)")
    split_seed: Whole = Field(default=0, ge=0, lt=2**63, description="a whole number from 0")
    workers: Whole = Field(
        default=0, ge=0, le=256, description="a whole number from 0 to 256 (processes that read windows)"
    )
    beyond_regions: bool = Field(default=False, description="true or false")
    stages: tuple[StageConfig, ...] = Field(
        default=(), description="a list such as [{window: 2^10, share: 0.1}], shorter windows first"
    )

    @model_validator(mode="after")
    def _rising(self) -> DataConfig:
        windows = [stage.window for stage in self.stages]
        if any(b <= a for a, b in pairwise([*windows, self.window])):
            raise ValueError(f"the stages' windows {windows} do not rise up to window={self.window}")
        if odd := [window for window in windows if self.window % window]:
            raise ValueError(f"a stage's window of {odd[0]} does not divide window={self.window}")
        if (total := sum(stage.share for stage in self.stages)) >= 1:
            raise ValueError(f"the stages' shares add up to {total:g}, and leave nothing to window={self.window}")
        return self


class OptimConfig(Section):
    """AdamW, its warm-up and its cosine."""

    lr: Real = Field(default=4e-3, gt=0, le=1, description="a number between 0 and 1")
    min_lr_fraction: Real = Field(
        default=0.05, ge=0, le=1, description="a number from 0 to 1 (of lr, where the cosine ends)"
    )
    warmup_steps: Whole | None = Field(
        default=None, ge=0, description="a whole number of steps, or null for a fiftieth of the run, at most 1000"
    )
    weight_decay: Real = Field(default=0.1, ge=0, le=10, description="a number from 0 to 10")
    beta1: Real = Field(default=0.9, ge=0, lt=1, description="a number from 0 up to 1")
    beta2: Real = Field(default=0.95, ge=0, lt=1, description="a number from 0 up to 1")
    grad_clip: Real = Field(default=1.0, gt=0, description="a number above 0 (norm of all gradients)")


class TrainConfig(Section):
    """How long, how much at a time, and on what."""

    max_steps: Whole | None = Field(default=None, ge=1, description="a whole number of steps from 1, or null")
    max_time: Real | str | None = Field(
        default=None, description="seconds, or a text such as 90s, 20m, 2h, 1h30m, or null"
    )
    tokens_per_step: Whole | Literal["auto"] = Field(default="auto", description="a whole number of bases, or auto")
    batch_size: Whole | Literal["auto"] = Field(default="auto", description="windows at a time on a device, or auto")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="a whole number from 0 to 2^32 - 1")
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = Field(default="auto", description="auto, cpu, gpu or mps")
    devices: Whole | Literal["auto"] = Field(default="auto", description="a whole number from 1, or auto")
    strategy: str = Field(default="auto", description="auto, ddp, fsdp or another strategy of Lightning")
    context_parallel: Whole = Field(default=1, ge=1, description="a whole number of devices that share each window")
    precision: Literal["auto", "32-true", "bf16-mixed", "bf16-true", "64-true"] = Field(
        default="auto", description="auto, 32-true, bf16-mixed, bf16-true or 64-true"
    )
    validate_every: Whole | Literal["auto"] = Field(default="auto", description="a whole number of steps, or auto")
    checkpoint_seconds: Real = Field(default=120, gt=0, description="a number of seconds above 0")

    @field_validator("max_time")
    @classmethod
    def _is_duration(cls, value: float | str | None) -> float | str | None:
        if value is not None:
            parse_duration(value, name="train.max_time")
        return value

    @model_validator(mode="after")
    def _positive(self) -> TrainConfig:
        for name in ("tokens_per_step", "batch_size", "devices", "validate_every"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name}={value} is not positive")
        return self


class PretrainConfig(Section):
    """Everything that decides a pre-training run."""

    fasta: str | None = Field(default=None, description="the path of a FASTA file")
    bed: str | None = Field(default=None, description="the path of a BED file, or null")
    from_model: str | None = Field(default=None, description="the model that training goes on with, or null")
    content: dict[str, str] | None = Field(default=None, description="hashes that the program writes")
    model: ModelConfig = Field(default_factory=ModelConfig, description="a section")
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig, description="a section")
    counts: CountsConfig | None = Field(
        default_factory=CountsConfig, description="a section, or null for a network without counts"
    )
    data: DataConfig = Field(default_factory=DataConfig, description="a section")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="a section")
    train: TrainConfig = Field(default_factory=TrainConfig, description="a section")

    @model_validator(mode="after")
    def _fits_the_objective(self) -> PretrainConfig:
        both_ways = self.model.bidirectional != "none" or self.model.reverse_complement != "none"
        if self.objective.kind == "next_base" and both_ways:
            raise ValueError(
                "model.bidirectional and model.reverse_complement must be none, or objective.kind masked: next-base "
                "prediction would see the base it predicts"
            )
        if self.objective.kind == "masked" and not both_ways:
            raise ValueError("objective.kind=masked needs a model that looks both ways: model.bidirectional=add")
        if self.data.beyond_regions and self.counts is not None:
            raise ValueError(
                "data.beyond_regions=true needs counts=null: its windows overlap, and each would find its own words in "
                "the counts of its neighbours"
            )
        return self


SchemaT = TypeVar("SchemaT", bound=Section)


def unknown_before(recorded: Mapping[str, Any], settings: Section) -> list[str]:
    """Dotted keys that a run's record lacks, as an earlier release wrote it, and that have their defaults now.

    A resumed run goes on as before with these; they are no difference from what is recorded.
    """
    known = {key for key, _ in leaves(recorded)}
    default = dict(leaves(type(settings)().model_dump(mode="json")))
    now = leaves(settings.model_dump(mode="json"))
    return [key for key, value in now if key not in known and key in default and default[key] == value]


def load_config(
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    schema: type[SchemaT] = PretrainConfig,
    flags: Mapping[str, Any] | None = None,
    default: str | None = DEFAULT_PRESET,
) -> SchemaT:
    """Lay settings over each other and check the result; see `mamba_configs.settings.load_settings`.

    Args:
        source: a preset's name or a YAML file; None takes the preset `default`, and so does what a file leaves out.
        overrides: `KEY=VALUE` texts with dotted keys, values read as YAML (`data.window=4096`).
        schema: the configuration to make.
        flags: dotted keys and values of the command's own options; None values are left out.
        default: the preset taken when `source` is None; None starts from the schema's defaults.

    Raises:
        UserError: naming the file and line or the option, the key, the value, what is accepted and the nearest key.
    """
    is_file = source is not None and str(source) not in list_presets(APP)
    beneath = load_preset(APP, default) if is_file and default is not None else None
    return load_settings(APP, schema, source if source is not None else default, overrides, flags, beneath=beneath)
