"""Training speed and memory of the 1.4M-parameter language model (12 layers x 128, N = 16), ours and peers.

    python -m benchmarks.train_step [--rounds N] [--skip-peers] [--skip-curve] [--max-log2 K]

1. One optimiser step (forward, backward, clip, AdamW) at batch 1, L = 4096, float32, two threads: ours, transformers'
   Mamba with `use_mambapy=True`, and mambapy's own model, alternating in one process.
2. Ours from L = 2^12 to 2^18, each length in a process of its own: tokens/s and peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mamba_kernels.blocks import Backbone, BackboneConfig
from torch import Tensor, nn

from benchmarks.common import alternate, print_table, save_results

LAYERS, WIDTH, VOCABULARY = 12, 128, 16
LENGTH, SHORTEST_LOG2, LONGEST_LOG2 = 4096, 12, 18
THREADS = 2
MEBIBYTE = 2**20


Step = Callable[[Tensor], None]


class LanguageModel(nn.Module):
    """Embedding, backbone, tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.backbone = Backbone(BackboneConfig(d_model=WIDTH, layers=["mamba"] * LAYERS))

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.backbone(self.embedding(ids))[0], self.embedding.weight)


def training_step(model: nn.Module, logits: Callable[[Tensor], Tensor], *, bf16: bool = False) -> Step:
    """A function that takes one optimiser step on a batch of ids (B, L)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(ids: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            predicted = logits(ids)
        loss = F.cross_entropy(predicted[:, :-1].reshape(-1, VOCABULARY).float(), ids[:, 1:].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def ours(*, bf16: bool = False) -> Step:
    model = LanguageModel()
    return training_step(model, model, bf16=bf16)


def transformers_mamba() -> Step:
    from transformers import MambaConfig, MambaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    model = MambaForCausalLM(
        MambaConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, use_mambapy=True)
    ).train()
    return training_step(model, lambda ids: model(ids, use_cache=False).logits)


def mambapy_model() -> Step:
    from mambapy.lm import LM  # pyright: ignore[reportMissingImports]
    from mambapy.mamba import MambaConfig  # pyright: ignore[reportMissingImports]

    model = LM(MambaConfig(d_model=WIDTH, n_layers=LAYERS), vocab_size=VOCABULARY)
    return training_step(model, model)


def compare(rounds: int, *, peers: bool) -> list[dict[str, Any]]:
    """Seconds a step at L = 4096, alternating."""
    steps = {"ours, float32": ours(), "ours, bfloat16 autocast": ours(bf16=True)}
    if peers:
        steps |= {"transformers, use_mambapy": transformers_mamba(), "mambapy": mambapy_model()}
    ids = torch.randint(0, VOCABULARY, (1, LENGTH))
    seconds = alternate({name: lambda step=step: step(ids) for name, step in steps.items()}, rounds=rounds, warmup=1)
    rows = []
    for name, times in seconds.items():
        median = statistics.median(times)
        rows.append({"model": name, "seconds a step": median, "tokens/s": LENGTH / median, "all seconds": times})
    fastest_peer = max((row["tokens/s"] for row in rows if not row["model"].startswith("ours")), default=None)
    for row in rows:
        row["times the fastest peer"] = row["tokens/s"] / fastest_peer if fastest_peer else None
    return rows


def measure_length(length: int) -> dict[str, Any]:
    """Ours at one length: tokens/s, and what the peak of resident memory rose by over a short step's."""
    step = ours()
    step(torch.randint(0, VOCABULARY, (1, 256)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ids = torch.randint(0, VOCABULARY, (1, length))
    repeats = max(1, min(10, 2**17 // length))
    step(ids)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step(ids)
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "length": length,
        "tokens/s": length / statistics.median(times),
        "peak MiB": peak,
        "MiB over the start": peak - before,
        "residual stream MiB": (LAYERS + 1) * length * WIDTH * 4 / MEBIBYTE,
    }


def curve(longest_log2: int) -> list[dict[str, Any]]:
    """Each length in a process of its own, so that no peak hides another."""
    rows = []
    for log2 in range(SHORTEST_LOG2, longest_log2 + 1):
        command = [sys.executable, "-m", "benchmarks.train_step", "--one-length", str(2**log2)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"2^{log2}: {rows[-1]['tokens/s']:,.0f} tokens/s, peak {rows[-1]['peak MiB']:,.0f} MiB", flush=True)
    for row in rows:
        row["of the first speed"] = row["tokens/s"] / rows[0]["tokens/s"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-peers", action="store_true")
    parser.add_argument("--skip-curve", action="store_true")
    parser.add_argument("--max-log2", type=int, default=LONGEST_LOG2)
    parser.add_argument("--one-length", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if arguments.one_length:
        print(json.dumps(measure_length(arguments.one_length)))
        return
    results: dict[str, Any] = {"step": compare(arguments.rounds, peers=not arguments.skip_peers)}
    print_table(f"One training step, L = {LENGTH}, batch 1, {THREADS} threads", results["step"], skip=["all seconds"])
    if not arguments.skip_curve:
        results["curve"] = curve(arguments.max_log2)
        print_table("Ours by length, float32", results["curve"])
    save_results("train_step", results)


if __name__ == "__main__":
    main()
