"""mamba-ssm's language model: weights, files, and generation that gives what the whole sequence gives."""

import json

import pytest
import torch

from mamba_kernels.compat.mamba_ssm import MambaLMHeadModel
from mamba_kernels.compat.mamba_ssm.models.config_mamba import MambaConfig
from mamba_kernels.compat.mamba_ssm.models.mixer_seq_simple import create_block
from mamba_kernels.compat.mamba_ssm.modules.block import Block
from mamba_kernels.compat.mamba_ssm.modules.mlp import GatedMLP
from mamba_kernels.compat.mamba_ssm.utils.generation import InferenceParams, sample
from mamba_kernels.compat.mamba_ssm.utils.hf import load_config_hf, load_state_dict_hf


def small(layer="Mamba1", **more):
    options = {"headdim": 8, "d_state": 8} if layer == "Mamba2" else {"d_state": 4}
    settings = {"d_model": 16, "n_layer": 3, "vocab_size": 21, "ssm_cfg": {"layer": layer, **options}, **more}
    return MambaLMHeadModel(MambaConfig(**settings))


HYBRID = {"attn_layer_idx": [1], "attn_cfg": {"num_heads": 4, "causal": True, "rotary_emb_dim": 2, "d_conv": 4}}
KINDS = [("Mamba1", {}), ("Mamba2", {}), ("Mamba1", {"d_intermediate": 20}), ("Mamba2", HYBRID)]


@pytest.mark.parametrize(("layer", "more"), KINDS, ids=str)
def test_generation_gives_what_the_whole_sequence_gives(layer, more):
    model = small(layer, **more).double()
    ids = torch.randint(0, 21, (3, 14))
    with torch.no_grad():
        whole = model(ids).logits
    out = model.generate(
        ids[:, :5], max_length=14, output_scores=True, return_dict_in_generate=True, teacher_outputs=ids, cg=True
    )
    assert torch.equal(out.sequences, ids)
    scores = torch.stack(out["scores"], dim=1)
    torch.testing.assert_close(scores, whole[:, 4:-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("layer", "more"), KINDS, ids=str)
def test_packed_sequences_are_each_alone(layer, more):
    model, ids = small(layer, **more), torch.randint(0, 21, (1, 12))
    numbers = torch.tensor([[0] * 5 + [1] * 7])
    with torch.no_grad():
        packed = model(ids, seq_idx=numbers).logits
        alone = torch.cat([model(ids[:, :5]).logits, model(ids[:, 5:]).logits], 1)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_fused_and_plain_norms_agree_and_so_do_their_gradients():
    for options in ({}, {"rms_norm": False}, {"residual_in_fp32": False, "d_intermediate": 20}):
        fused = small(**options)
        plain = small(fused_add_norm=False, **options)
        plain.load_state_dict(fused.state_dict())
        ids = torch.randint(0, 21, (2, 9))
        logits = [model(ids).logits for model in (fused, plain)]
        torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
        for out in logits:
            out.square().mean().backward()
        for one, two in zip(fused.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)


def test_half_precision_keeps_the_stream_in_single():
    model = small().to(torch.bfloat16)
    hidden, residual = model.backbone.layers[0](model.backbone.embedding(torch.tensor([[1, 2, 3]])))
    assert (hidden.dtype, residual.dtype) == (torch.bfloat16, torch.float32)


def test_weights_have_the_names_and_shapes_of_the_original():
    model = small(d_intermediate=20)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["backbone.embedding.weight"] == shapes["lm_head.weight"] == (24, 16)
    assert shapes["backbone.norm_f.weight"] == shapes["backbone.layers.2.norm2.weight"] == (16,)
    assert shapes["backbone.layers.0.mixer.A_log"] == (32, 4)
    assert shapes["backbone.layers.0.mlp.fc1.weight"] == (256, 16)
    assert model.lm_head.weight is model.backbone.embedding.weight
    apart = small(tie_embeddings=False)
    assert apart.lm_head.weight is not apart.backbone.embedding.weight
    steps = model.backbone.layers[0].mixer.dt_proj.bias
    assert bool((steps != 0).all()), "biases of step sizes are not zeroed with the others"


@pytest.mark.parametrize("layer", ["Mamba1", "Mamba2"])
def test_files_are_written_and_read_again(tmp_path, layer):
    model = small(layer)
    model.save_pretrained(tmp_path / "deep" / "er")
    again = MambaLMHeadModel.from_pretrained(tmp_path / "deep" / "er", dtype=torch.float64)
    assert again.config == model.config
    assert {p.dtype for p in again.state_dict().values()} <= {torch.float32, torch.float64}
    ids = torch.randint(0, 21, (1, 6))
    torch.testing.assert_close(again.float()(ids).logits, model(ids).logits)
    assert json.loads((tmp_path / "deep" / "er" / "config.json").read_text())["vocab_size"] == 21


def test_safetensors_are_read_first_and_missing_files_named(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.ones(2), "n": torch.ones(2, dtype=torch.int64)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    weights = load_state_dict_hf(tmp_path, dtype=torch.bfloat16)
    assert weights["a"].dtype == torch.bfloat16
    assert weights["a"].tolist() == [1, 1]
    assert weights["n"].dtype == torch.int64
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors and no pytorch_model\.bin"):
        load_state_dict_hf(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_config_hf(tmp_path / "empty")


def test_weights_that_would_run_code_are_not_read(tmp_path):
    import pickle

    class Bad:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"a": Bad()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError):
        load_state_dict_hf(tmp_path)


LOGITS = torch.tensor([[0.0, 3.0, 2.0, -1.0, 2.9]]).repeat(400, 1)


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        ({}, {1}),
        ({"top_k": 2}, {1, 4}),
        ({"top_k": 0, "top_p": 0.6}, {1, 4}),
        ({"top_k": 0, "min_p": 0.3}, {1, 2, 4}),
        ({"top_k": 0, "temperature": 0.01}, {1}),
        ({"top_k": 3, "top_p": 0.3}, {1}),
        ({"top_k": 99, "temperature": 5.0}, {0, 1, 2, 3, 4}),
    ],
    ids=str,
)
def test_which_tokens_are_drawn(options, drawn):
    before = LOGITS.clone()
    assert set(sample(LOGITS, **options).tolist()) == drawn
    assert torch.equal(LOGITS, before)


