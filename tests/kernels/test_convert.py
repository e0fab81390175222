"""What the converters refuse, and the way there and back."""

from __future__ import annotations

import pytest
import torch
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_kernels.convert import from_transformers, to_transformers

CONFIG = BackboneConfig(d_model=8, layers=["mamba"] * 2, d_state=3)


def theirs():
    return to_transformers(CONFIG, Backbone(CONFIG).state_dict(), torch.randn(16, 8))


def test_there_and_back():
    state = Backbone(CONFIG).state_dict()
    embedding, head = torch.randn(16, 8), torch.randn(16, 8)
    back = from_transformers(*to_transformers(CONFIG, state, embedding, head))
    assert back.config.to_dict() == {**CONFIG.to_dict(), "dt_rank": 1}
    assert back.backbone.keys() == state.keys()
    assert all(torch.equal(back.backbone[name], state[name]) for name in state)
    assert torch.equal(back.embedding, embedding)
    assert back.head is not None
    assert torch.equal(back.head, head)


def test_a_tied_head_is_the_embedding():
    state_dict, config = theirs()
    del state_dict["lm_head.weight"]
    back = from_transformers(state_dict, config)
    assert back.head is back.embedding


def test_a_missing_layer_is_named():
    state_dict, config = theirs()
    with pytest.raises(ValueError, match=r"'layers\.2\.norm\.weight' is missing; the config asks for 3 layers"):
        from_transformers(state_dict, {**config, "num_hidden_layers": 3})


def test_an_unknown_weight_is_named():
    state_dict, config = theirs()
    with pytest.raises(ValueError, match=r"does not speak of: layers\.1\."):
        from_transformers(state_dict, {**config, "num_hidden_layers": 1})


def test_another_model_is_refused():
    with pytest.raises(ValueError, match=r"no transformers Mamba: the weight 'norm_f\.weight' is missing"):
        from_transformers({"wte.weight": torch.zeros(3, 3)}, theirs()[1])


def test_another_activation_is_refused():
    state_dict, config = theirs()
    with pytest.raises(ValueError, match="hidden_act = 'gelu' is not accepted"):
        from_transformers(state_dict, {**config, "hidden_act": "gelu"})


@pytest.mark.parametrize(
    "changes", [{"layers": ["mamba", "attention"]}, {"bidirectional": "add"}, {"reverse_complement": "equivariant"}]
)
def test_what_they_have_not_cannot_be_written(changes):
    config = BackboneConfig(**{"d_model": 8, "layers": ["mamba"], **changes})
    with pytest.raises(ValueError, match="transformers' Mamba is causal and made of mamba mixers only"):
        to_transformers(config, Backbone(config).state_dict(), torch.zeros(4, 8))
