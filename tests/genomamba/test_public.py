"""genomamba from Python gives what its command line gives."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import genomamba
from genomamba.commands.classify import run_classify
from genomamba.config import ModelConfig
from genomamba.language_model.model import BUNDLE_KIND
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import rna
from mamba_training.bundle import save_bundle

RECORDS = {"short": "ACGTTGCA" * 6, "long": "GATTACANNACGT" * 30, "lower": "acgtacgtacgtacgtacgtaa", "none": "NNNNNNNN"}


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = ModelConfig(d_model=16, n_layers=1, d_state=4)
    torch.manual_seed(0)
    network = genomamba.GenomeLM(shape)
    path = tmp_path_factory.mktemp("lm") / "model"
    config = {"format": 1, "kind": BUNDLE_KIND, "model": shape.model_dump(mode="json"), "window": 64, "training": {}}
    return save_bundle(path, network.state_dict(), config, "# A language model\n")


@pytest.mark.parametrize("both_strands", [False, True])
def test_classes_are_those_of_the_command_line(
    bundle: Path, write_fasta: Callable[..., Path], tmp_path: Path, both_strands: bool
) -> None:
    model = genomamba.load(bundle)
    assert isinstance(model, genomamba.SequenceClassifier)
    found = genomamba.classify(model, RECORDS, both_strands=both_strands)
    run_classify(model=bundle, fasta=write_fasta(RECORDS), out=tmp_path / "t.parquet", both_strands=both_strands)
    written = pd.read_parquet(tmp_path / "t.parquet")
    assert found["seq_id"].tolist() == written["seq_id"].tolist()
    assert found["predicted"].tolist() == written["predicted"].tolist()
    for name in ("length", "confidence", *(f"prob_{one}" for one in model.config.classes)):
        np.testing.assert_allclose(found[name].astype(float), written[name].astype(float), rtol=1e-5, err_msg=name)


def test_sequences_without_names_are_numbered(bundle: Path) -> None:
    model = genomamba.load(bundle)
    assert isinstance(model, genomamba.SequenceClassifier)
    assert genomamba.classify(model, ["ACGT" * 9, "GGGC" * 9])["seq_id"].tolist() == ["0", "1"]
    empty = genomamba.classify(model, [])
    assert list(empty.columns) == list(genomamba.classify(model, ["ACGT" * 9]).columns)
    assert len(empty) == 0


def test_rna_is_read_as_dna_and_told(
    bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rna, "_told", set())
    model = genomamba.load(bundle)
    assert isinstance(model, genomamba.SequenceClassifier)
    pd.testing.assert_frame_equal(genomamba.classify(model, ["ACGUu" * 6]), genomamba.classify(model, ["ACGTT" * 6]))
    assert caplog.messages == ["the sequences given: 12 bases are U (RNA) and are read as T"]


def test_a_language_model_scores_each_base_given_those_before_it(language_model: Path) -> None:
    model = genomamba.load(language_model)
    assert isinstance(model, genomamba.GenomeLM)
    text = "ACGTNACGGT"
    row = genomamba.score(model, {"x": text}, strands="forward").iloc[0]
    ids = torch.from_numpy(genomamba.encode(text))[None]
    with torch.no_grad():
        chances = model(ids)[0].double().log_softmax(-1)
    places = [i for i in range(1, len(text)) if text[i] != "N"]
    expected = sum(float(chances[i - 1, int(ids[0, i])]) for i in places)
    assert (row["length"], row["scored"]) == (len(text), len(places))
    assert row["log2_likelihood"] == pytest.approx(expected / np.log(2), rel=1e-5)
    assert row["bits_per_base"] == pytest.approx(-expected / len(places) / np.log(2), rel=1e-5)
    bases = genomamba.score(model, {"x": text}, per="base", strands="forward")
    assert "".join(bases["base"]) == text
    assert bases["bits"].sum() == pytest.approx(row["bits"], rel=1e-6)
    assert np.isnan(genomamba.score(model, ["A", ""])["bits"]).all()


def test_what_is_no_model_and_no_sequence_is_refused(tmp_path: Path, bundle: Path, language_model: Path) -> None:
    save_bundle(tmp_path / "other", {"x": torch.zeros(1)}, {"kind": "recipe"}, "# Another\n")
    with pytest.raises(UserError, match="no model of genomamba"):
        genomamba.load(tmp_path / "other")
    model = genomamba.load(language_model)
    assert isinstance(model, genomamba.GenomeLM)
    with pytest.raises(UserError, match=r"no nucleotide code(.|\n)*!"):
        genomamba.score(model, ["ACGT!"])
    with pytest.raises(UserError, match="put it into a list"):
        genomamba.score(model, "ACGT")


def test_importing_the_package_brings_no_torch() -> None:
    code = "import sys, genomamba; assert 'torch' not in sys.modules; genomamba.encode('ACGT'); print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        genomamba.nothing  # noqa: B018


def test_the_readme_s_lines_run(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    example = next(code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "genomamba" in code)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "apes").symlink_to(bundle)
    names: dict[str, object] = {}
    exec(example, names)
    table = names["table"]
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 2
