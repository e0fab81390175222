"""A backbone's config says which key is wrong, what was found, and what is accepted."""

from __future__ import annotations

import json

import pytest

from mamba_kernels.blocks import BackboneConfig

GOOD = {"d_model": 32, "layers": ["mamba", "attention"]}


def test_round_trip_through_json():
    config = BackboneConfig(d_model=48, layers=["mamba"] * 3, bidirectional="concat", chunk_size=64, n_heads=3)
    assert BackboneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_can_be_hashed_and_cannot_be_changed():
    config = BackboneConfig(**GOOD)
    assert hash(config) == hash(BackboneConfig(**GOOD))
    with pytest.raises(AttributeError, match="d_model"):
        config.d_model = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_derived_widths():
    config = BackboneConfig(d_model=72, layers=["mamba"])
    assert (config.d_inner, config.rank, config.head_count) == (144, 5, 1)
    halves = BackboneConfig(d_model=72, layers=["mamba"], reverse_complement="equivariant")
    assert (halves.strand_width, halves.d_inner, halves.rank) == (36, 72, 3)


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("d_model", 0, "a whole number of at least 1"),
        ("d_state", -1, "a whole number of at least 1"),
        ("d_conv", 0, "a whole number of at least 1"),
        ("layers", [], "at least one of attention, hyena, mamba, mamba2, s4d"),
        ("layers", ["mamba", "lstm"], "one of attention, hyena, mamba, mamba2, s4d"),
        ("bidirectional", "both", "one of none, add, concat"),
        ("reverse_complement", "yes", "one of none, augment, equivariant"),
        ("dt_rank", "automatic", "'auto' or a whole number of at least 1"),
        ("dt_rank", 0, "'auto' or a whole number of at least 1"),
        ("n_heads", 5, "a number of heads that divides 32 channels"),
        ("chunk_size", 0, "'auto', null or a whole number of at least 1"),
        ("chunk_size", "big", "'auto', null or a whole number of at least 1"),
        ("norm_eps", 0.0, "a finite number above 0"),
        ("dt_min", float("nan"), "a finite number above 0"),
        ("dt_min", 0.5, "a number not above dt_max = 0.1"),
        ("expand", 1.01, "a number whose product with 32 channels is whole"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(key, value, accepted):
    with pytest.raises(ValueError, match="backbone config") as caught:
        BackboneConfig(**{**GOOD, key: value})
    text = str(caught.value)
    assert text.startswith(f"backbone config: {key}")
    assert accepted in text
    assert repr(value if key != "layers" or not value else "lstm") in text or value == []


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("head_width", 48, "'auto' or a divisor of 64 inner channels"),
        ("head_width", 0, "'auto' or a whole number of at least 1"),
        ("n_groups", 3, "a divisor of 4 heads"),
        ("d_state", 7, "an even number, since the states of s4d are pairs"),
        ("n_groups", 0, "a whole number of at least 1"),
    ],
)
def test_heads_groups_and_pairs_come_out_even(key, value, accepted):
    with pytest.raises(ValueError, match=f"backbone config: {key} = {value} is not accepted; it must be {accepted}"):
        BackboneConfig(**{"d_model": 32, "layers": ["mamba2", "s4d"], "head_width": 16, key: value})


def test_heads_of_mamba2_are_up_to_64_wide():
    def width(d_model):
        return BackboneConfig(d_model=d_model, layers=["mamba2"]).channels_per_head

    assert [width(d) for d in (8, 32, 48, 64, 128, 59)] == [16, 64, 48, 64, 64, 59]


def test_an_unknown_key_is_named():
    with pytest.raises(ValueError, match="unknown key 'd_modle'; accepted: d_model, layers"):
        BackboneConfig.from_dict({**GOOD, "d_modle": 3})


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="key 'layers' is missing"):
        BackboneConfig.from_dict({"d_model": 3})


def test_strands_need_an_even_width():
    with pytest.raises(ValueError, match="d_model = 7 is not accepted; it must be an even number"):
        BackboneConfig(d_model=7, layers=["mamba"], reverse_complement="equivariant")
