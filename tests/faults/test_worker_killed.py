"""A data worker that is killed ends the run with a named error, soon; nothing hangs."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import deque
from pathlib import Path

import psutil
import pytest

from mamba_data_prep.genomes.dataset import WindowDataset
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.loader import WorkerDied, make_loader
from mamba_data_prep.genomes.windows import tile
from mamba_data_prep.sampler import ResumableBatchSampler

DEADLINE = 30.0


def kill_one_worker(path: Path, after: int) -> float:
    """Seconds from the kill to the error."""
    genome = Genome.open(path)
    dataset = WindowDataset(genome, tile(genome, 500))
    before = {child.pid for child in psutil.Process().children()}
    loader = make_loader(dataset, ResumableBatchSampler(len(dataset), 2, 0), workers=2)
    batches = iter(loader)
    for _ in itertools.islice(batches, after + 1):
        pass
    workers = [c.pid for c in psutil.Process().children() if c.pid not in before]
    os.kill(workers[after % len(workers)], signal.SIGKILL)
    start = time.monotonic()
    message = r"a data worker was killed \(process \d+, signal SIGKILL\)[\s\S]*fewer workers"
    with pytest.raises(WorkerDied, match=message) as caught:
        deque(batches, maxlen=1)
    assert caught.value.exit_code == 3
    return time.monotonic() - start


def test_named_error_within_the_deadline(tiny_genome: Path) -> None:
    assert kill_one_worker(tiny_genome, 3) < DEADLINE


@pytest.mark.slow
@pytest.mark.parametrize("after", range(20))
def test_twenty_kills(after: int, tiny_genome: Path) -> None:
    assert kill_one_worker(tiny_genome, after) < DEADLINE
