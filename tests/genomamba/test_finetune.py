"""Fine-tuning from files to bundle and report: it learns what is there, and says so when there is nothing."""

from __future__ import annotations

import base64
import html
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from genomamba.classifier.config import DEFAULT_PRESET, PRETRAINED_PRESET, FinetuneConfig, FinetuneData
from genomamba.classifier.held_out import logits_of
from genomamba.classifier.metrics import softmax
from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.tasks.tasks import table_data
from genomamba.commands.classify import run_classify
from genomamba.commands.evaluate import run_evaluate
from genomamba.commands.finetune import run_finetune
from genomamba.config import load_config
from mamba_data_prep.errors import UserError

SMALL = (
    "model.d_model=16", "model.n_layers=1", "model.d_state=4", "stem.taps=5", "stem.stride=3", "train.batch_size=32",
    "train.epochs=4", "optim.lr=0.01",
)  # fmt: skip


def _table(path: Path, *, real: bool, n: int = 400) -> Path:
    """Two compositions at the same labels (separable), or the same composition (labels are noise)."""
    rng = np.random.default_rng(0)
    lines = ["sequence,label"]
    for i in range(n):
        share = (0.36 if i % 2 else 0.14) if real else 0.25
        text = "".join(rng.choice(list("ACGT"), 48, p=[share, 0.5 - share, 0.5 - share, share]))
        lines.append(f"{text},{'rich' if i % 2 else 'poor'}")
    path.write_text("\n".join(lines) + "\n")
    return path


def network_window(model: Path) -> int:
    return SequenceClassifier.from_bundle(model).config.window


