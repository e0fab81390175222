"""How much of a pre-trained network learns in the time that there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from genomamba.classifier import pace
from genomamba.classifier.network import SequenceClassifier
from genomamba.commands.finetune import run_finetune
from genomamba.config import ModelConfig
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from mamba_data_prep.errors import UserError
from mamba_training.bundle import save_bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of four layers."""
    torch.manual_seed(3)
    shape = ModelConfig(d_model=16, n_layers=4, d_state=4)
    config = {"format": 1, "kind": BUNDLE_KIND, "model": shape.model_dump(mode="json"), "window": 64, "training": {}}
    return save_bundle(tmp_path_factory.mktemp("lm") / "lm", GenomeLM(shape).state_dict(), config, "# model\n")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    random = np.random.default_rng(1)
    rows = ["sequence,label"]
    for index in range(120):
        p = [0.15, 0.35, 0.35, 0.15] if index % 2 else [0.35, 0.15, 0.15, 0.35]
        rows.append("".join(random.choice(list("ACGT"), 60, p=p)) + (",rich" if index % 2 else ",poor"))
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def a_step_takes(monkeypatch: pytest.MonkeyPatch, seconds: dict[int | str, float]) -> list[int | str]:
    """Replaces the measurement; the list gets what was asked for."""
    asked: list[int | str] = []

    def measured(network: object, settings: object, size: int, window: int, layers: int | str = "all") -> float:
        asked.append(layers)
        return seconds[layers]

    monkeypatch.setattr(pace, "step_seconds", measured)
    return asked


def run(tmp_path: Path, model: Path | None, table: str, *settings: str) -> tuple[dict[str, object], Path]:
    out = tmp_path / "run"
    run_finetune(task="table", out=out, from_model=model, overrides=["train.epochs=2", *settings], table=[table])
    return yaml.safe_load((out / "config.yaml").read_text())["train"], out


def changed(out: Path, model: Path) -> set[str]:
    """Parts of the network that have learnt."""
    before = GenomeLM.from_bundle(model).state_dict()
    after = SequenceClassifier.from_bundle(out).state_dict()
    moved = [name for name in before if name in after and not torch.equal(before[name], after[name])]
    return {".".join(name.split(".")[:3]) if "blocks" in name else name.split(".")[0] for name in moved}


def test_all_layers_learn_where_there_is_time(
    tmp_path: Path, model: Path, table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = a_step_takes(monkeypatch, {"all": 0.01})
    train, out = run(tmp_path, model, table)
    assert train["layers"] == "all"
    assert asked == ["all"]
    assert "embedding" in changed(out, model)
    assert "a step of 64 sequences takes about 0.01 s: at most" in capsys.readouterr().err


def test_the_last_layers_learn_where_there_is_time_for_no_more(
    tmp_path: Path, model: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_step_takes(monkeypatch, {"all": 1e6, 1: 0.01})
    train, out = run(tmp_path, model, table)
    assert train["layers"] == 1
    moved = changed(out, model)
    assert "backbone.blocks.3" in moved
    assert not {"embedding", "backbone.blocks.0", "backbone.blocks.2"} & moved


def test_a_head_is_fitted_where_there_is_no_time(
    tmp_path: Path, model: Path, table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_step_takes(monkeypatch, {"all": 1e6, 1: 1e5})
    train, out = run(tmp_path, model, table)
    assert train["freeze"] is True
    assert not {name for name in changed(out, model) if name.startswith("backbone")}
    assert "--set train.layers=all" in capsys.readouterr().err
    a_step_takes(monkeypatch, {"all": 0.01})  # what was decided stays decided
    again = run_finetune(task="table", out=out, resume=True)
    assert again["runs"][0]["status"] == "frozen"


def test_what_is_asked_for_is_done(tmp_path: Path, model: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = a_step_takes(monkeypatch, {2: 1e6})
    train, out = run(tmp_path, model, table, "train.layers=2", "train.max_steps=3")
    assert asked == [2]
    assert train["layers"] == 2
    assert {"backbone.blocks.2", "backbone.blocks.3"} <= changed(out, model)
    assert "backbone.blocks.1" not in changed(out, model)


def test_layers_that_are_not_there_are_refused(tmp_path: Path, model: Path, table: str) -> None:
    with pytest.raises(UserError, match="fewer layers"):
        run(tmp_path, model, table, "train.layers=5")
    with pytest.raises(UserError, match="--from MODEL"):
        run(tmp_path, None, table, "train.layers=2")
    with pytest.raises(UserError, match="not positive"):
        run(tmp_path, model, table, "train.layers=0")


def test_a_run_without_limits_ends_after_a_quarter_of_an_hour() -> None:
    from genomamba.classifier.config import FinetuneConfig

    settings = FinetuneConfig()
    assert pace.time_limit(settings) == 900

    def limited(**train: object) -> float | None:
        return pace.time_limit(settings.model_copy(update={"train": settings.train.model_copy(update=train)}))

    assert limited(max_steps=10) is None
    assert limited(max_time="2m") == 120
    assert limited(max_time="2m", max_steps=10) == 120


def test_a_step_is_measured_and_every_parameter_left_learning(model: Path) -> None:
    from genomamba.classifier.config import FinetuneConfig, HeadConfig, StemConfig
    from genomamba.classifier.network import ClassifierConfig

    shape = ModelConfig(d_model=16, n_layers=4, d_state=4)
    network = SequenceClassifier(ClassifierConfig(shape, StemConfig(), HeadConfig(), ("a", "b"), 64))
    one = pace.step_seconds(network, FinetuneConfig(), 4, 64, 1)
    assert 0 < one < 60
    assert all(parameter.requires_grad for parameter in network.parameters())
    long = pace.step_seconds(network, FinetuneConfig(), 4, 2**18, 1)
    assert long > 8 * one  # told from a part of a step
