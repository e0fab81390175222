"""YAML that people write is read with its lines, and files that would confuse or exhaust a reader are refused."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genomamba.config import load_config as load_dna
from mamba_configs.yaml_files import document, parse_yaml, read_yaml, write_yaml
from mamba_data_prep.errors import UserError
from mamba_data_prep.series import ReadOptions
from mamba_training.run_folder import read_config
from tsmamba.config import load_config as load_series

NINE = "abcdefghi"
ALIAS_BOMB = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in itertools.pairwise(NINE)
)
"""Nine lines that unfold to 9^9 numbers."""
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(['*' + before] * 9)}]}}\n" for before, name in itertools.pairwise(NINE)
)
BAD = {
    "alias bomb": (ALIAS_BOMB, "unfolds to more values", 6),
    "merge bomb": (MERGE_BOMB, "unfolds to more values", 6),
    "20,000 brackets": ("[" * 20_000, "nested too deeply", 1),
    "20,000 braces": ("{a: " * 20_000, "nested too deeply", 1),
    "stairs": ("\n".join(" " * n + "a:" for n in range(500)), "nested too deeply", 33),
    "holds itself": ("a: 1\nb: &b [*b]", "holds itself", 2),
    "same key twice": ("a: 1\nb: 2\na: 3\n", "the same key twice", 3),
    "same key twice inside": ("s:\n  a: 1\n  a: 3\n", "the same key twice", 3),
    "5,000 digits": ("a: 0\nb: " + "1" * 5000, "cannot be read", 2),
    "no such day": ("a: 0\nb: 2024-99-99", "cannot be read", 2),
    "code": ("a: 0\nb: !!python/object/apply:os.getcwd []", "not a YAML file", 2),
    "no such type": ("a: 0\nb: !!timestamp never", "cannot be read", 2),
    "number as key": ("a: 0\n1: 2", "a key is no word", 2),
    "list as key": ("a: 0\n? [b]\n: 2", "a key is no word", 2),
    "two documents": ("a: 0\n---\nb: 2", "not a YAML file", 2),
    "a list": ("- 1\n- 2\n", "mapping of keys to values", None),
    "words": ("just words", "mapping of keys to values", None),
    "control character": ("a: 1\nb: \x00", "not a YAML file", 2),
}
READERS: dict[str, Callable[[Path], object]] = {
    "a file": read_yaml,
    "genomamba --config": load_dna,
    "tsmamba --config": load_series,
    "tsmamba --rules": ReadOptions.load,
    "a run's config.yaml": lambda path: read_config(path.parent),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_at_once_by_name_and_line(name: str, reader: str, tmp_path: Path) -> None:
    text, words, line = BAD[name]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(UserError) as refused:
        READERS[reader](path)
    assert time.process_time() - began < 5
    assert words in str(refused.value)
    assert (refused.value.path, refused.value.line) == (path, line)


def test_a_file_that_is_too_long_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: 1  # " + "x" * (1 << 21))
    with pytest.raises(UserError, match="too long to be settings"):
        read_yaml(path)


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(UserError, match=r"config\.yaml, line 2: not a YAML file"):
        read_yaml(path)


def test_each_key_has_its_line() -> None:
    found = document("# settings\na: 1\ns:\n  b: 2\n\n  c: {d: 3}\n")
    assert found.values == {"a": 1, "s": {"b": 2, "c": {"d": 3}}}
    assert [found.line(key) for key in ("a", "s", "s.b", "s.c.d", "s.e", "f")] == [2, 3, 4, 6, 3, None]


def test_aliases_that_stay_small_are_read() -> None:
    assert document("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a\n").values == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1},
    }


def test_values_written_twice_are_written_out() -> None:
    same = [1, 2]
    text = write_yaml({"a": same, "b": same, "größe": None})
    assert "&" not in text
    assert document(text).values == {"a": [1, 2], "b": [1, 2], "größe": None}


@pytest.mark.parametrize(
    ("text", "value"), [("4096", 4096), ("[a, b]", ["a", "b"]), ("", None), ("null", None), ("8e-3", "8e-3")]
)
def test_one_value_is_read_as_yaml(text: str, value: object) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("skpi: 2\n", ["line 1", "skpi", "did you mean skip?"]),
        ("time: day\nskip: two\n", ["line 2", "skip cannot be this", "two", "a whole number"]),
        ("target: {a: 1}\n", ["line 1", "target cannot be this", "a list of names"]),
        ("dayfirst: 1\n", ["dayfirst cannot be this", "true or false"]),
        ("layout: tall\n", ["layout", "tall", "wide, long, single"]),
    ],
)
def test_wrong_reading_rules_are_refused_with_line_and_remedy(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        ReadOptions.load(path)
    assert [word for word in [*words, "rules.yaml"] if word not in str(refused.value)] == []


def test_a_value_that_is_no_length_of_time_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for load in (load_dna, load_series):
        path.write_text("train:\n  seed: 1\n  max_time: soon\n")
        with pytest.raises(UserError, match="is not a length of time") as refused:
            load(path)
        assert (refused.value.path, refused.value.line, refused.value.found) == (path, 3, "soon")
        path.write_text("train:\n  patience: 1\n")
        with pytest.raises(UserError, match="is not a length of time") as refused:
            load(path, ("train.max_time=soon",))
        assert refused.value.path is None


def test_a_key_that_holds_dots_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("train:\n  max_time: 20m\nabout 0.1 million: 2\n")
    for load in (load_dna, load_series, ReadOptions.load):
        if load == ReadOptions.load:
            path.write_text("dayfirst: true\n\nabout 0.1 million: 2\n")
        with pytest.raises(UserError, match="there is no s") as refused:
            load(path)
        assert (refused.value.path, refused.value.line) == (path, 3)
