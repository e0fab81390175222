"""What a pre-training run is made of, checked before anything is computed.

Settings are laid over each other in one order: the preset (or the file), then `--set KEY=VALUE`, then the dedicated
flags of the command. The result is one frozen `PretrainConfig`, which the run folder keeps as `config.yaml`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from mamba_data_prep.errors import UserError
from mamba_training.settings import parse_duration

APP = "genomamba"
DEFAULT_PRESET = "genomamba-1.4m"


def _number(value: Any) -> Any:
    """Reads `2^20`, `1e6` and `8e-3`, which YAML leaves as text; refuses booleans, which Python counts as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers")
    if not isinstance(value, str):
        return value
    text = value.strip().replace("_", "").replace("**", "^")
    try:
        if "^" in text:
            base, exponent = (int(part) for part in text.split("^"))
            if not (0 < base <= 1024 and 0 <= exponent <= 64):
                return value
            return base**exponent
        number = float(text)
    except ValueError:
        return value
    return int(number) if math.isfinite(number) and number == int(number) else number


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]


class Section(BaseModel):
    """A part of a configuration: unknown keys are refused, values don't change after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class ModelConfig(Section):
    """The shape of the network."""

    d_model: Whole = Field(default=128, ge=8, le=8192, description="a whole number from 8 to 8192 (channels)")
    n_layers: Whole = Field(default=12, ge=1, le=256, description="a whole number from 1 to 256")
    pattern: tuple[Literal["mamba", "mamba2", "s4d", "attention"], ...] = Field(
        default=("mamba",),
        min_length=1,
        description="a list of mamba, mamba2, s4d and attention, repeated until n_layers are made",
    )
    d_state: Whole = Field(default=16, ge=1, le=256, description="a whole number from 1 to 256 (states per channel)")
    d_conv: Whole = Field(
        default=4, ge=1, le=16, description="a whole number from 1 to 16 (taps of the causal convolution)"
    )
    expand: Whole = Field(default=2, ge=1, le=8, description="a whole number from 1 to 8 (inner channels per channel)")
    bidirectional: Literal["none", "add", "concat"] = Field(default="none", description="none, add or concat")
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
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min={self.dt_min} is above dt_max={self.dt_max}")
        return self

    @property
    def layers(self) -> list[str]:
        """The mixer of each layer: `pattern` repeated up to `n_layers`."""
        return [self.pattern[index % len(self.pattern)] for index in range(self.n_layers)]


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
    content: dict[str, str] | None = Field(default=None, description="hashes that the program writes")
    model: ModelConfig = Field(default_factory=ModelConfig, description="a section")
    data: DataConfig = Field(default_factory=DataConfig, description="a section")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="a section")
    train: TrainConfig = Field(default_factory=TrainConfig, description="a section")

    @model_validator(mode="after")
    def _causal(self) -> PretrainConfig:
        if self.model.bidirectional != "none":
            raise ValueError("model.bidirectional must be none: next-base prediction would see the base it predicts")
        return self


SchemaT = TypeVar("SchemaT", bound=Section)


def load_config(
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    schema: type[SchemaT] = PretrainConfig,
    flags: Mapping[str, Any] | None = None,
    default: str | None = DEFAULT_PRESET,
) -> SchemaT:
    """Lays settings over each other and checks the result.

    Args:
        source: a preset's name or a YAML file; None takes the preset `default`.
        overrides: `KEY=VALUE` texts with dotted keys, values read as YAML (`data.window=4096`).
        schema: the configuration to make.
        flags: dotted keys and values of the command's own options; None values are left out.
        default: the preset taken when `source` is None; None starts from the schema's defaults.

    Raises:
        UserError: naming the key, the value, what is accepted and the nearest key.
    """
    chosen = source if source is not None else default
    settings = read_settings(chosen) if chosen is not None else {}
    for text in overrides:
        key, value = parse_override(text)
        _put(settings, key, value, f"--set {text}")
    for key, value in (flags or {}).items():
        if value is not None:
            _put(settings, key, value, key)
    return validated(schema, settings, path=chosen if chosen is not None and Path(str(chosen)).is_file() else None)


def read_settings(source: str | Path) -> dict[str, Any]:
    """The nested settings of a preset's name or of a YAML file.

    Raises:
        UserError: no such preset or file, or the file is not a YAML mapping.
    """
    from mamba_configs import list_presets, load_preset

    presets = list_presets(APP)
    if str(source) in presets:
        return load_preset(APP, str(source))
    path = Path(source)
    if not path.is_file():
        near = difflib.get_close_matches(str(source), presets, n=1)
        raise UserError(
            "no such preset, and no such file" if not path.is_dir() else "a folder, not a configuration file",
            found=str(source),
            accepted=f"{', '.join(presets)}, or the path of a YAML file",
            fix=f"did you mean {near[0]}?" if near else None,
        )
    return _read_yaml(path)


def parse_override(text: str) -> tuple[str, Any]:
    """Reads one `KEY=VALUE`; the value is YAML, so `4096` is a number and `[mamba, attention]` a list.

    Raises:
        UserError: there is no `=`, no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError("--set needs KEY=VALUE", found=text, accepted="for example --set data.window=4096")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError("the value of --set cannot be read", found=text, accepted="a YAML value") from error


