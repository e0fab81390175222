"""Exported programs serve lengths and batch sizes that they were not traced with, and need nothing of this package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

MIXERS = "mamba", "mamba2", "s4d", "hyena", "attention"


@pytest.mark.parametrize("mixers", [MIXERS, *(pytest.param([one], marks=pytest.mark.slow) for one in MIXERS)])
def test_one_program_serves_every_length(mixers: Sequence[str]) -> None:
    program = Path(__file__).with_name("export_anew.py")
    done = subprocess.run([sys.executable, str(program), *mixers], capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr[-3000:]
