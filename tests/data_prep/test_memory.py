"""Memory does not grow with the file: not for a long line, not for a large genome, not for many records."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PEAK = "next(int(x.split()[1]) // 1024 for x in open('/proc/self/status') if x.startswith('VmHWM'))"
STREAM = f"""
import sys
from mamba_data_prep.genomes.fasta import stream_fasta
print(sum(len(p.sequence) for p in stream_fasta(sys.argv[1], unique_ids=False)), {PEAK})
"""
OPEN = f"""
import sys, time
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.windows import tile
genome = Genome.open(sys.argv[1], sys.argv[2])
for _ in range(100):
    genome.fetch(0, genome.records[0].length // 2, genome.records[0].length // 2 + 100_000)
tile(genome, 4096)
print(int(genome.lengths.sum()), {PEAK})
"""


def peak(script: str, path: Path) -> tuple[int, int]:
    """Bases read, and mebibytes resident at most, of a process of its own."""
    command = [sys.executable, "-c", script, path, path.parent / "cache"]
    bases, mebibytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(bases), int(mebibytes)


def write_lines(path: Path, bases: int, width: int) -> None:
    """One record of random bases, `width` a line."""
    million = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(0).integers(0, 4, 1 << 20)].tobytes()
    with path.open("wb") as stream:
        stream.write(b">one\n")
        for first in range(0, bases, width):
            left = min(width, bases - first)
            while left:
                left -= stream.write(million[:left])
            stream.write(b"\n")


ALLOWED = 16
"""Mebibytes that a large file may take more than a small one: some blocks of text, and what is made of them."""


def grown(script: str, path: Path, bases: int, width: int) -> int:
    """Mebibytes that reading a file of so many bases takes more than reading one of a quarter of a million."""
    write_lines(path, 250_000, width)
    _, small = peak(script, path)
    write_lines(path, bases, width)
    read, large = peak(script, path)
    assert read == bases
    return large - small


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("script", [STREAM, OPEN], ids=["stream", "random"])
def test_one_long_line(script: str, tmp_path: Path) -> None:
    assert grown(script, tmp_path / "a.fa", 60_000_000, 60_000_000) < ALLOWED


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("script", [STREAM, OPEN], ids=["stream", "random"])
@pytest.mark.parametrize(("bases", "width"), [(250_000_000, 250_000_000), (1_000_000_000, 1 << 16)])
def test_large_files(bases: int, width: int, script: str, tmp_path: Path) -> None:
    assert grown(script, tmp_path / "a.fa", bases, width) < ALLOWED
    (tmp_path / "a.fa").unlink()
