"""Reading YAML that people write: every file and value comes through here, and none can run code or use up the machine.

PyYAML alone lets the last of two equal keys win without a word, recurses as deeply as a file asks it to, and gives
aliases that a few lines unfold to billions of values. Here the first is refused with its line, and so are the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.reader import ReaderError

from mamba_configs.errors import UserError

__all__ = ["Document", "parse_yaml", "read_yaml", "write_yaml"]

_MOST_CHARACTERS = 1 << 20
_MOST_LEVELS = 32
_MOST_VALUES = 100_000
"""Values of a file once its aliases are unfolded."""

_MERGE = "tag:yaml.org,2002:merge"
"""The tag of the key `<<`, which takes over another mapping's keys."""

_Keys = tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """A mapping that was read from YAML, and where each of its keys stands.

    Attributes:
        values: the mapping, nested as it was written.
        lines: the 1-based line of each key, by the keys that lead to it.
        path: the file; None for a preset or for text that has none.
    """

    values: dict[str, Any]
    lines: Mapping[_Keys, int] = field(default_factory=dict)
    path: Path | None = None

    def line(self, dotted: str) -> int | None:
        """The line of a dotted key, or that of the nearest section above it that is written in the file."""
        keys = tuple(dotted.split("."))
        written = next((place for place in self.lines if ".".join(place) == dotted), keys)  # a key may hold dots itself
        if written in self.lines:
            return self.lines[written]
        return next((self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), None)


def read_yaml(path: str | Path) -> Document:
    """Read a file that holds a mapping of keys to values; an empty file is an empty mapping.

    Raises:
        UserError: the file cannot be read, is not YAML, holds something else, the same key twice, more than a file of
            settings can hold, or nests too deeply.
    """
    place = Path(path)
    try:
        with place.open("rb") as stream:
            data = stream.read(_MOST_CHARACTERS + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", path=place, fix="check the spelling of the path") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            "not a YAML file: it is not text in UTF-8", path=place, line=data.count(b"\n", 0, error.start) + 1
        ) from None
    return document(text, place)


def document(text: str, path: Path | None = None) -> Document:
    """Read a text that holds a mapping of keys to values; see `read_yaml`."""
    node = _composed(text, path)
    if node is None:
        return Document({}, {}, path)
    values = _constructed(node, path)
    if not isinstance(node, yaml.MappingNode) or not isinstance(values, dict):
        raise UserError(
            "holds no settings: these are a mapping of keys to values", path=path, found=values,
            accepted="lines of `key: value`",
        )  # fmt: skip
    lines: dict[_Keys, int] = {}
    _note_lines(node, (), lines)
    return Document(values, lines, path)


def parse_yaml(text: str) -> Any:
    """One value as people write it behind `KEY=`: `4096` is a number, `[mamba, attention]` a list.

    Raises:
        UserError: it is not YAML, or breaks a rule of `read_yaml`.
    """
    node = _composed(text, None)
    return None if node is None else _constructed(node, None)


def write_yaml(values: Mapping[str, Any]) -> str:
    """Values as YAML text that `read_yaml` reads back, keys in their order and nothing written by reference."""
    return yaml.dump(dict(values), Dumper=_Plain, sort_keys=False, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Writes a value that appears twice out twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _composed(text: str, path: Path | None) -> yaml.Node | None:
    """The tree of a text that is neither too long, nor too deep, nor unfolds to too much, nor says a key twice."""
    if len(text) > _MOST_CHARACTERS:
        raise UserError("too long to be settings", path=path, accepted=f"up to {_MOST_CHARACTERS:,} characters")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_LEVELS:
                raise UserError(
                    "nested too deeply to be settings", path=path, line=_line(event.start_mark),
                    accepted=f"up to {_MOST_LEVELS} levels",
                )  # fmt: skip
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, path, text) from None
    if node is not None:
        _check_node(node, path, {})
    return node


def _constructed(node: yaml.Node, path: Path | None) -> Any:
    try:
        return SafeConstructor().construct_document(node)
    except yaml.YAMLError as error:
        raise _not_yaml(error, path) from None
    except (ValueError, TypeError, OverflowError, AttributeError, LookupError) as error:
        # A date such as 2024-99-99 or a number of 5,000 digits: PyYAML leaves these to Python's own constructors.
        raise UserError(f"a value cannot be read: {error}", path=path, line=_line(node.start_mark)) from None


def _not_yaml(error: yaml.YAMLError, path: Path | None, text: str = "") -> UserError:
    mark = getattr(error, "problem_mark", None)
    detail = getattr(error, "problem", None) or str(error).splitlines()[0]
    line = None if mark is None or path is None else _line(mark)
    if isinstance(error, ReaderError) and path is not None:  # a character that no YAML file may hold
        line = text.count("\n", 0, int(error.position)) + 1
    return UserError(f"not a YAML file: {detail}" if path is not None else f"not YAML: {detail}", path=path, line=line)


def _check_node(node: yaml.Node, path: Path | None, sizes: dict[int, int]) -> int:
    """How many values a tree unfolds to; a part that several aliases name is walked once.

    Raises:
        UserError: it unfolds to too many, holds itself, or a mapping has a key twice or one that is no text.
    """
    known = sizes.get(id(node))
    if known is not None:
        if known == 0:
            raise UserError("holds itself", path=path, line=_line(node.start_mark), fix="write the value out")
        return known
    sizes[id(node)] = 0
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, path)
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = list(node.value)
    elif node.tag != _MERGE:
        _constructed(node, path)
    size = 1 + sum(_check_node(part, path, sizes) for part in parts)
    if size > _MOST_VALUES:
        raise UserError(
            "unfolds to more values than settings have", path=path, line=_line(node.start_mark),
            accepted=f"up to {_MOST_VALUES:,} values", fix="write values out rather than by aliases (*name)",
        )  # fmt: skip
    sizes[id(node)] = size
    return size


def _check_keys(node: yaml.MappingNode, path: Path | None) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = _line(key.start_mark)
        if not isinstance(key, yaml.ScalarNode):
            raise UserError("a key is no word", path=path, line=line, accepted="lines of `key: value`")
        if key.value in seen:
            raise UserError(
                "the same key twice", path=path, line=line, found=key.value,
                fix=f"remove it, or the one in line {seen[key.value]:,}",
            )  # fmt: skip
        seen[key.value] = line
        if key.tag not in ("tag:yaml.org,2002:str", _MERGE):
            raise UserError("a key is no word", path=path, line=line, found=key.value, fix="put it in quotes")


def _note_lines(node: yaml.Node, keys: _Keys, lines: dict[_Keys, int]) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        place = (*keys, str(key.value))
        lines[place] = _line(key.start_mark)
        _note_lines(value, place, lines)


def _line(mark: yaml.Mark) -> int:
    return mark.line + 1
