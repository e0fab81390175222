"""`make demo`, cut short: the real commands run one after another and end in a table and a picture."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genomamba.demo import steps as demo
from genomamba.demo.picture import read_predictions, recognised
from mamba_data_prep.errors import UserError

COLUMNS = ["seq_id", "start", "end", "strand", "length", "n_frac", "predicted", "confidence"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "run"
    assert demo.main(["--out", str(out), "--pretrain-steps", "2", "--finetune-steps", "2"]) == 0
    return out


@pytest.mark.slow
def test_it_ends_in_a_table_of_every_fragment(finished: Path) -> None:
    table = read_predictions(finished / "predictions.tsv")
    assert list(table.columns[:8]) == COLUMNS
    assert len(table) == 80
    assert set(table["truth"]) == set(demo.SPECIES)
    assert set(table["predicted"]) <= set(demo.SPECIES)
    assert json.loads((finished / "predictions.tsv.json").read_text())


@pytest.mark.slow
def test_it_ends_in_a_picture(finished: Path) -> None:
    assert (finished / "predictions.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_it_leaves_models_that_can_be_used(finished: Path) -> None:
    for run in ("pretrain", "species"):
        assert (finished / run / "model/model.safetensors").exists()


def test_make_runs_the_demo(tmp_path: Path) -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    module = re.search(r"^demo: .*\n\t@\$\(BIN\)/python -m (\S+)$", makefile, re.MULTILINE)
    assert module is not None
    (tmp_path / "mine").write_text("kept")
    command = [sys.executable, "-m", module[1], "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == UserError.exit_code
    assert "demo: " in done.stderr


def test_a_second_demo_takes_the_place_of_the_first(tmp_path: Path) -> None:
    demo._empty(tmp_path / "run")
    (tmp_path / "run/species").mkdir()
    demo._empty(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [demo.MARKER]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert demo.main(["--out", str(tmp_path)]) == UserError.exit_code
    assert "other than an earlier demo" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_the_score_counts_fragments_given_their_species(tmp_path: Path) -> None:
    path = tmp_path / "predictions.tsv"
    path.write_text("seq_id\tpredicted\nhuman:1-9\thuman\necoli:5-8\thuman\necoli:9-12\tecoli\n")
    assert recognised(path) == (2, 3)


def test_commands_are_shown_as_a_user_would_type_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo.DATA.parents[2])
    words = [word for _, command in demo.steps(Path("runs/demo"), 1, 1) for word in command]
    assert "genomamba/demo/data/human.fa.gz" in words
    assert not [word for word in words if "/" in word and Path(word.partition("=")[2] or word).is_absolute()]
