"""Runs and bundles that an earlier release saved still load, predict what they predicted then, and go on.

`release_2026_11` holds what its `pretrain`, `finetune species` and `fit` wrote for small generated inputs, and the
predictions that its `classify` and `forecast` made from them.
"""

import gzip
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import genomamba.cli
import tsmamba.cli

EARLIER = Path(__file__).parent / "release_2026_11"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A copy of the earlier release's runs and inputs, the compressed ones unpacked."""
    folder = tmp_path / "earlier"
    shutil.copytree(EARLIER, folder)
    for packed in folder.glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    return folder


def run(application: str, *arguments: str | Path) -> str:
    cli = {"genomamba": genomamba.cli, "tsmamba": tsmamba.cli}[application]
    done = CliRunner().invoke(cli.cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("model", ["clf", "clf/model"])
def test_a_classifier_gives_the_probabilities_it_gave(earlier: Path, model: str) -> None:
    out = earlier / "now.tsv"
    run(
        "genomamba",
        "classify",
        "--model",
        earlier / model,
        "--fasta",
        earlier / "reads.fa",
        "--both-strands",
        "--out",
        out,
    )
    now, then = (pd.read_csv(path, sep="\t") for path in (out, EARLIER / "predictions.tsv"))
    columns = ["seq_id", "start", "end", "length", "predicted"]
    pd.testing.assert_frame_equal(now[columns], then[columns])
    assert now["prob_rich"].to_numpy() == pytest.approx(then["prob_rich"].to_numpy(), abs=2e-5)


def test_a_language_model_is_fine_tuned(earlier: Path) -> None:
    classes = [word for name in ("rich", "poor") for word in ("--class", f"{name}={earlier / name}.fa")]
    settings = "--set", "data.window=256", "--set", "train.batch_size=8"
    run(
        "genomamba",
        "finetune",
        "species",
        *classes,
        "--from",
        earlier / "lm",
        *settings,
        "--max-steps",
        "2",
        "--out",
        earlier / "new",
    )
    assert (earlier / "new/model/model.safetensors").exists()


def test_a_stopped_pretraining_goes_on(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(earlier)
    text = run("genomamba", "pretrain", "--out", "lm", "--resume", "--max-steps", "8")
    assert "8 steps" in text
    metrics = pd.read_csv("lm/metrics.csv")
    assert metrics["step"].max() == 8


@pytest.mark.parametrize(("name", "rows"), [("sales", 6), ("hours", 6)])
def test_a_forecaster_gives_the_forecast_it_gave(earlier: Path, name: str, rows: int) -> None:
    out = earlier / "now.csv"
    run("tsmamba", "forecast", earlier / f"{name}.csv", "--model", earlier / name, "--out", out)
    now, then = (pd.read_csv(path) for path in (out, EARLIER / f"{name}.forecast.csv"))
    assert len(now) == rows
    pd.testing.assert_frame_equal(now, then, rtol=1e-4)


@pytest.mark.parametrize("model", ["lm", "clf"])
def test_a_run_is_described(earlier: Path, model: str) -> None:
    assert "2 layers of 16 channels" in run("genomamba", "info", earlier / model)
