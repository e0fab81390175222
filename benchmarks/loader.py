"""Speed and memory of reading genomes: first index, opening, streaming, random windows, one loader worker.

    python -m benchmarks.loader [--fasta FILE] [--gigabases G] [--rounds N]

A large genome is made by repeating real sequence under new record names until it has G gigabases (3 by default), in
the system's temporary folder, and removed at the end. Every figure is taken in a process of its own, so that the peak
of the resident memory is that of one job alone; the file is read from the page cache where it fits into that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.memory import peak_mebibytes

WINDOW = 1 << 15
RECORD = 150_000_000
"""Bases of a record of the large file, about a human chromosome's."""
LINE = 60
MEBIBYTE = 2**20


def index(fasta: Path, cache: Path) -> dict[str, float]:
    """Opens the file for the first time (which reads all of it) or again (which does not)."""
    from mamba_data_prep.genomes.genome import Genome

    start, cpu = time.perf_counter(), time.process_time()
    genome = Genome.open(fasta, cache)
    return speeds(int(genome.lengths.sum()), start, cpu)


def stream(fasta: Path, cache: Path) -> dict[str, float]:
    """Reads the file from end to end."""
    from mamba_data_prep.genomes.fasta import stream_fasta

    start, cpu = time.perf_counter(), time.process_time()
    return speeds(sum(len(piece.sequence) for piece in stream_fasta(fasta)), start, cpu)


def speeds(bases: int, start: float, cpu: float) -> dict[str, float]:
    """Seconds, and megabases a second by the clock and by processor time, which other work slows less."""
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds, "MB/s": bases / seconds / 1e6, "MB per CPU second": bases / used / 1e6}


def windows(fasta: Path, cache: Path, *, workers: int, turned: bool = True, batches: int = 1600) -> dict[str, float]:
    """Batches of 8 windows in random order, half of them turned to the other strand, as training reads them."""
    from mamba_data_prep.genomes.dataset import WindowDataset
    from mamba_data_prep.genomes.genome import Genome
    from mamba_data_prep.genomes.loader import make_loader
    from mamba_data_prep.genomes.windows import tile
    from mamba_data_prep.sampler import ResumableBatchSampler

    genome = Genome.open(fasta, cache)
    start = time.perf_counter()
    table = tile(genome, WINDOW)
    tiled = time.perf_counter() - start
    dataset = WindowDataset(genome, table, np.arange(256, dtype=np.uint8), turned, 0)
    loader = iter(make_loader(dataset, ResumableBatchSampler(len(table), 8, 0), workers))
    next(loader)
    children = psutil.Process().children()
    start, cpu, before = time.perf_counter(), time.process_time(), sum(map(processor_seconds, children))
    bases = sum(batch.numel() for batch in itertools.islice(loader, batches))
    speed = bases / (time.perf_counter() - start) / 1e6
    used = sum(map(processor_seconds, children)) - before if children else time.process_time() - cpu
    peak = max(map(peak_mebibytes, ["self", *(child.pid for child in children)]))
    return {"seconds": tiled, "MB/s": speed, "MB per CPU second": bases / used / 1e6, "peak MiB": peak}


def processor_seconds(process: psutil.Process) -> float:
    """Processor time that a process has used so far."""
    return process.cpu_times().user + process.cpu_times().system


JOBS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "first opening (index)": index,
    "opening again": index,
    "stream": stream,
    "windows, main process": lambda fasta, cache: windows(fasta, cache, workers=0),
    "windows, one worker": lambda fasta, cache: windows(fasta, cache, workers=1),
}


def main() -> None:
    """Runs every job, prints a table, writes `results/loader.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, default=None, help="real sequence to repeat (the demo's)")
    parser.add_argument("--gigabases", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", nargs=3, metavar=("JOB", "FASTA", "CACHE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        name, fasta, cache = options.job
        result = JOBS[name](Path(fasta), Path(cache))
        print(json.dumps({**result, "peak MiB": result.get("peak MiB", peak_mebibytes("self"))}))
        return
    from benchmarks.common import (
        print_table,
        save_results,
    )  # imports torch, which the jobs' memory should not hold

    with tempfile.TemporaryDirectory(prefix="seqmamba-bench-") as folder:
        fasta = Path(folder) / "large.fa"
        size = write_large(fasta, options.fasta or demo_genome(), int(options.gigabases * 1e9))
        rows = measure(fasta, Path(folder), options.rounds)
    title = f"{options.gigabases:g} Gb FASTA ({size / 1e9:.2f} GB), window {WINDOW:,}; medians of {options.rounds}"
    print_table(title, rows)
    save_results("loader", {"gigabases": options.gigabases, "bytes": size, "window": WINDOW, "rows": rows})


def measure(fasta: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Medians over rounds, each job in a process of its own."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in JOBS}
    for number in range(rounds):
        for name in JOBS:
            command = [sys.executable, "-m", "benchmarks.loader", "--job", name, str(fasta), f"{folder}/cache{number}"]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(run.stdout))
    return [
        {"job": name, **{key: float(np.median([r[key] for r in results])) for key in results[0]}}
        for name, results in found.items()
    ]


def demo_genome() -> Path:
    """The real sequence that the package ships."""
    return next((Path(__file__).parents[1] / "genomamba" / "demo" / "data").glob("*.fa*"))


def write_large(path: Path, source: Path, bases: int) -> int:
    """Repeats the bases of `source` in records of `RECORD` bases, 60 a line; returns the file's size."""
    from mamba_data_prep.genomes.fasta import stream_fasta

    real = np.concatenate([piece.sequence for piece in stream_fasta(source)])
    real = np.tile(real, -(-LINE * MEBIBYTE // len(real)))[: LINE * MEBIBYTE]
    lines = np.full((MEBIBYTE, LINE + 1), ord("\n"), dtype=np.uint8)
    lines[:, :LINE] = real.reshape(MEBIBYTE, LINE)
    text = lines.tobytes()
    with path.open("wb") as stream:
        for number, first in enumerate(range(0, bases, RECORD)):
            stream.write(f">chr{number + 1}\n".encode())
            left = min(RECORD, bases - first) // LINE * (LINE + 1)
            while left:
                left -= stream.write(text[:left])
    return path.stat().st_size


if __name__ == "__main__":
    main()
