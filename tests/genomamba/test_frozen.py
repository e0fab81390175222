"""Heads on frozen features: pooled as written down, kept when stopped and gone on with, and the model unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genomamba import tokens
from genomamba.classifier.examples import Examples, PackedSequences
from genomamba.classifier.frozen import features
from genomamba.classifier.network import SCALES, Pooling, SequenceClassifier
from genomamba.commands.finetune import run_finetune
from genomamba.config import ModelConfig
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from mamba_data_prep.errors import Interrupted, UserError
from mamba_training.bundle import save_bundle


@pytest.mark.parametrize("length", [1, 3, 8, 21, 64])
def test_means_at_scales_are_those_of_the_parts(length: int) -> None:
    pooling = Pooling("scales", 5)
    x = torch.randn(2, length + 7, 5)
    counts = torch.tensor([length, length + 7])
    found = pooling(x, counts).numpy().reshape(2, SCALES, 5)
    for row, count in enumerate(counts.tolist()):
        values = x[row, :count].numpy()
        part = np.arange(count) * 8 // count
        expected = []
        for n in (1, 2, 4, 8):
            for index in range(n):
                inside = values[part * n // 8 == index]
                expected.append(inside.mean(0) if len(inside) else np.zeros(5))
        assert np.allclose(found[row], expected, atol=1e-5)


def a_model(folder: Path) -> Path:
    torch.manual_seed(3)
    shape = ModelConfig(d_model=16, n_layers=1, d_state=4)
    config = {"format": 1, "kind": BUNDLE_KIND, "model": shape.model_dump(mode="json"), "window": 64, "training": {}}
    return save_bundle(folder / "lm", GenomeLM(shape).state_dict(), config, "# A language model\n")


def a_table(path: Path, n: int = 160) -> Path:
    random = np.random.default_rng(1)
    rows = ["sequence,label"]
    for index in range(n):
        rich = index % 2
        p = [0.15, 0.35, 0.35, 0.15] if rich else [0.35, 0.15, 0.15, 0.35]
        rows.append("".join(random.choice(list("ACGT"), 60, p=p)) + (",rich" if rich else ",poor"))
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_head_on_a_frozen_model_learns_and_the_model_stays(tmp_path: Path) -> None:
    model, table = a_model(tmp_path), a_table(tmp_path / "t.csv")
    flags = {"train.freeze": True}
    result = run_finetune(task="table", out=tmp_path / "run", from_model=model, flags=flags, table=[str(table)])
    assert result["runs"][0]["status"] == "frozen"
    assert result["network_alone"]["accuracy"]["mean"] > 0.8
    network = SequenceClassifier.from_bundle(tmp_path / "run")
    before = GenomeLM.from_bundle(model).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items() if "backbone" in name)
    kept = np.fromfile(tmp_path / "run" / "features" / "train.f32", np.float32)
    again = run_finetune(task="table", out=tmp_path / "run", resume=True)
    assert np.array_equal(kept, np.fromfile(tmp_path / "run" / "features" / "train.f32", np.float32))
    assert again["test"] == result["test"]


def test_without_a_model_there_is_nothing_to_freeze(tmp_path: Path) -> None:
    table = a_table(tmp_path / "t.csv")
    with pytest.raises(UserError, match="nothing to freeze"):
        run_finetune(task="table", out=tmp_path / "run", flags={"train.freeze": True}, table=[str(table)])


def test_features_that_were_stopped_are_gone_on_with(
    make_classifier: Callable[..., SequenceClassifier], tmp_path: Path
) -> None:
    network = make_classifier()
    random = np.random.default_rng(0)
    texts = [np.frombuffer("".join(random.choice(list("ACGT"), 30)).encode(), np.uint8) for _ in range(12)]
    examples = Examples(PackedSequences.pack(texts), np.arange(12), np.zeros(12, np.int64))
    whole = features(network, examples, tmp_path / "whole.f32", "train", str)
    assert whole.shape == (12, network.head.in_features)
    ids = torch.from_numpy(np.stack([tokens.encode(text) for text in texts]))
    with torch.no_grad():
        assert np.allclose(whole, network.pooled(ids, torch.full((12,), 30)).numpy(), atol=1e-5)
    stopped = tmp_path / "stopped.f32"
    stopped.write_bytes(whole[:5].tobytes() + b"cut")
    assert np.array_equal(features(network, examples, stopped, "train", str)[:5], whole[:5])
    assert np.allclose(np.fromfile(stopped, np.float32).reshape(whole.shape), whole, atol=1e-6)


def test_a_signal_stops_between_blocks_and_says_what_is_kept(
    make_classifier: Callable[..., SequenceClassifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genomamba.classifier import frozen

    network = make_classifier()
    monkeypatch.setattr(frozen, "_BATCH_BASES", network.config.window // 2)  # a few sequences a block
    text = np.frombuffer(b"ACGT" * 5, np.uint8)
    examples = Examples(PackedSequences.pack([text] * 40), np.arange(40), np.zeros(40, np.int64))
    with pytest.raises(Interrupted, match="stopped by Ctrl-C; 4 of 40 sequences are done"):
        features(network, examples, tmp_path / "f.f32", "train", lambda: "Ctrl-C")
    assert (tmp_path / "f.f32").stat().st_size == 4 * 4 * network.head.in_features
