"""Same weights, same numbers as `transformers.MambaForCausalLM`, to 1e-5 in float32."""

from __future__ import annotations

import pytest
import torch

from mamba_kernels.blocks import Backbone
from mamba_kernels.compat.transformers import from_transformers, to_transformers

transformers = pytest.importorskip("transformers")

CONFIGS = {
    "plain": {},
    "biases": {"use_bias": True, "time_step_rank": 3},
    "no convolution bias": {"use_conv_bias": False, "state_size": 5},
    "wide": {"expand": 3, "conv_kernel": 5, "layer_norm_epsilon": 1e-6},
    "own head": {"tie_word_embeddings": False},
}


def their_model(**changes):
    values = {"vocab_size": 23, "hidden_size": 24, "num_hidden_layers": 3, "state_size": 8, **changes}
    model = transformers.MambaForCausalLM(transformers.MambaConfig(**values)).eval()
    with torch.no_grad():  # every weight away from its special initial value
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def our_logits(converted, ids, state=None):
    backbone = Backbone(converted.config)
    backbone.load_state_dict(converted.backbone)
    hidden, state = backbone(converted.embedding[ids], state)
    return hidden @ converted.head.T, state


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_logits_and_gradients(changes):
    model = their_model(**changes)
    ids = torch.randint(0, 23, (2, 37))
    theirs = model(ids).logits
    ours, _ = our_logits(from_transformers(model.state_dict(keep_vars=True), model.config), ids)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_gradients_of_every_weight():
    model = their_model()
    ids = torch.randint(0, 23, (2, 19))
    converted = from_transformers(model.state_dict(), model.config)
    backbone = Backbone(converted.config)
    backbone.load_state_dict(converted.backbone)
    target = torch.randn(2, 19, 23)
    (model(ids).logits * target).mean().backward()
    ((backbone(converted.embedding[ids])[0] @ converted.head.T) * target).mean().backward()
    found = {name: p.grad for name, p in backbone.named_parameters()}
    names, _ = to_transformers(converted.config, found, torch.zeros(23, 24))
    for name, parameter in model.named_parameters():
        if "layers" in name:
            torch.testing.assert_close(names[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_a_bare_mamba_model_has_no_head():
    model = their_model().backbone
    converted = from_transformers(model.state_dict(), model.config)
    assert converted.head is None
    backbone = Backbone(converted.config)
    backbone.load_state_dict(converted.backbone)
    ids = torch.randint(0, 23, (1, 9))
    theirs = model(ids).last_hidden_state
    torch.testing.assert_close(backbone(converted.embedding[ids])[0], theirs, atol=1e-5, rtol=1e-5)


def test_generation_with_a_state_follows_their_cache():
    model = their_model()
    converted = from_transformers(model.state_dict(), model.config)
    backbone = Backbone(converted.config)
    backbone.load_state_dict(converted.backbone)
    ids = torch.randint(0, 23, (2, 11))
    theirs = model(ids[:, :8], use_cache=True)
    hidden, state = backbone(converted.embedding[ids[:, :8]])
    for t in range(8, 11):
        theirs = model(ids[:, t : t + 1], cache_params=theirs.cache_params, use_cache=True)
        hidden, state = backbone.step(converted.embedding[ids[:, t]], state)
        torch.testing.assert_close(hidden @ converted.head.T, theirs.logits[:, -1], atol=1e-5, rtol=1e-5)


def test_our_weights_load_into_their_model():
    model = their_model()
    converted = from_transformers(model.state_dict(), model.config)
    state_dict, config = to_transformers(converted.config, converted.backbone, converted.embedding)
    other = transformers.MambaForCausalLM(transformers.MambaConfig(**config)).eval()
    other.load_state_dict(state_dict)
    ids = torch.randint(0, 23, (1, 7))
    torch.testing.assert_close(other(ids).logits, model(ids).logits)
