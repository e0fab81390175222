"""Exported programs serve lengths and batch sizes that they were not traced with, and need nothing of this package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

MIXERS = "mamba", "mamba2", "s4d", "hyena", "attention"
"""Each with restarts too, where a minute is given."""


@pytest.mark.parametrize(
    ("parts", "mixers"),
    [
        ("plain,step", ["mamba"]),
        *(pytest.param("plain,resets,step", [one], marks=pytest.mark.slow, id=one) for one in MIXERS),
    ],
)
def test_one_program_serves_every_length(parts: str, mixers: Sequence[str]) -> None:
    command = [sys.executable, str(Path(__file__).with_name("export_anew.py")), parts, *mixers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr[-3000:]
