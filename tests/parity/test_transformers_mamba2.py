"""Same weights, same numbers as `transformers.Mamba2ForCausalLM`, to 1e-5 in float32."""

from __future__ import annotations

import pytest
import torch

from mamba_kernels.blocks import Backbone
from mamba_kernels.compat.transformers import from_transformers, read_folder, to_transformers, write_folder

transformers = pytest.importorskip("transformers")

CONFIGS = {
    "plain": {},
    "groups": {"n_groups": 2, "state_size": 5},
    "biases": {"use_bias": True, "chunk_size": 8},
    "no convolution bias": {"use_conv_bias": False, "num_heads": 2, "head_dim": 24},
    "wide": {"expand": 3, "num_heads": 9, "conv_kernel": 5, "layer_norm_epsilon": 1e-6, "n_groups": 3},
    "tied head": {"tie_word_embeddings": True},
}


def their_model(**changes):
    values = {"vocab_size": 23, "hidden_size": 24, "num_hidden_layers": 3, "state_size": 8, "num_heads": 6}
    values |= {"head_dim": 8, "n_groups": 1, "pad_token_id": 0, **changes}
    model = transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**values)).eval()
    with torch.no_grad():  # every weight away from its special initial value
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def our_backbone(converted):
    backbone = Backbone(converted.config)
    backbone.load_state_dict(converted.backbone)
    return backbone


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_logits(changes):
    model = their_model(**changes)
    ids = torch.randint(0, 23, (2, 75))
    converted = from_transformers(model.state_dict(), model.config)
    ours = our_backbone(converted)(converted.embedding[ids])[0] @ converted.head.T
    torch.testing.assert_close(ours, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_gradients_of_every_weight():
    model = their_model(n_groups=2)
    ids = torch.randint(0, 23, (2, 19))
    converted = from_transformers(model.state_dict(), model.config)
    backbone = our_backbone(converted)
    target = torch.randn(2, 19, 23)
    (model(ids).logits * target).mean().backward()
    ((backbone(converted.embedding[ids])[0] @ converted.head.T) * target).mean().backward()
    found = {name: p.grad for name, p in backbone.named_parameters()}
    names, _ = to_transformers(converted.config, found, torch.zeros(23, 24))
    for name, parameter in model.named_parameters():
        if "layers" in name:
            torch.testing.assert_close(names[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_generation_with_a_state_follows_their_cache():
    model = their_model()
    converted = from_transformers(model.state_dict(), model.config)
    backbone = our_backbone(converted)
    ids = torch.randint(0, 23, (2, 11))
    theirs = model(ids[:, :8], use_cache=True)
    hidden, state = backbone(converted.embedding[ids[:, :8]])
    for t in range(8, 11):
        theirs = model(ids[:, t : t + 1], cache_params=theirs.cache_params, use_cache=True)
        hidden, state = backbone.step(converted.embedding[ids[:, t]], state)
        torch.testing.assert_close(hidden @ converted.head.T, theirs.logits[:, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Mamba", "Mamba2"])
@pytest.mark.parametrize("tied", [False, True])
def test_folders_pass_from_them_to_us_and_back(kind, tied, tmp_path):
    if kind == "Mamba2":
        model = their_model(tie_word_embeddings=tied)
    else:
        sizes = {"vocab_size": 23, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 4, "pad_token_id": 0}
        model = transformers.MambaForCausalLM(transformers.MambaConfig(**sizes, tie_word_embeddings=tied)).eval()
    model.save_pretrained(tmp_path / "theirs")
    converted = read_folder(tmp_path / "theirs")
    ids = torch.randint(0, 23, (1, 9))
    expected = model(ids).logits
    ours = our_backbone(converted)(converted.embedding[ids])[0] @ converted.head.T
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    head = None if tied else converted.head
    written = write_folder(tmp_path / "ours", converted.config, converted.backbone, converted.embedding, head)
    again = transformers.AutoModelForCausalLM.from_pretrained(written).eval()
    torch.testing.assert_close(again(ids).logits, expected)
