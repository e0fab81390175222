"""Language models from and to transformers by the command: same weights, same predictions, letters found or asked."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from genomamba import tokens
from genomamba.cli import cli
from genomamba.config import ModelConfig
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from mamba_training.bundle import save_bundle

SHAPES = {
    "mamba": {"d_model": 16, "n_layers": 2, "d_state": 3, "dt_rank": 2},
    "mamba2": {"d_model": 16, "n_layers": 2, "d_state": 4, "head_width": 8, "n_groups": 2, "pattern": ("mamba2",)},
    "own output layer": {"d_model": 8, "n_layers": 1, "tie_embeddings": False, "proj_bias": True, "conv_bias": False},
}
BASES = slice(tokens.FIRST_BASE, tokens.FIRST_BASE + 4)


def bundle(path, **shape):
    config = ModelConfig(**shape)
    model = GenomeLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    values = {"format": 1, "kind": BUNDLE_KIND, "model": config.model_dump(mode="json"), "window": 64}
    save_bundle(path, model.state_dict(), values, "a card")
    return model


def run(*arguments):
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_there_and_back_and_transformers_in_between(tmp_path, shape):
    transformers = pytest.importorskip("transformers")
    ours = bundle(tmp_path / "ours", **shape)
    assert run("--model", tmp_path / "ours", "--out", tmp_path / "theirs").exit_code == 0
    result = run("--model", tmp_path / "theirs", "--out", tmp_path / "back", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_parameters"] == ours.n_parameters()
    back = GenomeLM.from_bundle(tmp_path / "back")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    assert ours.state_dict().keys() == back.state_dict().keys()
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in ours.state_dict().items())
    ids = torch.randint(tokens.FIRST_BASE, tokens.FIRST_BASE + 4, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits[..., BASES], ours(ids)[..., BASES], atol=1e-5, rtol=1e-5)


def foreign(tmp_path, rows=30):
    """A model of theirs with a vocabulary of its own."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MambaConfig(vocab_size=rows, hidden_size=8, num_hidden_layers=1, state_size=2)
    model = transformers.MambaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "theirs")
    return model


@pytest.mark.parametrize("way", ["--tokens", "vocab.json", "both cases", "vocab.txt", "tokenizer.json"])
def test_letters_of_another_vocabulary(tmp_path, way):
    theirs, folder = foreign(tmp_path), tmp_path / "theirs"
    letters = {"A": 20, "C": 3, "G": 7, "T": 11}
    more = ["--tokens", "a=20, c=3,g=7,T=11"] if way == "--tokens" else []
    lower = {name.lower(): number for name, number in letters.items()}
    if way == "vocab.json":
        (folder / way).write_text(json.dumps({"the": 1, **lower}))
    elif way == "both cases":
        (folder / "vocab.json").write_text(json.dumps({**letters, **dict.fromkeys(lower, 29)}))
    elif way == "tokenizer.json":
        (folder / way).write_text(json.dumps({"model": {"vocab": {"the": 1, **letters}}}))
    elif way == "vocab.txt":
        names = {number: name for name, number in letters.items()}
        (folder / way).write_text("".join(f"{names.get(row, f'word{row}')}\n" for row in range(30)))
    result = run("--model", folder, "--out", tmp_path / "ours", *more)
    assert result.exit_code == 0, result.output
    ours = GenomeLM.from_bundle(tmp_path / "ours")
    bases = torch.randint(0, 4, (1, 25))
    theirs_ids = torch.tensor(list(letters.values()))[bases]
    with torch.no_grad():
        expected = theirs(theirs_ids).logits[..., list(letters.values())]
        torch.testing.assert_close(ours(bases + tokens.FIRST_BASE)[..., BASES], expected, atol=1e-5, rtol=1e-5)


def test_unknown_letters_are_asked_for(tmp_path):
    foreign(tmp_path)
    result = run("--model", tmp_path / "theirs", "--out", tmp_path / "ours")
    assert result.exit_code == 2
    assert "30 tokens" in result.output
    assert "--tokens A=7" in result.output
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("letters", "message"),
    [
        ("A=1,C=2", "lacks G, T"),
        ("A=1,C=2,G=3,T=x", "T=x"),
        ("A=1,C=2,G=3,T=4,Q=5", "unknown tokens"),
        ("A=1,C=2,G=3,T=99", "not a row of a table of 30"),
    ],
)
def test_wrong_letters(tmp_path, letters, message):
    foreign(tmp_path)
    result = run("--model", tmp_path / "theirs", "--out", tmp_path / "ours", "--tokens", letters)
    assert result.exit_code == 2
    assert message in result.output


def test_what_transformers_has_not_is_refused(tmp_path):
    bundle(tmp_path / "ours", d_model=8, n_layers=2, pattern=("mamba", "attention"), n_heads=1)
    result = run("--model", tmp_path / "ours", "--out", tmp_path / "theirs")
    assert result.exit_code == 2
    assert "attention" in result.output
    assert not (tmp_path / "theirs").exists()


def test_only_a_model_is_replaced_and_only_if_asked(tmp_path):
    bundle(tmp_path / "ours", d_model=8, n_layers=1)
    theirs = tmp_path / "theirs"
    assert run("--model", tmp_path / "ours", "--out", theirs).exit_code == 0
    (theirs / "vocab.json").unlink()
    assert run("--model", tmp_path / "ours", "--out", theirs).exit_code == 2
    assert not (theirs / "vocab.json").exists()
    assert run("--model", tmp_path / "ours", "--out", theirs, "--overwrite").exit_code == 0
    assert (theirs / "vocab.json").exists()


@pytest.mark.parametrize("place", ["notes", "ours", "."])
def test_what_is_no_model_or_holds_the_model_is_never_replaced(tmp_path, place):
    bundle(tmp_path / "ours", d_model=8, n_layers=1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    result = run("--model", tmp_path / "ours", "--out", tmp_path / place, "--overwrite")
    assert result.exit_code == 2, result.output
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "ours" / "model.safetensors").exists()


def test_tokens_of_our_own_models_are_not_told(tmp_path):
    bundle(tmp_path / "ours", d_model=8, n_layers=1)
    result = run("--model", tmp_path / "ours", "--out", tmp_path / "theirs", "--tokens", "A=1,C=2,G=3,T=4")
    assert result.exit_code == 2
    assert "--tokens is for models of transformers" in result.output


@pytest.mark.parametrize("content", ["{", "[]", '{"model": []}', '{"model": {"vocab": [["A", 1]]}}'])
def test_a_tokenizer_that_cannot_be_read(tmp_path, content):
    foreign(tmp_path)
    (tmp_path / "theirs" / "tokenizer.json").write_text(content)
    result = run("--model", tmp_path / "theirs", "--out", tmp_path / "ours")
    assert result.exit_code == 2
    assert "--tokens" in result.output


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("--model", tmp_path / "empty", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "neither a model nor a run folder" in result.output
