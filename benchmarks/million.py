"""Up to a million tokens: time and memory of a training step against length, ours and peers, and of streaming.

    python -m benchmarks.million [--max-log2 20] [--peers transformers mambapy hyenadna] [--gib 16] [--minutes 20]

1. One optimiser step of the 1.4M-parameter language model (12 layers x 128, N = 16) on one sequence, float32, two
   threads, with the exact gradient: each length in a process of its own, limited in memory and time. A peer's first
   length that fails is its last.
2. The backbone alone over the same lengths without gradients, by `Backbone.stream`: causal, and in both directions.

Writes `results/million.json` and the picture `results/million.png`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.common import RESULTS, load_results, print_table, save_results
from benchmarks.memory import peak_mebibytes
from benchmarks.train_step import (
    LAYERS,
    THREADS,
    VOCABULARY,
    WIDTH,
    Step,
    hyenadna_model,
    mambapy_model,
    ours,
    transformers_mamba,
)
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_kernels.cpu.allocator import keep_freed_memory

SHORTEST_LOG2, LONGEST_LOG2 = 12, 20
STREAM_LOG2, STREAM_PIECE = (14, 16, 18, 20), 16_384
GIBIBYTE = 2**30
MODELS: dict[str, Callable[[int], Step]] = {  # from the length, which HyenaDNA's filters must know
    "ours": lambda length: ours(),
    "transformers": lambda length: transformers_mamba(),
    "mambapy": lambda length: mambapy_model(),
    "hyenadna": hyenadna_model,
}
PEERS = list(MODELS)[1:]
DIRECTIONS = {"causal": "none", "both directions": "add"}


def measure_step(model: str, length: int) -> Callable[[], None]:
    """The second step of a model; the first, on few tokens, compiles and fills what does not grow."""
    step = MODELS[model](length)
    step(torch.randint(0, VOCABULARY, (1, 256)))
    ids = torch.randint(0, VOCABULARY, (1, length))
    return lambda: step(ids)


def measure_stream(direction: str, length: int) -> Callable[[], None]:
    """The backbone over a sequence that exists only piece by piece."""
    backbone = Backbone(BackboneConfig(d_model=WIDTH, layers=["mamba"] * LAYERS, bidirectional=DIRECTIONS[direction]))
    list(backbone.stream([torch.randn(1, 256, WIDTH)]))

    def run() -> None:
        pieces = (torch.randn(1, STREAM_PIECE, WIDTH) for _ in range(length // STREAM_PIECE))
        for _ in backbone.stream(pieces):
            pass

    return run


def measure(what: str, length: int, bytes_allowed: int) -> dict[str, Any]:
    """Seconds, processor seconds and resident memory of one run, in this process."""
    resource.setrlimit(resource.RLIMIT_DATA, (bytes_allowed, bytes_allowed))
    run = measure_stream(what, length) if what in DIRECTIONS else measure_step(what, length)
    before = peak_mebibytes()
    wall, processor = time.perf_counter(), time.process_time()
    run()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = peak_mebibytes()
    return {
        "model": what,
        "length": length,
        "seconds": wall,
        "processor seconds": processor,
        "tokens/s": length / wall,
        "peak MiB": peak,
        "MiB over the start": peak - before,
    }


def in_own_process(what: str, length: int, gib: float, minutes: float) -> dict[str, Any]:
    """`measure` in a fresh process; a run that fails gives a row that says why."""
    command = [sys.executable, "-m", "benchmarks.million", "--one", what, str(length), "--gib", str(gib)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes, check=False)
        failure = None if done.returncode == 0 else _reason(done.stderr, gib)
    except subprocess.TimeoutExpired:
        done, failure = None, f"takes more than {minutes:g} minutes"
    if failure is None and done is not None:
        row = json.loads(done.stdout.splitlines()[-1])
        print(f"{what}, L = {length:,}: {row['seconds']:,.1f} s, peak {row['peak MiB']:,.0f} MiB", flush=True)
        return row
    print(f"{what}, L = {length:,}: {failure}", flush=True)
    return {"model": what, "length": length, "failure": failure}


def _reason(errors: str, gib: float) -> str:
    words = ("allocate memory", "MemoryError", "out of memory", "Cannot allocate")
    if any(word in errors for word in words) or not errors.strip():
        return f"needs more than {gib:g} GiB"
    return errors.strip().splitlines()[-1]


def against_length(whats: Sequence[str], lengths: Sequence[int], gib: float, minutes: float) -> list[dict[str, Any]]:
    """Each model from short to long, up to the first length that fails."""
    rows = []
    for what in whats:
        for length in lengths:
            rows.append(in_own_process(what, length, gib, minutes))
            if "failure" in rows[-1]:
                break
    return rows


def judged(rows: Sequence[dict[str, Any]], again: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked of the longest run: resident memory, and time beside 2^16 before and `again` after it."""
    mine = {row["length"]: row for row in rows if row["model"] == "ours" and "failure" not in row}
    longest = max(mine)
    before = mine[again["length"]]

    def ratio(key: str) -> float:
        return mine[longest][key] / ((before[key] + again[key]) / 2)

    return [
        {
            "tokens": longest,
            "peak GiB": mine[longest]["peak MiB"] / 1024,
            "seconds": mine[longest]["seconds"],
            "times the length of 2^16": longest / before["length"],
            "times its seconds": ratio("seconds"),
            "times its processor seconds": ratio("processor seconds"),
        }
    ]


