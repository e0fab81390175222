"""What the converters refuse, and the way there and back."""

from __future__ import annotations

import json
import math

import pytest
import torch

from genomamba import tokens
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_kernels.compat.transformers import (
    DNA_TOKENS,
    from_transformers,
    map_vocabulary,
    read_folder,
    to_transformers,
    write_folder,
)

CONFIG = BackboneConfig(d_model=8, layers=["mamba"] * 2, d_state=3, dt_rank=1)
CONFIG2 = BackboneConfig(d_model=8, layers=["mamba2"] * 2, d_state=3, head_width=4, n_groups=2)
BOTH = pytest.mark.parametrize("config", [CONFIG, CONFIG2], ids=["mamba", "mamba2"])


def theirs():
    return to_transformers(CONFIG, Backbone(CONFIG).state_dict(), torch.randn(16, 8))


@BOTH
def test_there_and_back(config):
    state = Backbone(config).state_dict()
    embedding, head = torch.randn(16, 8), torch.randn(16, 8)
    back = from_transformers(*to_transformers(config, state, embedding, head))
    assert back.config == config
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
    "changes",
    [
        {"layers": ["mamba", "attention"]},
        {"layers": ["mamba", "mamba2"]},
        {"layers": ["attention"]},
        {"bidirectional": "add"},
        {"reverse_complement": "equivariant"},
    ],
)
def test_what_they_have_not_cannot_be_written(changes):
    config = BackboneConfig(**{"d_model": 8, "layers": ["mamba"], **changes})
    with pytest.raises(ValueError, match="transformers' Mamba is causal and made of mamba mixers only"):
        to_transformers(config, Backbone(config).state_dict(), torch.zeros(4, 8))


@BOTH
@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_there_and_back(config, tied, tmp_path):
    state, embedding = Backbone(config).state_dict(), torch.randn(16, 8)
    head = None if tied else torch.randn(16, 8)
    written = write_folder(tmp_path / "model", config, state, embedding, head)
    back = read_folder(written)
    assert back.config == config
    assert all(torch.equal(back.backbone[name], state[name]) for name in state)
    assert back.head is not None
    assert torch.equal(back.head, embedding if head is None else head)


@BOTH
def test_a_tied_model_is_written_again_as_it_was_read(config, tmp_path):
    embedding = torch.randn(16, 8)
    first = write_folder(tmp_path / "first", config, Backbone(config).state_dict(), embedding)
    read = read_folder(first)
    assert read.head is read.embedding
    second = write_folder(tmp_path / "second", read.config, read.backbone, read.embedding, read.head)
    assert json.loads((second / "config.json").read_text())["tie_word_embeddings"] is True
    for name in ("config.json", "model.safetensors"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    # A live model's state dict holds two tensors in one place.
    third = write_folder(tmp_path / "third", read.config, read.backbone, embedding, embedding.view_as(embedding))
    assert (third / "config.json").read_bytes() == (first / "config.json").read_bytes()


def test_a_folder_in_several_files(tmp_path):
    from safetensors.torch import load_file, save_file

    path = write_folder(tmp_path, CONFIG2, Backbone(CONFIG2).state_dict(), torch.randn(16, 8))
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    shards = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(sorted(tensors))}
    for shard in set(shards.values()):
        save_file({name: tensors[name] for name in tensors if shards[name] == shard}, path / shard)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert torch.equal(read_folder(path).embedding, tensors["backbone.embeddings.weight"])


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no file 'model\.safetensors'; weights in other formats can run code"):
        read_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        read_folder(tmp_path)
    path = write_folder(tmp_path, CONFIG, Backbone(CONFIG).state_dict(), torch.randn(16, 8))
    (path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        read_folder(path)
    (path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json does not exist"):
        read_folder(path)


def test_an_index_cannot_lead_out_of_the_folder(tmp_path):
    inner = tmp_path / "inner"
    write_folder(tmp_path, CONFIG, Backbone(CONFIG).state_dict(), torch.randn(16, 8))
    inner.mkdir()
    (inner / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(ValueError, match=r"holds no file '\.\./model\.safetensors'"):
        read_folder(inner)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "jamba"}, "model_type = 'jamba' is not accepted; it must be one of mamba, mamba2"),
        ({"time_step_limit": [0.0, 0.1]}, r"time_step_limit = \[0\.0, 0\.1\] is not accepted"),
        ({"num_heads": 3}, "num_heads = 3 times head_dim = 4 is not the inner width 16"),
    ],
)
def test_what_mamba2_has_not_is_refused(changes, message):
    state_dict, config = to_transformers(CONFIG2, Backbone(CONFIG2).state_dict(), torch.randn(16, 8))
    assert from_transformers(state_dict, {**config, "time_step_limit": [0.0, math.inf]}).config == CONFIG2
    with pytest.raises(ValueError, match=message):
        from_transformers(state_dict, {**config, **changes})


def test_a_config_without_a_width_is_refused():
    with pytest.raises(ValueError, match="the config lacks 'hidden_size': it is not one of transformers' Mamba"):
        from_transformers({}, {"model_type": "mamba2"})


def test_dna_models_number_their_tokens_as_hyenadna_and_caduceus_do():
    assert DNA_TOKENS == tokens.VOCAB
    table = torch.randn(16, 4)
    mapped = map_vocabulary(table, DNA_TOKENS, tokens.VOCAB, tokens.VOCAB_SIZE)
    assert torch.equal(mapped[:12], table[:12])
    assert not mapped[12:].any()


def test_rows_follow_their_tokens():
    table = torch.tensor([[1.0], [2.0], [3.0]])
    mapped = map_vocabulary(table, {"A": 0, "C": 1, "G": 2}, {"C": 0, "A": 3, "[MASK]": 1}, 4)
    assert mapped[:, 0].tolist() == [2.0, 2.0, 0.0, 1.0]
    with pytest.raises(ValueError, match=r"theirs\['T'\] = 3 is not a row of a table of 3"):
        map_vocabulary(table, {"T": 3}, {}, 4)
    with pytest.raises(ValueError, match=r"ours\['A'\] = 4 is not a row of a table of 4"):
        map_vocabulary(table, {}, {"A": 4}, 4)
