"""A sequence split over ranks gives what one rank gives: outputs and gradients, with processes that talk over gloo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("split_ranks.py")


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_give_what_one_gives(tmp_path, size):
    commands = [
        [sys.executable, "-W", "error", str(PROGRAM), str(rank), str(size), str(tmp_path)] for rank in range(size)
    ]
    ranks = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    try:
        said = [rank.communicate(timeout=280)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * size, "\n".join(said)