def relative(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each step beside ours on the shortest sequence, in whose time the machine's speed that day falls out."""
    ours = next(row["seconds"] for row in rows if row["model"] == "ours" and row["length"] == 2**SHORTEST_LOG2)
    return [
        {
            "model": row["model"], "length": row["length"], "times our seconds at 4,096": row["seconds"] / ours,
            "peak MiB": row["peak MiB"], "MiB over the start": row["MiB over the start"],
        }
        for row in rows
    ]  # fmt: skip


def draw(rows: Sequence[dict[str, Any]]) -> None:
    """Time and memory against length, one line a model; a cross where it fails."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, key, label in ((axes[0], "seconds", "seconds a step"), (axes[1], "peak MiB", "peak resident MiB")):
        for model in dict.fromkeys(row["model"] for row in rows):
            good = [row for row in rows if row["model"] == model and "failure" not in row]
            (line,) = axis.plot([row["length"] for row in good], [row[key] for row in good], "o-", label=model)
            for row in rows:
                if row["model"] == model and "failure" in row and good:
                    axis.plot(row["length"], good[-1][key], "x", color=line.get_color(), markersize=10)
        axis.set(xscale="log", yscale="log", xlabel="tokens in the sequence", ylabel=label)
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle("One training step of 12 x 128 (1.4M parameters), float32, batch 1; a cross: fails at that length")
    figure.savefig(RESULTS / "million.png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Measures each length in a process of its own, prints the tables, and writes them with the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-log2", type=int, default=LONGEST_LOG2)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--gib", type=float, default=16, help="memory that a run may take")
    parser.add_argument("--minutes", type=float, default=20, help="time that a run may take")
    parser.add_argument("--skip", nargs="*", choices=["step", "stream"], default=[], help="keep what was measured")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if arguments.one:
        if arguments.one[0] not in PEERS:
            keep_freed_memory()  # as `genomamba pretrain` does; peers get the allocator that their users have
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]), int(arguments.gib * GIBIBYTE))))
        return
    results: dict[str, Any] = load_results("million")
    limits = arguments.gib, arguments.minutes
    if "step" not in arguments.skip:
        lengths = [2**log2 for log2 in range(SHORTEST_LOG2, arguments.max_log2 + 1)]
        rows = against_length(["ours"], lengths, *limits)
        again = in_own_process("ours", min(2**16, lengths[-1]), *limits)
        rows += against_length(arguments.peers, lengths, *limits)
        results["failures"] = [row for row in rows if "failure" in row]
        results["step"] = [row for row in rows if "failure" not in row]
        results["judged"] = judged(rows, again)
        results["relative"] = relative(results["step"])
        draw(rows)
        print_table("One training step", results["step"])
        print_table("The longest, beside 2^16", results["judged"])
    if "stream" not in arguments.skip:
        lengths = [2**log2 for log2 in STREAM_LOG2 if log2 <= arguments.max_log2]
        results["stream"] = against_length(list(DIRECTIONS), lengths, *limits)
        print_table("Streaming, without gradients", results["stream"])
    save_results("million", results, seeds=[0])


if __name__ == "__main__":
    main()
