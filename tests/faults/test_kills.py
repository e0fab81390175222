"""Kill -9 at random moments, while checkpoints are written and while a run trains."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from mamba_training.checkpoint import read_checkpoint

HERE = Path(__file__).parent
OTHER_DISK = Path("/dev/shm")


def report_of(program: str, *arguments: object, tmpdir: Path | None = None, wrapped: tuple[str, ...] = ()) -> dict:
    """Run a program of this folder and return the JSON that it prints last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"TMPDIR": str(tmpdir)} if tmpdir else {})}
    command = [*wrapped, sys.executable, str(HERE / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def identical(one: object, two: object) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.equal(two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(identical(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(identical, one, two))
    return one == two


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same disk", "TMPDIR on another disk"])
def test_a_killed_writer_loses_nothing(tmp_path: Path, kills: int, elsewhere: bool) -> None:
    if elsewhere and (not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == tmp_path.stat().st_dev):
        pytest.skip("this machine has one filesystem only")
    report = report_of("writer_storm.py", tmp_path, kills, tmpdir=OTHER_DISK if elsewhere else None)
    assert report["kills"] == kills
    assert report["cut_short"] >= kills // 2, "those that end by their own hand end inside a write"
    assert (report["unreadable"], report["lost"], report["orphans"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("kills", "workers"),
    [(25, 0), (25, 2)],
)
@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path, kills: int, workers: int) -> None:
    report = report_of("run_storm.py", tmp_path, kills, workers)
    assert report["failures"] == 0
    assert report["mid_run"] == report["kills"] == kills
    whole, killed = (read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "killed"))
    assert whole["step"] == killed["step"] == report["steps"]
    for key in ("model", "optimizers", "randomness"):
        assert identical(whole[key], killed[key]), key
    tables = []
    for name in ("whole", "killed"):
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            tables.append([(row["step"], row["tokens"], row["loss"], row["val_loss"]) for row in csv.DictReader(file)])
    assert tables[0] == tables[1]
    assert {path.name for path in (tmp_path / "killed").rglob("*")} == {
        "config.yaml", "metrics.csv", "checkpoints", "last.ckpt", "previous.ckpt", "best.ckpt"
    }  # fmt: skip


def test_a_file_size_limit_at_every_write_leaves_the_older_files_whole(tmp_path: Path) -> None:
    report = report_of("full_disk.py", tmp_path, "limits")
    assert report["tries"] == report["intact"] >= 20
    assert all("cannot be written" in text and "\n" not in text for text in report["messages"]), report["messages"]
    assert report["left"] == ["last.ckpt", "previous.ckpt"]


def test_a_full_and_a_read_only_disk_leave_the_run_resumable(tmp_path: Path) -> None:
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no process a disk of its own")
    report = report_of("full_disk.py", tmp_path, wrapped=("unshare", "-rm"))
    assert report["first"] == report["freed"] == "ok"
    for moment in ("full", "nearly_full", "read_only"):
        reason = "this disk is read-only" if moment == "read_only" else "the disk is full"
        assert reason in report[moment], report
        assert "\n" not in report[moment]
    assert 3 <= report["step_when_full"] < report["step_at_end"] == 40
    assert report["left"] == ["best.ckpt", "last.ckpt", "previous.ckpt"]