def validated(schema: type[SchemaT], settings: Mapping[str, Any], *, path: str | Path | None = None) -> SchemaT:
    """Checks settings against a schema.

    Raises:
        UserError: every refused key with its value, what is accepted and the nearest key.
    """
    try:
        return schema.model_validate(dict(settings))
    except ValidationError as error:
        raise _explained(schema, error, path) from None


def to_yaml(config: Section) -> str:
    """The configuration as YAML text that `load_config` reads back to the same values."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(one: Section, other: Section) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ between two configurations of one schema, with both values."""
    left, right = dict(_leaves(one.model_dump())), dict(_leaves(other.model_dump()))
    return {key: (left.get(key), right.get(key)) for key in left | right if left.get(key) != right.get(key)}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_duplicates(yaml.compose(text, Loader=yaml.SafeLoader), path)
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        detail = getattr(error, "problem", None) or "not text in UTF-8"
        raise UserError(f"not a YAML file ({detail})", path=path, line=line) from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError("a configuration is a mapping of keys to values", path=path, found=settings)
    return settings


def _refuse_duplicates(node: yaml.Node | None, path: Path) -> None:
    """PyYAML lets the last of two equal keys win without a word."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_duplicates(child, path)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise UserError("the same key twice", path=path, line=key.start_mark.line + 1, found=key.value)
        seen.add(key.value)
        _refuse_duplicates(value, path)


def _put(settings: dict[str, Any], key: str, value: Any, origin: str) -> None:
    *sections, last = key.split(".")
    place = settings
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise UserError(f"{section} is a value, not a section", found=origin)
    place[last] = value


def _explained(schema: type[Section], error: ValidationError, path: str | Path | None) -> UserError:
    """One error for all refused keys; the first gives the detail, the others follow in the sentence."""
    problems: dict[str, UserError] = {}
    for item in error.errors():
        key, owner, field = _locate(schema, item["loc"])
        if key in problems:
            continue
        if item["type"] == "extra_forbidden":
            problems[key] = _unknown_key(schema, key, owner, path)
        elif item["type"] == "value_error":
            where = f"{key}: " if key else ""
            problem = where + str(item["msg"]).removeprefix("Value error, ")
            problems[key] = UserError(problem, path=path, accepted=field)
        else:
            problems[key] = UserError(f"{key} cannot be this", path=path, found=item["input"], accepted=field)
    first, *others = problems.values()
    if not others:
        return first
    return UserError("\n".join(str(problem) for problem in [first, *others]))


def _unknown_key(schema: type[Section], key: str, owner: type[Section], path: str | Path | None) -> UserError:
    siblings = list(owner.model_fields)
    everywhere = [name for name, _ in _leaves(_template(schema))]
    last = key.rpartition(".")[2]
    near = [f"{key.rpartition('.')[0]}.{name}".lstrip(".") for name in difflib.get_close_matches(last, siblings, n=1)]
    near = near or [name for name in everywhere if name.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(key, everywhere, n=1)
    return UserError(
        f"there is no setting {key}",
        path=path,
        accepted=", ".join(siblings),
        fix=f"did you mean {near[0]}?" if near else None,
    )


def _template(schema: type[Section]) -> dict[str, Any]:
    sections = {name: _section(field.annotation) for name, field in schema.model_fields.items()}
    return {name: None if inner is None else _template(inner) for name, inner in sections.items()}


def _section(annotation: Any) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _locate(schema: type[Section], location: tuple[int | str, ...]) -> tuple[str, type[Section], str | None]:
    """Dotted key, the section it stands in, and what the field accepts; the names of union members are left out."""
    owner, keys = schema, []
    for part in location:
        keys.append(str(part))
        field = owner.model_fields.get(str(part))
        if field is None:
            return ".".join(keys), owner, None
        inner = _section(field.annotation)
        if inner is None:
            return ".".join(keys), owner, field.description
        if part is location[-1]:
            return ".".join(keys), owner, ", ".join(inner.model_fields)
        owner = inner
    return ".".join(keys), owner, None
