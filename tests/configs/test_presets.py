"""Presets are complete, commented and accepted, and a schema's defaults are its default preset."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_origin

import pytest
import yaml

import tsmamba.config as tsmamba
from genomamba.classifier.config import DEFAULT_PRESET as CLASSIFIER
from genomamba.classifier.config import PRETRAINED_PRESET, FinetuneConfig
from genomamba.config import DEFAULT_PRESET, PretrainConfig, Section, load_config
from mamba_configs import list_presets, load_preset, preset_text

MASKED = [f"genomamba-bi-{size}" for size in ("470k", "1.4m", "1.9m", "7.7m")]
PRESETS = ["genomamba-1.4m", "genomamba-7m", "genomamba-tiny", *MASKED]
"""The presets for pre-training."""


def keys(schema: type[Section], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in schema.model_fields.items():
        kinds = () if get_origin(field.annotation) is tuple else (field.annotation, *get_args(field.annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
        found |= {prefix + name} if inner is None else keys(inner, f"{prefix}{name}.")
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
    named = keys(PretrainConfig) - {"fasta", "bed", "from_model", "content"}
    assert set(leaves(load_preset("genomamba", name))) == named


@pytest.mark.parametrize("name", list_presets("genomamba"))
def test_every_setting_has_a_comment(name: str) -> None:
    settings = [line for line in preset_text("genomamba", name).splitlines() if line.startswith("  ")]
    assert all("#" in line for line in settings)


def test_the_recipe_for_the_human_genome_names_every_setting_but_counts() -> None:
    named = {key for key in keys(PretrainConfig) if not key.startswith("counts.")}
    found = set(leaves(load_preset("genomamba", "genomamba-hg38")))
    assert found == named - {"fasta", "bed", "from_model", "content"} | {"counts"}


@pytest.mark.parametrize("name", [*PRESETS, "genomamba-hg38"])
def test_a_preset_means_what_it_says(name: str) -> None:
    written = leaves(load_preset("genomamba", name))
    checked = leaves(load_config(name).model_dump(mode="json"))
    assert {key: checked[key] for key in written} == written


def test_the_default_preset_is_the_defaults_of_the_schema() -> None:
    assert load_config() == PretrainConfig()
    assert tsmamba.load_config() == tsmamba.FitConfig()
    assert load_config(CLASSIFIER, schema=FinetuneConfig) == FinetuneConfig()


@pytest.mark.parametrize("name", list_presets("tsmamba"))
def test_a_forecaster_s_preset_names_every_setting_and_its_own_model(name: str) -> None:
    written = leaves(load_preset("tsmamba", name))
    assert set(written) == keys(tsmamba.FitConfig)
    assert written["model"] == name
    assert {key: leaves(tsmamba.load_config(name).model_dump(mode="json"))[key] for key in written} == written


@pytest.mark.parametrize("name", list_presets("tsmamba"))
def test_a_copied_preset_of_a_forecaster_is_a_configuration(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(preset_text("tsmamba", name))
    assert tsmamba.load_config(tmp_path / "mine.yaml") == tsmamba.load_config(name)


@pytest.mark.parametrize("name", list_presets("tsmamba"))
def test_what_a_file_leaves_out_is_as_in_the_preset_of_its_model(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"model: {name}\ntrain:\n  epochs: 7\n")
    assert tsmamba.load_config(tmp_path / "mine.yaml") == tsmamba.load_config(name, ["train.epochs=7"])


def test_a_file_for_a_classifier_leaves_the_rest_to_the_default_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("head:\n  pooling: last\nmodel:\n  n_layers: 3\n")
    found = load_config(tmp_path / "mine.yaml", schema=FinetuneConfig, default=CLASSIFIER)
    assert found == load_config(CLASSIFIER, ["head.pooling=last", "model.n_layers=3"], schema=FinetuneConfig)


def test_every_setting_of_a_classifier_beside_what_a_pre_trained_network_decides_is_in_its_preset() -> None:
    written = set(leaves(load_preset("genomamba", PRETRAINED_PRESET)))
    decided = {key for key in keys(FinetuneConfig) if key.startswith(("model.", "stem.", "table"))}
    unset = {"train.context_parallel", "train.tokens_per_step"}
    assert keys(FinetuneConfig) - written - unset == decided - {"stem.positions"}


def test_a_saved_preset_is_a_configuration_file(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(preset_text("genomamba", "genomamba-tiny"))
    assert load_config(file) == load_config("genomamba-tiny")
    assert yaml.safe_load(file.read_text()) == load_preset("genomamba", "genomamba-tiny")


def test_an_unknown_preset_is_refused_with_those_that_exist() -> None:
    with pytest.raises(KeyError, match=r"genomamba-1\.4m"):
        load_preset("genomamba", "genomamba-2m")