def test_settings_of_sampling_that_make_no_sense_are_named():
    for name, value in (("top_p", 1.5), ("min_p", -0.1)):
        with pytest.raises(ValueError, match=f"{name} must lie between 0 and 1, found {value}"):
            sample(LOGITS, **{"top_k": 0, name: value})
    with pytest.raises(ValueError, match="temperature must be positive, found 0"):
        sample(LOGITS, temperature=0.0)


class Told:
    def __init__(self):
        self.seen = []

    def put(self, tokens):
        self.seen.append(tokens.tolist())

    def end(self):
        self.seen.append("end")


def test_generation_stops_streams_and_penalises(capsys):
    model, told = small(), Told()
    prompt = torch.tensor([[3, 4]])
    first = int(model.generate(prompt, max_length=3)[0, 2])
    out = model.generate(prompt, max_length=9, eos_token_id=first, streamer=told, enable_timing=True)
    assert out.tolist() == [[3, 4, first]]
    assert told.seen == [[[3, 4]], [[first]], "end"]
    assert "Prompt processing + decoding time" in capsys.readouterr().out
    penalised = model.generate(prompt, max_length=9, repetition_penalty=1e9)[0].tolist()
    assert len(set(penalised)) == 9
    few = model.generate(prompt, max_length=9, vocab_size=5, top_k=0)
    assert int(few[:, 2:].max()) < 5


def test_states_can_be_made_before():
    model = small("Mamba2", **HYBRID)
    states = model.allocate_inference_cache(2, 10)
    assert sorted(states) == [0, 1, 2]
    assert [tuple(t.shape) for t in states[0]] == [(2, 48, 4), (2, 4, 8, 8)]
    assert [tuple(t.shape) for t in states[1]] == [(2, 10, 2, 4, 4), (2, 48, 4)]
    params = InferenceParams(10, 2, key_value_memory_dict=states, lengths_per_sample=torch.ones(2))
    ids = torch.randint(0, 21, (2, 6))
    with torch.no_grad():
        last = model(ids, inference_params=params, num_last_tokens=1).logits
        torch.testing.assert_close(last, model(ids).logits[:, -1:])
    params.seqlen_offset = 6
    params.reset(12, 3)
    assert (params.max_seqlen, params.max_batch_size, params.seqlen_offset) == (12, 3, 0)
    assert not params.lengths_per_sample.any()


def test_what_a_caller_gets_wrong_is_named():
    with pytest.raises(ValueError, match="layer must be one of Mamba1, Mamba2"):
        create_block(8, 0, {"layer": "Mamba9"})
    with pytest.raises(TypeError, match="fused_add_norm takes LayerNorm or RMSNorm, found BatchNorm1d"):
        Block(8, torch.nn.Identity, norm_cls=torch.nn.BatchNorm1d, fused_add_norm=True)


def test_the_gated_mlp():
    mlp = GatedMLP(6, 100, 5, bias=True)
    assert mlp.fc1.out_features == 256
    x = torch.randn(3, 6)
    y, gate = mlp.fc1(x).chunk(2, -1)
    torch.testing.assert_close(mlp(x), mlp.fc2(y * gate * gate.sigmoid()))
    assert GatedMLP(96).fc2.in_features == 256
