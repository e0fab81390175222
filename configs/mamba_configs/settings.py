"""How both applications take their settings: presets or files, changed by `--set KEY=VALUE` and by options.

Settings are laid over each other in one order: the preset (or the file), then `--set KEY=VALUE`, then the dedicated
options of the command. The result is one frozen `Section`, checked before anything is computed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from mamba_configs import list_presets, preset_text
from mamba_configs.errors import UserError
from mamba_configs.yaml_files import Document, document, parse_yaml, read_yaml, write_yaml

__all__ = [
    "Real",
    "Section",
    "Whole",
    "differences",
    "leaves",
    "load_settings",
    "parse_override",
    "read_settings",
    "to_yaml",
    "validated",
]


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
"""A whole number, also as `2^20` or `1e6`."""
Real = Annotated[float, BeforeValidator(_number)]
"""A number, also as `8e-3`."""


class Section(BaseModel):
    """A part of a configuration: unknown keys are refused, and values don't change after the check.

    Each field's description says in a few words what it accepts; it is shown to whoever gives something else.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


SchemaT = TypeVar("SchemaT", bound=Section)


def load_settings(
    app: str,
    schema: type[SchemaT],
    source: str | Path | None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    *,
    beneath: Mapping[str, Any] | None = None,
) -> SchemaT:
    """Lay settings over each other and check the result.

    Args:
        app: the application whose presets are meant, `genomamba` or `tsmamba`.
        schema: the configuration to make.
        source: a preset's name or a YAML file; None starts from the schema's defaults.
        overrides: `KEY=VALUE` texts with dotted keys, values read as YAML (`data.window=4096`).
        flags: dotted keys and values of the command's own options; None values are left out.
        beneath: nested settings that hold where `source` says nothing, in place of the schema's defaults.

    Raises:
        UserError: naming the file and line or the option, the key, the value, what is accepted and the nearest key.
    """
    read = read_settings(app, source) if source is not None else Document({})
    given = _Given(_laid_over(beneath or {}, read.values), read)
    for text in overrides:
        key, value = parse_override(text)
        given.put(key, value, f"--set {text}")
    for key, value in (flags or {}).items():
        if value is not None:
            given.put(key, value, key)
    return _checked(schema, given)


def read_settings(app: str, source: str | Path) -> Document:
    """The nested settings of a preset's name or of a YAML file.

    Raises:
        UserError: there is no such preset or file, or the file is not a YAML mapping.
    """
    presets = list_presets(app)
    if str(source) in presets:
        return document(preset_text(app, str(source)))
    path = Path(source)
    if not path.is_file():
        near = difflib.get_close_matches(str(source), presets, n=1)
        raise UserError(
            "is a folder, not a configuration file" if path.is_dir() else "there is no such preset, and no such file",
            found=str(source), accepted=f"{', '.join(presets)}, or the path of a YAML file",
            fix=f"did you mean {near[0]}?" if near else None,
        )  # fmt: skip
    return read_yaml(path)


def parse_override(text: str) -> tuple[str, Any]:
    """Read one `KEY=VALUE`; the value is YAML, so `4096` is a number and `[mamba, attention]` a list.

    Raises:
        UserError: there is no `=`, no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError("--set needs KEY=VALUE", found=text, accepted="for example --set seed=1")
    try:
        return key.strip(), parse_yaml(value)
    except UserError as error:
        raise UserError(
            f"the value of --set cannot be read ({error.problem})", found=text, accepted="a YAML value"
        ) from None


def validated(schema: type[SchemaT], settings: Mapping[str, Any], *, path: str | Path | None = None) -> SchemaT:
    """Check settings against a schema.

    Raises:
        UserError: every refused key with its value, what is accepted and the nearest key.
    """
    return _checked(schema, _Given(dict(settings), Document({}, {}, None if path is None else Path(path))))


def to_yaml(config: Section) -> str:
    """The configuration as YAML text that `load_settings` reads back to the same values."""
    return write_yaml(config.model_dump(mode="json"))


def differences(one: Section, other: Section) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ between two configurations of one schema, with both values."""
    left, right = dict(leaves(one.model_dump())), dict(leaves(other.model_dump()))
    return {key: (left.get(key), right.get(key)) for key in left | right if left.get(key) != right.get(key)}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings, in their order."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@dataclass
