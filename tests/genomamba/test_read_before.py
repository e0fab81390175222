"""What a pre-trained model has read of later test windows is recorded, counted and said; nothing of it is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from genomamba.commands.audit import run_audit
from genomamba.commands.evaluate import run_evaluate
from genomamba.commands.finetune import run_finetune
from genomamba.commands.pretrain import run_pretrain
from mamba_data_prep.errors import UserError
from mamba_training.bundle import load_bundle

TINY = ("model.d_model=16", "model.n_layers=1", "model.d_state=4")
WINDOW = 64


def _genome(path: Path, seed: int, bias: float) -> Path:
    rng = np.random.default_rng(seed)
    text = "".join(rng.choice(list("ACGT"), 12_000, p=[bias, 0.5 - bias, 0.5 - bias, bias]))
    path.write_text(f">{path.stem}\n" + "\n".join(text[i : i + 60] for i in range(0, len(text), 60)) + "\n")
    return path


@pytest.fixture(scope="module")
def genomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("genomes")
    return _genome(folder / "one.fa", 1, 0.35), _genome(folder / "two.fa", 2, 0.15)


def _pretrain(fasta: Path, out: Path, bed: Path | None = None) -> Path:
    flags = {"fasta": str(fasta), "bed": None if bed is None else str(bed), "train.max_steps": 2}
    run_pretrain(out=out, overrides=(*TINY, f"data.window={WINDOW}", "train.tokens_per_step=512"), flags=flags)
    return out


def _finetune(genomes: tuple[Path, Path], out: Path, model: Path | None) -> dict[str, Any]:
    classes = [f"{path.stem}={path}" for path in genomes]
    overrides = (f"data.window={WINDOW}", "train.max_steps=1", "train.batch_size=4", *(() if model else TINY))
    return run_finetune(task="species", out=out, classes=classes, overrides=overrides, from_model=model)


@pytest.fixture(scope="module")
def by_blocks(genomes: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of the first genome, split as `pretrain` does by itself."""
    return _pretrain(genomes[0], tmp_path_factory.mktemp("lm") / "run")