def _finetune(out: Path, table: Path, **options: Any) -> dict[str, Any]:
    overrides: Sequence[str] = options.pop("overrides", SMALL)
    return run_finetune(task="table", out=out, overrides=overrides, table=(table,), **options)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A run folder of two seeds on separable classes, its table and its result."""
    folder = tmp_path_factory.mktemp("learnt")
    table = _table(folder / "table.csv", real=True)
    return folder / "run", table, _finetune(folder / "run", table, seeds=2)


def test_what_is_there_is_learnt_and_reported(learnt: tuple[Path, Path, dict[str, Any]]) -> None:
    out, _, result = learnt
    assert result["test"]["accuracy"]["mean"] > 0.9
    assert result["test"]["accuracy"]["n"] == 2
    assert result["baselines"]["kmer"]["test"]["accuracy"] > 0.9
    assert result["baselines"]["shortcut"]["accuracy"] < 0.7
    assert result["verdict"][0].startswith("Above chance")
    assert {r["seed"] for r in result["runs"]} == {0, 1}
    best = min(result["runs"], key=lambda run: run["valid"]["nll"])
    assert result["chosen_seed"] == best["seed"]
    report = json.loads((out / "report.json").read_text())
    assert report["test"] == result["test"]
    assert sum(map(sum, best["test"]["confusion"])) == sum(result["data"]["counts"]["test"].values())
    text = (out / "report.md").read_text()
    assert "mer logistic regression" in text
    assert "+-" in text
    page = (out / "report.html").read_text()
    for name in ("confusion.png", "reliability.png", "learning_curve.png"):
        picture = (out / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert base64.b64encode(picture).decode() in page
    assert all(html.escape(line) in page for line in result["verdict"])
    assert set(result["baselines"]["shortcuts"]) == {"length", "unknown bases", "G and C"}
    assert result["baselines"]["shortcuts"]["G and C"]["accuracy"] > 0.9  # it is what tells these classes apart
    assert result["baselines"]["shortcuts"]["length"]["accuracy"] < 0.7


def test_the_bundle_repeats_the_reported_test_predictions(
    learnt: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, table, result = learnt
    wanted = pd.read_csv(out / "test_predictions.tsv", sep="\t")
    network = SequenceClassifier.from_bundle(out)
    assert network.config.training["inputs"][str(table)]["size"] == table.stat().st_size
    assert "xxh3-128" in (out / "model" / "README.md").read_text()
    best = next(run for run in result["runs"] if run["seed"] == result["chosen_seed"])
    scored = run_evaluate(model=out, table=table, out=tmp_path / "scores")
    assert scored["split"] == "test"
    assert scored["test"]["confusion"] == best["test"]["confusion"]
    for name in ("nll", "brier", "ece"):
        assert scored["test"][name] == pytest.approx(best["test"][name], abs=1e-6), name
    assert (tmp_path / "scores" / "confusion.png").exists()
    assert f"{scored['test']['n']:,} examples" in (tmp_path / "scores" / "report.html").read_text()
    made = table_data([table], FinetuneData())
    again = softmax(logits_of(network, made.test, torch.device("cpu")), network.config.temperature)
    columns = [f"prob_{name}" for name in network.config.classes]
    np.testing.assert_allclose(again, wanted[columns].to_numpy(float), atol=2e-6)
    assert wanted["label"].tolist() == [network.config.classes[label] for label in made.test.labels]


def test_classes_are_found_again_in_a_fasta_file(
    learnt: tuple[Path, Path, dict[str, Any]], write_fasta: Callable[..., Path], tmp_path: Path
) -> None:
    fasta = write_fasta({"at": "AATTATATTAACTATTATAAATTGATATTA" * 4, "gc": "GCGGCCGCACGCGGGCCTGCGCCGCGCGAG" * 4})
    run_classify(model=learnt[0], fasta=fasta, out=tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["predicted"].tolist() == ["rich", "poor"]


def test_noise_is_called_noise(tmp_path: Path) -> None:
    result = _finetune(tmp_path / "run", _table(tmp_path / "t.csv", real=False))
    assert abs(result["test"]["accuracy"]["mean"] - 0.5) < 0.25
    assert result["verdict"][0].startswith("No better than chance")
    assert "Not distinguishable" in result["verdict"][1]


def test_training_repeats_itself_and_resumes_where_it_ended(
    learnt: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, table, result = learnt
    again = _finetune(tmp_path / "one", table, flags={"train.seed": 1})
    expected = next(run for run in result["runs"] if run["seed"] == 1)
    assert again["runs"][0]["test"] == expected["test"]
    resumed = _finetune(out, table, seeds=2, resume=True)
    assert resumed["test"] == result["test"]
    with pytest.raises(UserError, match="not empty"):
        _finetune(out, table)
    with pytest.raises(UserError, match="other settings"):
        _finetune(tmp_path / "one", table, flags={"train.seed": 1}, overrides=(*SMALL, "optim.lr=0.1"), resume=True)


def test_a_run_whose_rows_were_split_by_another_rule_is_not_resumed(tmp_path: Path) -> None:
    table = _table(tmp_path / "t.csv", real=True, n=60)
    _finetune(tmp_path / "run", table, overrides=(*SMALL, "train.epochs=1"))
    kept = tmp_path / "run" / "config.yaml"
    lines = kept.read_text().splitlines(keepends=True)
    assert sum(line.startswith("split:") for line in lines) == 1
    kept.write_text("".join(line for line in lines if not line.startswith("split:")))
    with pytest.raises(UserError, match="split was None and is now 'by a hash of each sequence within its class"):
        _finetune(tmp_path / "run", table, overrides=(*SMALL, "train.epochs=1"), resume=True)


def test_a_language_model_is_a_place_to_start(tmp_path: Path) -> None:
    from genomamba.config import ModelConfig
    from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
    from mamba_training.bundle import save_bundle

    shape = ModelConfig(d_model=24, n_layers=1, d_state=4)
    language = GenomeLM(shape)
    config = {"format": 1, "kind": BUNDLE_KIND, "model": shape.model_dump(mode="json"), "window": 64, "training": {}}
    save_bundle(tmp_path / "lm", language.state_dict(), config, "# A language model\n")
    table = _table(tmp_path / "t.csv", real=True, n=120)
    result = _finetune(
        tmp_path / "run", table, from_model=tmp_path / "lm", pooling="attention",
        overrides=("train.epochs=1", "train.batch_size=32"),
    )  # fmt: skip
    network = SequenceClassifier.from_bundle(result["model"])
    assert network.config.model == shape
    assert network.config.stem.taps == 0
    assert network.config.head.pooling == "attention"
    assert network.backbone.config.d_model == 24
    with pytest.raises(UserError, match="not a classifier"):
        run_evaluate(model=tmp_path / "lm", table=table)


def test_a_language_model_s_counts_are_taken_over(tmp_path: Path) -> None:
    import torch

    from genomamba.config import ModelConfig, TableShape
    from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
    from mamba_training.bundle import save_bundle

    shape, size = ModelConfig(d_model=24, n_layers=1, d_state=4), TableShape(order=2, long_contexts=0)
    language = GenomeLM(shape, size)
    assert language.table is not None
    language.table.codes.copy_(torch.arange(size.size))
    config = {"format": 1, "kind": BUNDLE_KIND, "model": shape.model_dump(mode="json"), "table": size.model_dump()}
    save_bundle(tmp_path / "lm", language.state_dict(), {**config, "window": 64, "training": {}}, "# A model\n")
    table, run = _table(tmp_path / "t.csv", real=True, n=120), tmp_path / "run"
    _finetune(run, table, from_model=tmp_path / "lm", overrides=("train.max_steps=2", "train.batch_size=32"))
    shutil.rmtree(tmp_path / "lm")  # a run that has begun goes on without the model that it started from
    result = _finetune(run, table, overrides=("train.max_steps=3",), resume=True)
    network = SequenceClassifier.from_bundle(result["model"])
    assert network.table is not None
    assert torch.equal(network.table.codes.long(), torch.arange(size.size))
    ids, lengths = torch.randint(7, 11, (3, 50)), torch.tensor([50, 50, 50])
    with torch.no_grad():
        before = network.network(ids, lengths)
        network.table.codebook += torch.randn_like(network.table.codebook)
        assert not torch.allclose(before, network.network(ids, lengths))  # the table is read


def test_species_and_scores_by_file(
    write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    genomes = {"at": make_bases(9000, 1).replace("G", "A"), "gc": make_bases(9000, 2).replace("T", "C")}
    classes = [f"{name}={write_fasta({'r': text}, f'{name}.fa')}" for name, text in genomes.items()]
    result = run_finetune(task="species", out=tmp_path / "run", overrides=SMALL, classes=classes)
    settings = SequenceClassifier.from_bundle(tmp_path / "run").config.training["settings"]
    assert settings["stem"]["positions"] is False
    assert settings["data"]["mutate"] == 0
    assert settings["data"]["reverse_complement"] is True
    assert result["test"]["accuracy"]["mean"] > 0.9
    assert "fractional" in result["data"]["split"]
    scored = run_evaluate(model=tmp_path / "run", classes=classes)
    assert {name: scored["test"][name] for name in ("n", "confusion")} == {
        name: result["runs"][0]["test"][name] for name in ("n", "confusion")
    }
    fresh = {"at": make_bases(3000, 3).replace("G", "A"), "gc": make_bases(3000, 4).replace("T", "C")}
    others = [f"{name}={write_fasta({'r': text}, f'new_{name}.fa')}" for name, text in fresh.items()]
    new = run_evaluate(model=tmp_path / "run", classes=others)
    assert (new["split"], new["seen_in_training"]) == ("all", False)
    assert new["test"]["n"] == 2 * -(-3000 // network_window(tmp_path / "run"))
    assert new["test"]["accuracy"] > 0.9
    with pytest.raises(UserError, match="none of the model's classes"):
        run_evaluate(model=tmp_path / "run", classes=["horse=" + classes[0].partition("=")[2]])


def test_labels_the_model_does_not_know_are_named(learnt: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("sequence,label\nACGTACGTACGTACGTACGT,rich\nACGTACGTACGTACGTACGT,golden\n")
    with pytest.raises(UserError, match="none of the model's classes") as caught:
        run_evaluate(model=learnt[0], table=path)
    assert caught.value.line == 3


@pytest.mark.parametrize("preset", [DEFAULT_PRESET, PRETRAINED_PRESET])
def test_presets_are_complete_and_accepted(preset: str) -> None:
    assert load_config(preset, (), schema=FinetuneConfig).train.epochs


@pytest.mark.parametrize(
    "override",
    [
        "stem.stride=4",
        "data.mutate=0.9",
        "head.pooling=max",
        "data.window=4",
        "data.valid_fraction=0.7",
        "train.patience=0",
    ],
)
def test_settings_that_cannot_be_are_refused(override: str) -> None:
    with pytest.raises(UserError):
        load_config(PRETRAINED_PRESET, (override,), schema=FinetuneConfig)


def test_a_class_may_not_take_the_name_of_abstaining(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(_table(path, real=True, n=60).read_text().replace("rich", "abstain"))
    with pytest.raises(UserError, match="abstain"):
        _finetune(tmp_path / "run", path)


def test_resume_needs_nothing_but_the_task_and_the_folder(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from genomamba.cli import cli

    table, out = _table(tmp_path / "t.csv", real=True, n=60), tmp_path / "run"
    settings = [word for text in (*SMALL, "train.epochs=1") for word in ("--set", text)]
    first = ["finetune", "table", "--table", str(table), "--out", str(out), *settings, "--seed", "3", "--json"]
    started = CliRunner().invoke(cli, first)
    assert started.exit_code == 0, started.output
    report = (out / "report.json").read_bytes()
    again = CliRunner().invoke(cli, ["finetune", "table", "--out", str(out), "--resume", "--json"])
    assert again.exit_code == 0, again.output
    found, before = json.loads((out / "report.json").read_bytes()), json.loads(report)
    assert found["chosen_seed"] == 3
    assert found["test"] == before["test"]
    assert found["data"] == before["data"]
    other = CliRunner().invoke(cli, ["finetune", "species", "--out", str(out), "--resume"])
    assert other.exit_code == 2
    assert "finetune table" in other.output


def test_a_run_on_the_cpu_is_scored_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genomamba.commands import finetune

    seen: list[torch.device] = []

    def noted(*arguments: Any) -> Any:
        seen.extend(one for one in arguments if isinstance(one, torch.device))
        return scored(*arguments)

    scored = finetune.judge_seed
    monkeypatch.setattr(finetune, "judge_seed", noted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a machine with a GPU, which this run is not to use
    overrides = (*SMALL, "train.epochs=1", "train.accelerator=cpu", "train.precision=32-true", "train.devices=1")
    _finetune(tmp_path / "run", _table(tmp_path / "t.csv", real=True, n=60), overrides=overrides)
    assert seen == [torch.device("cpu")]


def test_an_evaluation_is_replaced_only_where_that_is_said(
    learnt: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    model, table, _ = learnt
    out = tmp_path / "scores"
    run_evaluate(model=model, table=table, out=out)
    before = (out / "evaluation.json").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        run_evaluate(model=model, table=table, split="all", out=out)
    assert (out / "evaluation.json").read_bytes() == before
    run_evaluate(model=model, table=table, split="all", out=out, overwrite=True)
    assert json.loads((out / "evaluation.json").read_text())["test"]["n"] == 400