class _Given:
    """Settings that were laid over each other, and where each of them came from.

    Attributes:
        values: nested, changed by `put`.
        read: the file or preset beneath.
        origins: what the user wrote, by dotted key, where it was not in the file.
    """

    values: dict[str, Any]
    read: Document
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, dotted: str, value: Any, origin: str) -> None:
        """Lay one value over what is there."""
        *sections, last = dotted.split(".")
        place = self.values
        for section in sections:
            if place.get(section) is None:
                place[section] = {}
            place = place[section]
            if not isinstance(place, dict):
                raise UserError(f"{section} is a value, not a section", found=origin)
        place[last] = value
        self.origins[dotted] = origin

    def place(self, dotted: str) -> dict[str, Any]:
        """The file and line of a key, as a `UserError` takes them; nothing for what stood on the command line."""
        if any(dotted == key or dotted.startswith(f"{key}.") for key in self.origins) or self.read.path is None:
            return {}
        return {"path": self.read.path, "line": self.read.line(dotted)}


def _laid_over(beneath: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with others on top; where both have a section, key by key."""
    whole = dict(beneath)
    for key, value in above.items():
        lower = whole.get(key)
        if isinstance(lower, Mapping) and isinstance(value, Mapping):
            value = _laid_over(lower, value)
        whole[key] = value
    return whole


def _checked(schema: type[SchemaT], given: _Given) -> SchemaT:
    try:
        return schema.model_validate(given.values)
    except ValidationError as error:
        raise _explained(schema, error, given) from None
    except UserError as error:  # a value that is read by more than a type, such as a length of time
        place = given.place(error.problem.partition(" ")[0])
        raise UserError(
            error.problem, **place, found=error.found, accepted=error.accepted, fix=error.fix
        ) from None  # fmt: skip


def _explained(schema: type[Section], error: ValidationError, given: _Given) -> UserError:
    """One error for all refused keys, each with its place, its value and what is accepted."""
    problems: dict[str, UserError] = {}
    for item in error.errors():
        key, owner, accepted = _locate(schema, item["loc"])
        if key in problems:
            continue
        place = given.place(key)
        if item["type"] == "extra_forbidden":
            problems[key] = _unknown_key(schema, key, owner, place)
        elif item["type"] == "value_error":
            where = f"{key}: " if key else ""
            problem = where + str(item["msg"]).removeprefix("Value error, ")
            found = item["input"] if accepted is not None else None
            problems[key] = UserError(problem, **place, found=found, accepted=accepted)
        else:
            problems[key] = UserError(f"{key} cannot be this", **place, found=item["input"], accepted=accepted)
    first, *others = problems.values()
    return first if not others else UserError("\n".join(str(problem) for problem in [first, *others]))


def _unknown_key(schema: type[Section], key: str, owner: type[Section], place: Mapping[str, Any]) -> UserError:
    siblings = list(owner.model_fields)
    everywhere = [name for name, _ in leaves(_template(schema))]
    section, _, last = key.rpartition(".")
    near = [f"{section}.{name}".lstrip(".") for name in difflib.get_close_matches(last, siblings, n=1)]
    near = near or [name for name in everywhere if name.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(key, everywhere, n=1)
    fix = f"did you mean {near[0]}?" if near else None
    return UserError(f"there is no setting {key}", **place, accepted=", ".join(siblings), fix=fix)


def _template(schema: type[Section]) -> dict[str, Any]:
    sections = {name: _section(field.annotation) for name, field in schema.model_fields.items()}
    return {name: None if inner is None else _template(inner) for name, inner in sections.items()}


def _section(annotation: Any) -> type[Section] | None:
    """The section that a field holds, also where the field may be left empty."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _locate(schema: type[Section], location: tuple[int | str, ...]) -> tuple[str, type[Section], str | None]:
    """Dotted key, the section it stands in, and what the field accepts; the names of union members are left out."""
    owner, keys = schema, []
    for number, part in enumerate(location):
        keys.append(str(part))
        found = owner.model_fields.get(str(part))
        if found is None:
            return ".".join(keys), owner, None
        inner = _section(found.annotation)
        if inner is None:
            return ".".join(keys), owner, found.description
        if number == len(location) - 1:
            return ".".join(keys), owner, ", ".join(inner.model_fields)
        owner = inner
    return ".".join(keys), owner, None