@pytest.fixture(scope="module")
def classified(
    genomes: tuple[Path, Path], by_blocks: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A classifier that began from it."""
    out = tmp_path_factory.mktemp("classifier") / "run"
    return out, _finetune(genomes, out, by_blocks)


def _mask(read: dict[str, Any], length: int = 12_000) -> np.ndarray:
    mask = np.zeros(length, bool)
    for start, end in read["regions"].get("one", []):
        mask[start:end] = True
    return mask


def test_test_windows_that_pre_training_has_read_are_counted_and_said(
    genomes: tuple[Path, Path], by_blocks: Path, classified: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    found = classified[1]["pretrained_model"]
    assert found["known"]
    assert found["unknown_files"] == ["two.fa"]
    mask = _mask(load_bundle(by_blocks).config["training"]["read"]["genomes"][0])
    bed = tmp_path / "sections.bed"
    run_audit(flags={"fasta": str(genomes[0])}, overrides=(f"data.window={WINDOW}",), sections=bed)
    rows = [line.split("\t") for line in bed.read_text().splitlines()]
    places = [
        (start, start + WINDOW)
        for _, low, high, split in rows
        if split == "test"
        for start in range(int(low), int(high) - WINDOW + 1, WINDOW)
    ]
    counts = [int(mask[start:end].sum()) for start, end in places]
    assert sum(count > 0 for count in counts) > 0
    assert found["test"] == {
        "windows": len(places), "read_windows": sum(count > 0 for count in counts), "bases": WINDOW * len(places),
        "read_bases": sum(counts),
    }  # fmt: skip
    sentence = classified[1]["verdict"][-1]
    assert f"{found['test']['read_windows']} of {len(places)} windows" in sentence
    assert "of two.fa it is unknown" in sentence
    assert sentence in (classified[0] / "report.md").read_text()
    assert sentence in (classified[0] / "model" / "README.md").read_text()


def test_sections_held_out_of_both_trainings_share_no_test_window(genomes: tuple[Path, Path], tmp_path: Path) -> None:
    bed = tmp_path / "sections.bed"
    told = run_audit(flags={"fasta": str(genomes[0])}, overrides=(f"data.window={WINDOW}",), sections=bed)
    assert str(bed) in told["text"]
    model = _pretrain(genomes[0], tmp_path / "lm", bed)
    found = _finetune(genomes, tmp_path / "run", model)["pretrained_model"]["test"]
    assert found["windows"] > 0
    assert found["read_windows"] == found["read_bases"] == 0


def test_a_classifier_remembers_what_every_training_before_it_read(
    by_blocks: Path, classified: tuple[Path, dict[str, Any]]
) -> None:
    read = load_bundle(classified[0]).config["training"]["read"]["genomes"]
    assert [one["file"] for one in read] == ["one.fa", "one.fa", "two.fa"]
    assert read[0] == load_bundle(by_blocks).config["training"]["read"]["genomes"][0]


def test_audit_tells_what_a_model_has_read_of_each_split(genomes: tuple[Path, Path], by_blocks: Path) -> None:
    options: dict[str, Any] = {"overrides": (f"data.window={WINDOW}",), "from_model": by_blocks}
    told = run_audit(flags={"fasta": str(genomes[0])}, **options)
    train = told["read_by_model"]["train"]
    assert train["read_windows"] == train["windows"] > 0
    assert told["read_by_model"]["test"]["read_windows"] == 0
    assert f"train  {by_blocks} has read" in told["text"]
    other = run_audit(flags={"fasta": str(genomes[1])}, **options)
    assert other["read_by_model"] is None
    assert "unknown: it read other files" in other["text"]


def test_a_language_model_scored_on_what_it_was_trained_on_says_so(genomes: tuple[Path, Path], by_blocks: Path) -> None:
    scored = run_evaluate(model=by_blocks, fasta=genomes[0], split="train")
    assert scored["read_in_training"]["read_windows"] == scored["read_in_training"]["windows"] > 0
    assert "caution: in training the model has read" in scored["text"]
    held_out = run_evaluate(model=by_blocks, fasta=genomes[0], split="test")
    assert held_out["read_in_training"]["read_windows"] == 0
    assert "caution" not in held_out["text"]


def test_a_bundle_that_does_not_say_is_called_unknown(
    genomes: tuple[Path, Path], by_blocks: Path, tmp_path: Path
) -> None:
    from mamba_training.bundle import save_bundle

    bundle = load_bundle(by_blocks)
    training = {name: value for name, value in bundle.config["training"].items() if name != "read"}
    older = save_bundle(tmp_path / "older", bundle.state, {**bundle.config, "training": training}, bundle.card)
    result = _finetune(genomes, tmp_path / "run", older)
    assert result["pretrained_model"] == {"known": False}
    assert "is unknown: its bundle does not say" in result["verdict"][-1]
    assert "read" not in json.loads((tmp_path / "run/model/config.json").read_text())["training"]


def test_a_record_of_reading_that_is_damaged_is_refused(
    genomes: tuple[Path, Path], by_blocks: Path, tmp_path: Path
) -> None:
    from mamba_training.bundle import save_bundle

    bundle = load_bundle(by_blocks)
    training = {**bundle.config["training"], "read": {"genomes": [{"file": "x"}], "sequences": []}}
    broken = save_bundle(tmp_path / "broken", bundle.state, {**bundle.config, "training": training}, bundle.card)
    with pytest.raises(UserError, match="not told in order"):
        _finetune(genomes, tmp_path / "run", broken)


def test_evaluate_tells_how_much_of_what_it_scores_was_trained_on(
    genomes: tuple[Path, Path], classified: tuple[Path, dict[str, Any]]
) -> None:
    classes = [f"{path.stem}={path}" for path in genomes]
    held_out = run_evaluate(model=classified[0], classes=classes)
    pretrained = classified[1]["pretrained_model"]["test"]["read_windows"]
    assert held_out["split"] == "test"
    assert held_out["read_in_training"]["read_windows"] == pretrained  # of the first genome, by its language model
    train = run_evaluate(model=classified[0], classes=classes, split="train")
    assert train["read_in_training"]["read_windows"] == train["test"]["n"]
    assert f"caution: in training the model has read {train['test']['n']:,} of" in train["text"]


def test_rows_of_a_table_of_another_name_are_known_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("ACGT"), 40)) for _ in range(60)]
    table, other = tmp_path / "t.csv", tmp_path / "other.csv"
    lines = [f"{text},{'ab'[number % 2]}" for number, text in enumerate(rows)]
    table.write_text("sequence,label\n" + "\n".join(lines) + "\n")
    new = ["".join(rng.choice(list("ACGT"), 40)) + ",a" for _ in range(10)]
    other.write_text("sequence,label\n" + "\n".join(lines[:30] + new) + "\n")
    overrides = (*TINY, "train.max_steps=1", "train.batch_size=4")
    run = run_finetune(task="table", out=tmp_path / "run", table=(table,), overrides=overrides)
    held_out = pd.read_csv(tmp_path / "run" / "test_predictions.tsv", sep="\t")
    assert len(held_out) == sum(run["data"]["counts"]["test"].values())
    scored = run_evaluate(model=tmp_path / "run", table=other)
    found = scored["read_in_training"]
    assert found["windows"] == 40
    assert 15 < found["read_windows"] <= 30  # of the 30 rows, those in train
    assert f"{found['read_windows']} of 40 windows" in scored["text"]
