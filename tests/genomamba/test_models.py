"""The models that ship: listed, taken by name, as good as their cards say, and small enough for a wheel."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import genomamba
from genomamba.cli import cli
from genomamba.demo.steps import DATA
from genomamba.models import descriptions, model_path, shipped
from genomamba.tokens import MASK
from mamba_data_prep.errors import UserError

MOST_BYTES = 12_000_000


def test_models_are_listed() -> None:
    found = CliRunner().invoke(cli, ["info", "models", "--json"])
    assert found.exit_code == 0
    assert (
        [one["name"] for one in json.loads(found.output)["models"]]
        == list(shipped())
        == ["human-1.4m", "human-bi-1.4m"]
    )
    assert "human-1.4m" in CliRunner().invoke(cli, ["info", "models"]).output
    assert "genomamba-lm" in CliRunner().invoke(cli, ["info", "human-1.4m"]).output


@pytest.mark.parametrize("name", shipped())
def test_a_model_is_small_and_its_card_complete(name: str) -> None:
    files = list(shipped()[name].iterdir())
    assert {path.name for path in files} == {"model.safetensors", "config.json", "README.md"}
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    card = (shipped()[name] / "README.md").read_text()
    for words in ("Source and terms", "network off", "all training bases", "genomamba pretrain"):
        assert words in card
    (described,) = (one for one in descriptions() if one["name"] == name)
    assert f"{described['test_bits']:.4f}" in card


def test_a_name_means_the_model_unless_there_is_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_path("human-1.4m") == shipped()["human-1.4m"]
    with pytest.raises(UserError, match=r"did you mean human-1\.4m"):
        model_path("human-1.4M")
    assert model_path("runs/mine") == Path("runs/mine")
    (tmp_path / "human-1.4m").mkdir()
    assert model_path("human-1.4m") == Path("human-1.4m")


def test_the_model_scores_human_dna_as_its_card_says() -> None:
    """One window of each of the demo's four pieces of chromosome 20; what they cost when the model was put here."""
    model = genomamba.load("human-1.4m")
    assert isinstance(model, genomamba.GenomeLM)
    with gzip.open(DATA / "human.fa.gz", "rt") as file:
        records = file.read().split(">")[1:]
    windows = {str(n): "".join(record.split("\n")[1:])[100_000:104_096] for n, record in enumerate(records)}
    table = genomamba.score(model, windows, strands="forward")
    expected = [1.4833, 1.1736, 1.6964, 1.6232]
    assert table["bits_per_base"].tolist() == pytest.approx(expected, abs=2e-3)
    assert model.table is not None
    ids = torch.from_numpy(genomamba.encode(windows["0"]))[None]
    with torch.no_grad():
        alone = torch.log_softmax(model.counts_alone(ids)[0, :-1], -1).gather(1, ids[0, 1:, None].long()).mean()
    assert -float(alone) / 0.6931471805599453 > table["bits_per_base"][0]  # what the network saves


def test_the_masked_model_tells_hidden_human_bases_as_its_card_says() -> None:
    """The same windows, every tenth base hidden."""
    model = genomamba.load("human-bi-1.4m")
    assert isinstance(model, genomamba.GenomeLM)
    with gzip.open(DATA / "human.fa.gz", "rt") as file:
        records = file.read().split(">")[1:]
    windows = ["".join(record.split("\n")[1:])[100_000:104_096] for record in records]
    ids = torch.stack([torch.from_numpy(genomamba.encode(window)) for window in windows])
    hidden = ids.clone()
    hidden[:, ::10] = MASK
    with torch.no_grad():
        bits, alone = (
            -forward(hidden)[:, ::10].log_softmax(-1).gather(2, ids[:, ::10, None].long())[..., 0].mean(1) / math.log(2)
            for forward in (model, model.counts_alone)
        )
    assert bits.tolist() == pytest.approx([1.6802, 1.6179, 1.6406, 1.6883], abs=2e-3)
    assert bits.mean() < alone.mean() - 0.04


def test_a_model_is_taken_by_its_name_where_a_path_is(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    rows = ["sequence,label"]
    for index in range(60):
        letters = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3] if index % 2 else [0, 1, 1, 2, 2, 2, 3, 3])
        bases = letters[torch.randint(8, (40,), generator=random)]
        rows.append("".join("ACGT"[base] for base in bases.tolist()) + f",{index % 2}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    run = ["finetune", "table", "--table", str(tmp_path / "t.csv"), "--from", "human-1.4m", "--freeze"]
    done = CliRunner().invoke(cli, [*run, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    wrong = CliRunner().invoke(cli, [*run[:-2], "human-1.4k", "--out", str(tmp_path / "other")])
    assert wrong.exit_code == 2
    assert "did you mean human-1.4m?" in wrong.output
