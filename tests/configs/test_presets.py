"""Presets are complete, commented and accepted."""

from __future__ import annotations

import pytest
import yaml

from genomamba.config import DEFAULT_PRESET, PretrainConfig, Section, load_config
from mamba_configs import list_presets, load_preset, preset_text

PRESETS = ["genomamba-1.4m", "genomamba-7m", "genomamba-tiny"]
"""Those for pre-training."""


def keys(schema: type[Section], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in schema.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            found |= keys(inner, f"{prefix}{name}.")
        else:
            found.add(prefix + name)
    return found


def leaves(tree: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def test_the_promised_presets_exist() -> None:
    assert set(PRESETS) <= set(list_presets("genomamba"))
    assert DEFAULT_PRESET in PRESETS
    assert list_presets("no-such-application") == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_every_setting(name: str) -> None:
    assert set(leaves(load_preset("genomamba", name))) == keys(PretrainConfig) - {"fasta", "bed", "content"}


@pytest.mark.parametrize("name", list_presets("genomamba"))
def test_every_setting_has_a_comment(name: str) -> None:
    settings = [line for line in preset_text("genomamba", name).splitlines() if line.startswith("  ")]
    assert all("#" in line for line in settings)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_means_what_it_says(name: str) -> None:
    written = leaves(load_preset("genomamba", name))
    checked = leaves(load_config(name).model_dump(mode="json"))
    assert {key: checked[key] for key in written} == written


def test_the_default_preset_is_the_defaults_of_the_schema() -> None:
    assert load_config() == PretrainConfig()


def test_a_saved_preset_is_a_configuration_file(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(preset_text("genomamba", "genomamba-tiny"))
    assert load_config(file) == load_config("genomamba-tiny")
    assert yaml.safe_load(file.read_text()) == load_preset("genomamba", "genomamba-tiny")


def test_an_unknown_preset_is_refused_with_those_that_exist() -> None:
    with pytest.raises(KeyError, match=r"genomamba-1\.4m"):
        load_preset("genomamba", "genomamba-2m")
