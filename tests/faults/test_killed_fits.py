"""`tsmamba fit` killed while it trains, and gone on with: the same bundle, without training anything twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fit_storm.py")
KILLS = 8


@pytest.mark.skipif(os.name != "posix", reason="the program forks")
@pytest.mark.slow
@pytest.mark.parametrize("method", ["mamba", "causal", "smamba", "tsmamba"])
def test_a_killed_fit_ends_as_if_it_had_not_been(tmp_path: Path, method: str) -> None:
    command = [sys.executable, str(PROGRAM), str(tmp_path), str(KILLS), method]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["failures"] == 0, done.stdout
    assert report["mid_run"] == report["kills"] == KILLS
    assert report["last"] == report["left"] < report["steps"]
    whole, killed = tmp_path / "whole" / "model", tmp_path / "killed" / "model"
    names = sorted(path.name for path in whole.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert [name for name in names if (whole / name).read_bytes() != (killed / name).read_bytes()] == []
    assert not (tmp_path / "killed" / ".lock").exists()
