"""`genomamba evaluate` scores the rows that it says it scores, on files of the training and on new ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.tasks.tasks import table_data
from genomamba.commands.evaluate import run_evaluate
from genomamba.commands.finetune import run_finetune
from mamba_data_prep.errors import UserError

SMALL = (
    "model.d_model=8", "model.n_layers=1", "model.d_state=4", "stem.taps=5", "stem.stride=3", "train.batch_size=32",
    "train.epochs=1",
)  # fmt: skip


def write_table(path: Path, n: int, *, seed: int = 0, header: str = "sequence,label", split: str = "") -> Path:
    rng = np.random.default_rng(seed)
    rows = [f"{''.join(rng.choice(list('ACGT'), 40))},{'ab'[i % 3 == 0]}{split and ',' + split}" for i in range(n)]
    path.write_text(header + "\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on a table whose columns have other names, without a column of splits; and that table."""
    folder = tmp_path_factory.mktemp("trained")
    table = write_table(folder / "table.csv", 90, header="dna,kind")
    columns = ("data.sequence_column=dna", "data.label_column=kind")
    run_finetune(task="table", out=folder / "run", overrides=(*SMALL, *columns), table=(table,))
    return folder / "run", table


def examples(model: Path, **options: Any) -> tuple[int, str]:
    result = run_evaluate(model=model, **options)
    return result["test"]["n"], result["split"]


def test_the_table_of_the_training_falls_into_its_splits(trained: tuple[Path, Path], tmp_path: Path) -> None:
    model, table = trained
    counts = table_data([table], FinetuneData(sequence_column="dna", label_column="kind")).counts()
    copy = tmp_path / "other_name.csv"
    copy.write_bytes(table.read_bytes())
    for split in ("train", "valid", "test"):
        result = run_evaluate(model=model, table=copy, split=split)
        assert [sum(row) for row in result["test"]["confusion"]] == list(counts[split].values())
        assert (result["split"], result["seen_in_training"]) == (split, True)
        assert f"{split} rows of a table that the model was trained on" in result["text"]
    assert examples(model, table=copy) == (sum(counts["test"].values()), "test")
    whole = run_evaluate(model=model, table=copy, split="all")
    assert whole["test"]["n"] == 90
    assert "that the model was trained on among them" in whole["text"].splitlines()[0]


def test_a_new_table_is_scored_whole_unless_it_has_splits(trained: tuple[Path, Path], tmp_path: Path) -> None:
    model, _ = trained
    new = write_table(tmp_path / "new.csv", 30, seed=1)
    assert examples(model, table=new) == examples(model, table=new, split="all") == (30, "all")
    with pytest.raises(UserError, match="has no test split") as caught:
        run_evaluate(model=model, table=new, split="test")
    assert "leave --split out" in str(caught.value.fix)
    lines = new.read_text().splitlines()
    named = [f"{line},{'test' if i < 10 else 'dev'}" for i, line in enumerate(lines[1:])]
    split = tmp_path / "split.csv"
    split.write_text("\n".join([lines[0] + ",split", *named]) + "\n")
    assert examples(model, table=split) == (10, "test")
    assert examples(model, table=split, split="valid") == (20, "valid")
    with pytest.raises(UserError, match="no row in the train split"):
        run_evaluate(model=model, table=split, split="train")
    with pytest.raises(UserError, match="split is unknown"):
        run_evaluate(model=model, table=split, split="holdout")


def test_columns_are_named_as_for_training(trained: tuple[Path, Path], tmp_path: Path) -> None:
    new = write_table(tmp_path / "new.csv", 12, seed=2, header="Oligo,Kind")
    assert examples(trained[0], table=new, sequence_column="oligo", label_column="kind") == (12, "all")
    with pytest.raises(UserError, match="lacks the column sequence") as caught:
        run_evaluate(model=trained[0], table=new)
    assert "--sequence-column NAME" in str(caught.value.fix)


def test_each_table_of_a_run_keeps_its_own_rows(tmp_path: Path) -> None:
    one, two, test = (write_table(tmp_path / f"{n}.csv", 60, seed=n) for n in (1, 2, 3))
    run_finetune(task="table", out=tmp_path / "run", overrides=SMALL, table=(one, two), test=test)
    assert examples(tmp_path / "run", table=test) == (60, "test")
    valid = [examples(tmp_path / "run", table=table, split="valid")[0] for table in (one, two)]
    assert sum(valid) == 12
    with pytest.raises(UserError, match="no row in the test split"):
        run_evaluate(model=tmp_path / "run", table=one)
    two.unlink()
    with pytest.raises(UserError, match="is gone or has changed") as caught:
        run_evaluate(model=tmp_path / "run", table=one, split="valid")
    assert caught.value.path == str(two)
    assert examples(tmp_path / "run", table=one, split="all") == (60, "all")


def test_genomes_of_the_training_fall_into_its_splits(
    write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    files = {name: write_fasta({"r": make_bases(6000, i)}, f"{name}.fa") for i, name in enumerate("ab")}
    classes = [f"{name}={path}" for name, path in files.items()]
    made = run_finetune(task="species", out=tmp_path / "run", overrides=SMALL, classes=classes)
    counts = made["data"]["counts"]
    for split in ("train", "valid", "test"):
        result = run_evaluate(model=tmp_path / "run", classes=classes, split=split)
        assert [sum(row) for row in result["test"]["confusion"]] == list(counts[split].values())
    assert examples(tmp_path / "run", classes=classes[:1]) == (counts["test"]["a"], "test")
    new = write_fasta({"r": make_bases(3000, 5)}, "c.fa")
    with pytest.raises(UserError, match="some of these files and not on others"):
        run_evaluate(model=tmp_path / "run", classes=[classes[0], f"b={new}"])
    assert examples(tmp_path / "run", classes=[classes[0], f"b={new}"], split="all")[1] == "all"
    with pytest.raises(UserError, match="have no valid split"):
        run_evaluate(model=tmp_path / "run", classes=[f"b={new}"], split="valid")
    with pytest.raises(UserError, match="not as class a") as caught:
        run_evaluate(model=tmp_path / "run", classes=[f"a={files['b']}"])
    assert str(caught.value.fix) == f"--class b={files['b']}"
    files["b"].unlink()
    with pytest.raises(UserError, match="is gone or has changed"):
        run_evaluate(model=tmp_path / "run", classes=classes[:1])


def test_promoter_files_fall_into_their_splits(
    write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    names = {"positive": "promoter", "negative": "other"}
    files = {
        name: write_fasta({f"r{i}": make_bases(60, i + 100 * (name == "negative")) for i in range(40)}, f"{name}.fa")
        for name in names
    }
    made = run_finetune(task="promoter", out=tmp_path / "run", overrides=SMALL, **files)
    classes = [f"{label}={files[name]}" for name, label in names.items()]
    counts = made["data"]["counts"]["test"]
    assert examples(tmp_path / "run", classes=classes) == (sum(counts.values()), "test")
    assert examples(tmp_path / "run", classes=classes[:1]) == (counts["promoter"], "test")
