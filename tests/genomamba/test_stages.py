"""Length warm-up: what each stage reads, that tokens a step stay, and that a killed run goes on inside a stage."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from genomamba.commands.pretrain import run_pretrain
from genomamba.config import DataConfig, PretrainConfig, StageConfig, load_config
from genomamba.language_model.batches import BatchPlan
from genomamba.language_model.data import make_split, open_genome
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.stages import all_read, make_stages
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.splits import near
from mamba_training import preflight

STAGES = "data.stages=[{window: 16, share: 0.25}, {window: 32, share: 0.25}]"
SMALL = [
    "model.d_model=16", "model.n_layers=1", "model.d_state=4", "counts.order=3", "counts.long_contexts=0",
    "data.window=128", "data.valid_bases=1024", "data.final_bases=1024", "train.tokens_per_step=512",
    "train.validate_every=100", "train.checkpoint_seconds=0.05", "optim.warmup_steps=2", STAGES,
]  # fmt: skip


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bases = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(3).integers(0, 4, 20_000)]
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_bytes(b">chr1\n" + bases.tobytes() + b"\n")
    return path


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def command(fasta: Path, run: Path) -> list[str]:
    settings = [text for pair in (("--set", text) for text in SMALL) for text in pair]
    program = [sys.executable, "-m", "genomamba", "pretrain", "--max-steps", "24"]
    return [*program, "--fasta", str(fasta), "--out", str(run), *settings]


@pytest.mark.slow
def test_a_killed_run_goes_on_inside_its_stage(fasta: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = run_pretrain(out=whole, overrides=SMALL, flags={"fasta": str(fasta), "train.max_steps": 24})
    found = rows(whole)
    assert [int(row["step"]) for row in found] == list(range(1, 25))
    assert [int(row["tokens"]) for row in found] == [512 * step for step in range(1, 25)]
    assert [row["length"] for row in result["by_length"]] == [16, 32, 128]
    assert result["by_position"][-1]["last"] == 127
    assert sum(row["n_bases"] for row in result["by_position"]) == result["by_length"][-1]["n_bases"]
    card = (whole / "model" / "README.md").read_text()
    assert "Perplexity by length and by position" in card
    assert f"{result['by_length'][0]['perplexity']:.4f} at 16" in result["text"]

    process = subprocess.Popen(command(fasta, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not ((killed / "metrics.csv").exists() and len(rows(killed)) >= 8):  # the second stage is steps 7 to 12
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = [sys.executable, "-m", "genomamba", "pretrain", "--out", str(killed), "--resume", "--json"]
    done = subprocess.run(again, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["step"] == 24
    assert [row["loss"] for row in rows(killed)] == [row["loss"] for row in found]
    one, other = GenomeLM.from_bundle(whole).state_dict(), GenomeLM.from_bundle(killed).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_stages_are_pieces_of_the_training_windows(fasta: Path) -> None:
    settings = load_config(None, [*SMALL, "data.max_n_fraction=1"])
    genome = open_genome(fasta)
    split = make_split(genome, settings.data)
    model = GenomeLM(settings.model)
    stages = make_stages(model, genome, split, settings, BatchPlan(2, 2, 1))
    assert [stage.split.train.window for stage in stages] == [16, 32, 128]
    assert [stage.until for stage in stages] == pytest.approx([0.25, 0.5, 1.0])
    assert [stage.split.train.bases for stage in stages] == [split.train.bases] * 3
    for stage in stages:
        assert not near(stage.split.train, [split.valid, split.test]).any()
        assert stage.split.valid is split.valid
    assert len(all_read(stages)) == sum(len(stage.split.train) for stage in stages)
    assert str(stages[0]).endswith("windows of 16 bases until 25% of the run")


def test_memory_is_asked_for_every_stage_before_the_first_step(
    fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    predict = preflight.predict

    def spied(work: preflight.Workload) -> preflight.Footprint:
        asked.append((work.length, work.batch))
        return predict(work)

    monkeypatch.setattr(preflight, "predict", spied)
    monkeypatch.setattr("genomamba.commands.pretrain.fit", lambda *_, **__: pytest.fail("a step before the question"))
    monkeypatch.setattr(preflight, "available_bytes", lambda *_: 1 << 20)
    with pytest.raises(UserError, match="more than this machine has"):
        run_pretrain(out=tmp_path / "run", overrides=SMALL, flags={"fasta": str(fasta), "train.max_steps": 4})
    assert asked[0] == (128, 4)
    monkeypatch.setattr(preflight, "available_bytes", lambda *_: 1 << 34)
    with pytest.raises(pytest.fail.Exception):
        run_pretrain(out=tmp_path / "run", overrides=SMALL, flags={"fasta": str(fasta), "train.max_steps": 4})
    assert {(128, 4), (16, 32), (32, 16)} <= set(asked)


def test_a_fixed_batch_is_worked_on_in_smaller_chunks() -> None:
    model = GenomeLM(PretrainConfig().model)
    config = model.backbone.config
    work = preflight.Workload(config, 10**6, 64, 4096)
    finest = dataclasses.replace(work, config=dataclasses.replace(config, chunk_size=16))
    room = (preflight.predict(work).total + preflight.predict(finest).total) // 2
    fitted = preflight.fit_in_memory(work, available=int(room / 0.9), batch_is_fixed=True)
    assert fitted.work.batch == 64
    assert fitted.accumulation == 1
    assert fitted.footprint.total <= room
    with pytest.raises(UserError):
        preflight.fit_in_memory(work, available=1 << 20, batch_is_fixed=True)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([(64, 0.5), (32, 0.2)], "do not rise"),
        ([(4096, 0.5)], "do not rise"),
        ([(48, 0.5)], "48 does not divide"),
        ([(32, 0.5), (64, 0.5)], "add up to 1"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages: list[tuple[int, float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DataConfig(stages=tuple(StageConfig(window=window, share=share) for window, share in stages))


def test_the_recipe_for_the_human_genome() -> None:
    settings = load_config("genomamba-hg38")
    assert [stage.window for stage in settings.data.stages] == [2**k for k in range(10, 20)]
    assert settings.data.window == 2**20
    assert settings.data.beyond_regions
    assert settings.counts is None
    with pytest.raises(UserError, match="needs counts=null"):
        load_config("genomamba-hg38", ["counts.order=3"])
