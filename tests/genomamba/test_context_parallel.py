"""Devices that share each window train the model that one device trains, also when the run is resumed."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genomamba.config import ModelConfig, TrainConfig
from genomamba.language_model.batches import plan_batches
from mamba_data_prep.errors import UserError

SETTINGS = {
    "model.d_model": 16,
    "model.n_layers": 2,
    "model.d_state": 4,
    "model.chunk_size": 20,
    "data.window": 65,
    "data.valid_bases": 2048,
    "data.final_bases": 2048,
    "train.tokens_per_step": 1024,
    "train.validate_every": 3,
    "train.accelerator": "cpu",
    "train.precision": "32-true",
    "optim.warmup_steps": 2,
}


def pretrain(fasta: Path, out: Path, *options: str) -> list[dict[str, str]]:
    """The metrics of a run of the command."""
    command = [sys.executable, "-m", "genomamba", "pretrain", "--fasta", str(fasta), "--out", str(out), *options]
    command += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def genome(write_fasta, make_bases) -> Path:
    bases = make_bases(40_000, 5)
    return write_fasta({"chr1": bases[:5000] + "N" * 90 + bases[5090:]})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("devices", "sharing"), [(2, 2), (3, 3), (4, 2)])
def test_sharing_windows_changes_no_figure(genome, tmp_path, devices, sharing):
    replicas = devices // sharing
    one = pretrain(genome, tmp_path / "one", "--max-steps", "6", "--devices", str(replicas))
    pretrain(
        genome, tmp_path / "two", "--max-steps", "4", "--devices", str(devices), "--context-parallel", str(sharing)
    )
    two = pretrain(
        *(genome, tmp_path / "two", "--max-steps", "4", "--resume"),
        *("--devices", str(devices), "--context-parallel", str(sharing)),
    )
    assert [row["step"] for row in two] == ["1", "2", "3", "4"]
    for name in ("tokens", "loss", "grad_norm"):
        found, expected = ([float(row[name]) for row in table[:3]] for table in (two, one))
        assert found == pytest.approx(expected, rel=2e-5), name
    assert float(two[2]["val_loss"]) == pytest.approx(float(one[2]["val_loss"]), rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(genome, tmp_path):
    options = ("--devices", "2", "--context-parallel", "2", "--set", "train.checkpoint_seconds=0.001")
    whole = pretrain(genome, tmp_path / "whole", "--max-steps", "6", *options)
    program = tmp_path / "whole" / "checkpoints" / "previous.ckpt"
    assert program.exists()
    (tmp_path / "whole" / "checkpoints" / "last.ckpt").unlink()
    again = pretrain(genome, tmp_path / "whole", "--max-steps", "6", "--resume", *options)
    assert [row["loss"] for row in again] == [row["loss"] for row in whole]
    assert [row["grad_norm"] for row in again] == [row["grad_norm"] for row in whole]


def test_groups_of_devices_count_as_one_for_the_batches():
    model = ModelConfig(d_model=16, n_layers=2)
    shared = plan_batches(TrainConfig(devices=4, context_parallel=2, tokens_per_step=4096), model, 64)
    plain = plan_batches(TrainConfig(devices=2, tokens_per_step=4096), model, 64)
    assert shared.windows_per_step == plain.windows_per_step == 64
    with pytest.raises(UserError, match="in groups of 2"):
        plan_batches(TrainConfig(devices=3, context_parallel=2), model, 64)


def test_mixers_that_need_the_whole_window_are_refused_before_anything_starts():
    model = ModelConfig(d_model=8, n_layers=2, pattern=("mamba", "attention"), n_heads=1)
    train = TrainConfig(devices=2, context_parallel=2)
    with pytest.raises(UserError, match="attention need the whole window on one device"):
        plan_batches(train, model, 64)
