"""Models as ONNX files give in onnxruntime what they give here, at lengths and batch sizes unlike the example's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from genomamba.classifier.network import SequenceClassifier
from genomamba.cli import cli
from genomamba.commands import checks
from genomamba.config import ModelConfig
from genomamba.language_model.model import GenomeLM
from genomamba.onnx_file import export_onnx
from mamba_data_prep.errors import UserError

PROGRAM = """
import json, sys
import numpy as np
import onnxruntime
import torch
from genomamba import tokens
from genomamba.classifier.config import HeadConfig, LinearShape, StemConfig
from genomamba.classifier.network import ClassifierConfig, SequenceClassifier
from genomamba.config import ModelConfig, TableShape
from genomamba.language_model.model import GenomeLM
from genomamba.onnx_file import beginning, export_onnx

torch.manual_seed(0)
shape = {"d_model": 8, "n_layers": 1, "d_state": 4}


def random(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if model.table is not None:
            chances = torch.rand(256, 4).softmax(1)
            keys = torch.randint(2**32, (50,)).sort().values
            codes, long_codes = torch.randint(256, model.table.codes.shape), torch.randint(256, (50,))
            model.table.fill(codes, chances, keys, long_codes, chances)
    return model.eval()


def session(model, **how):
    export_onnx(model, "model.onnx", **how)
    made = onnxruntime.InferenceSession("model.onnx")
    about = made.get_modelmeta().custom_metadata_map
    assert json.loads(about["vocabulary"])["A"] == 7, about
    return made


def near(found, expected):
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-5)


def classifier():
    config = ClassifierConfig(
        model=ModelConfig(**shape, reverse_complement="equivariant"),
        stem=StemConfig(taps=3, stride=2), head=HeadConfig(pooling="scales"), classes=("a", "b", "c"), window=512,
        temperature=1.7, linear=LinearShape(features="kmers", k=3, places=0, both_strands=False), cnn=50,
    )
    model = random(SequenceClassifier(config))
    model.shares.copy_(torch.tensor([0.3, 1.0, 0.5]))
    model.linear.weight.normal_()
    made = session(model)
    for batch, length in (1, 1), (3, 7), (2, 300):
        ids, lengths = torch.randint(7, 12, (batch, length)), torch.randint(1, length + 1, (batch,))
        ids = torch.where(torch.arange(length) < lengths[:, None], ids, tokens.PAD)
        probabilities, logits = made.run(None, {"ids": ids.numpy(), "lengths": lengths.numpy()})
        near(logits, model(ids, lengths))
        near(probabilities, (model(ids, lengths) / 1.7).softmax(1))


def whole():
    model = random(GenomeLM(ModelConfig(**shape, pattern=["mamba2"]), TableShape(order=3, long_contexts=50)))
    made = session(model)
    for batch, length in (1, 1), (3, 7), (2, 300):
        ids = torch.randint(7, 12, (batch, length))
        near(made.run(None, {"ids": ids.numpy()})[0], model(ids))


def step():
    model = random(GenomeLM(ModelConfig(**shape), TableShape(order=3, long_contexts=50)))
    made = session(model, step=True)
    ids = torch.randint(7, 12, (3, 25))
    given = {one.name: np.zeros((3, *one.shape[1:]), np.float32) for one in made.get_inputs() if "state" in one.name}
    given["recent"] = beginning(3).numpy()
    expected = model(ids)
    for place in range(25):
        logits, *after = made.run(None, given | {"ids": ids[:, place].numpy()})
        near(logits, expected[:, place])
        given = {one.name.removeprefix("new_"): value for one, value in zip(made.get_outputs()[1:], after)}


{"classifier": classifier, "whole": whole, "step": step}[sys.argv[1]]()
print("the same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "step", "whole"])
def test_onnxruntime_says_what_the_model_says(kind: str, tmp_path: Path) -> None:
    """In a process of its own, without the run-time type checker, which no tracer can follow."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    command = [sys.executable, "-c", PROGRAM, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == "the same\n", done.stderr[-3000:]
    assert "torchvision" not in done.stderr
    assert "FutureWarning" not in done.stderr


def test_what_cannot_go_step_by_step_is_refused(
    make_classifier: Callable[..., SequenceClassifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: name)
    shape = {"d_model": 8, "n_layers": 1}
    for model, message in (
        (make_classifier(), "looks at a whole sequence"),
        (GenomeLM(ModelConfig.model_validate({**shape, "bidirectional": "add"})), "looks both ways"),
        (
            GenomeLM(ModelConfig.model_validate({**shape, "pattern": ("attention",)})),
            "attention grows with every token",
        ),
    ):
        with pytest.raises(UserError, match=message):
            export_onnx(model, tmp_path / "model.onnx", step=True)
    assert not list(tmp_path.iterdir())


def test_the_command_says_early_what_is_missing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["convert", "--model", str(bundle), "--out"]
    refused = CliRunner().invoke(cli, [*command, str(tmp_path / "folder"), "--step"])
    assert refused.exit_code == 2
    assert "--step is for ONNX" in refused.output
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    refused = CliRunner().invoke(cli, [*command, str(tmp_path / "model.onnx")])
    assert refused.exit_code == 2
    assert "pip install 'seqmamba[onnx]'" in refused.output
