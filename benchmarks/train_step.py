"""Training speed and memory of the 1.4M-parameter language model (12 layers x 128, N = 16), ours and peers.

    python -m benchmarks.train_step [--rounds N] [--peers transformers mambapy hyenadna] [--only TABLE ...]

1. One optimiser step (forward, backward, clip, AdamW) at batch 1, L = 4096, float32, two threads: ours, transformers'
   Mamba with `use_mambapy=True`, and mambapy's own blocks, in turn, each in a process of its own as its users get it.
2. Where the time of our step goes, by the profiler.
3. What working in chunks costs, and what the narrow projection's layout saves: one thread, processor time.
4. Ours from L = 2^12 to 2^18, each length in a process of its own: tokens/s and peak resident memory.
5. HyenaDNA, of like size, at 2^12, 2^14 and 2^16, in both precisions: where its repository's
   `standalone_hyenadna.py` can be imported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import load_results, print_table, save_results
from benchmarks.memory import peak_mebibytes
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_kernels.cpu.allocator import keep_freed_memory

LAYERS, WIDTH, VOCABULARY = 12, 128, 16
LENGTH, SHORTEST_LOG2, LONGEST_LOG2 = 4096, 12, 18
HYENA_LOG2 = (12, 14, 16)
THREADS = 2
MEBIBYTE = 2**20


Step = Callable[[Tensor], None]


class LanguageModel(nn.Module):
    """Embedding, a stack of layers, tied head; the stack is our backbone unless another is given."""

    def __init__(self, layers: nn.Module | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = layers or Backbone(BackboneConfig(d_model=WIDTH, layers=["mamba"] * LAYERS))

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.layers(self.embedding(ids))
        return F.linear(hidden[0] if isinstance(hidden, tuple) else hidden, self.embedding.weight)


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
    """A training step of our language model."""
    model = LanguageModel()
    return training_step(model, model, bf16=bf16)


def transformers_mamba() -> Step:
    """A training step of transformers' Mamba with the parallel scan that it takes from mambapy."""
    from transformers import MambaConfig, MambaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    model = MambaForCausalLM(
        MambaConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, use_mambapy=True)
    ).train()
    return training_step(model, lambda ids: model(ids, use_cache=False).logits)


def mambapy_model() -> Step:
    """mambapy's stack of blocks between our embedding and tied head; its own `lm` module needs mamba-ssm to import."""
    from mambapy.mamba import Mamba, MambaConfig  # pyright: ignore[reportMissingImports]

    model = LanguageModel(Mamba(MambaConfig(d_model=WIDTH, n_layers=LAYERS)))
    return training_step(model, model)


def hyenadna_model(longest: int = 2 ** HYENA_LOG2[-1], *, bf16: bool = False) -> Step:
    """HyenaDNA's own standalone model in the shape of its smallest release, 8 layers x 128, with a tied head."""
    from standalone_hyenadna import HyenaDNAModel  # pyright: ignore[reportMissingImports]

    layer = {
        "emb_dim": 5,
        "filter_order": 64,
        "local_order": 3,
        "l_max": longest + 2,
        "modulate": True,
        "w": 10,
    }
    model = HyenaDNAModel(d_model=WIDTH, n_layer=8, d_inner=4 * WIDTH, vocab_size=VOCABULARY, layer=layer)
    head = model.backbone.embeddings.word_embeddings.weight
    return training_step(model, lambda ids: F.linear(model(ids), head), bf16=bf16)


PEERS = ("transformers", "mambapy", "hyenadna")
TITLES = {
    "step": f"One training step, L = {LENGTH}, batch 1, {THREADS} threads",
    "parts": "Where the time of our step goes (float32)",
    "decisions": "Processor time on one thread",
    "curve": "Ours by length, float32",
    "hyenadna": "Beside HyenaDNA",
}
MODELS: dict[str, Callable[[], Step]] = {
    "ours": ours,
    "hyenadna": hyenadna_model,
    "ours in bfloat16": lambda: ours(bf16=True),
    "hyenadna in bfloat16": lambda: hyenadna_model(bf16=True),
}


CASES = {  # as its users get each: ours with what a training run sets, the peers with what Python gives them
    "ours, float32": ours,
    "ours, bfloat16 autocast": lambda: ours(bf16=True),
    "transformers, use_mambapy": transformers_mamba,
    "transformers, with our allocator settings": transformers_mamba,
    "mambapy": mambapy_model,
    "mambapy, with our allocator settings": mambapy_model,
}


def serve(case: str) -> None:
    """Takes one step for each line on standard input and answers with its seconds."""
    if "ours" in case or "our allocator" in case:
        keep_freed_memory()
    step, ids = CASES[case](), torch.randint(0, VOCABULARY, (1, LENGTH))
    for _ in sys.stdin:
        start = time.perf_counter()
        step(ids)
        print(json.dumps(time.perf_counter() - start), flush=True)


def asked(server: subprocess.Popen[str]) -> float:
    """Seconds of one step of a server."""
    if server.stdin is None or server.stdout is None:
        raise ValueError("the server has no pipes")
    print(file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


def compare(rounds: int, peers: Sequence[str]) -> list[dict[str, Any]]:
    """Seconds a step at L = 4096: each model in a process of its own, in turn."""
    cases = [case for case in CASES if any(case.startswith(name) for name in ("ours", *peers))]
    command = [sys.executable, "-m", "benchmarks.train_step", "--serve"]
    with ExitStack() as stack:
        servers = {
            case: stack.enter_context(
                subprocess.Popen([*command, case], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for case in cases
        }
        seconds: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(rounds + 1):
            for case, server in servers.items():
                seconds[case].append(asked(server))
    rows = []
    for case, (_, *times) in seconds.items():  # the first step warms up
        median = statistics.median(times)
        rows.append({"model": case, "seconds a step": median, "tokens/s": LENGTH / median, "all seconds": times})
    return with_ratios(rows)


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows beside the fastest peer, as its users get it and with the allocator's setting that ours has."""
    usual = [row for row in rows if "our" not in row["model"]]
    helped = [row for row in rows if "our allocator" in row["model"]]
    for name, peers in (("as installed", usual), ("with our allocator settings", helped)):
        fastest = max((row["tokens/s"] for row in peers), default=None)
        for row in rows:
            row[f"times the fastest peer, {name}"] = row["tokens/s"] / fastest if fastest else None
    return rows


PARTS = {  # part of the step: what its operators' names contain, in the order in which they are tried
    "selective scan, backward": ("selective_scan_backward",),
    "selective scan, forward": ("selective_s",),
    "convolution, backward": ("causal_conv1d_backward",),
    "convolution, forward": ("causal_conv1",),
    "matrix multiplication": ("aten::mm", "aten::addmm", "aten::bmm", "mkldnn"),
    "RMSNorm": ("rms_norm",),
    "AdamW and clipping": ("adam", "foreach", "Optimizer"),
}


def profile() -> list[dict[str, Any]]:
    """Share of each part in the time of one step of ours, from the profiler's own time of each operator."""
    step, ids = ours(), torch.randint(0, VOCABULARY, (1, LENGTH))
    step(ids)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step(ids)
    totals = dict.fromkeys([*PARTS, "everything else"], 0.0)
    for event in profiler.key_averages():
        part = next((part for part, words in PARTS.items() if any(w in event.key for w in words)), "everything else")
        totals[part] += event.self_cpu_time_total / 1000
    return [{"part": part, "milliseconds": ms, "share": ms / sum(totals.values())} for part, ms in totals.items()]


def best_processor_time(cases: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Least milliseconds of processor time: what other programs do to the machine shows least in it."""
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, run in cases.items():
            start = time.thread_time()
            run()
            best[name] = min(best[name], 1000 * (time.thread_time() - start))
    return best


def decisions() -> list[dict[str, Any]]:
    """Two choices beside what they replaced, on one thread."""
    torch.set_num_threads(1)
    x, gradient = torch.randn(1, 4 * LENGTH, WIDTH, requires_grad=True), torch.randn(1, 4 * LENGTH, WIDTH)
    cases: dict[str, Callable[[], object]] = {}
    for name, chunk_size in {"whole": None, "in chunks of 2048": 2048, "in chunks of 8192": 8192}.items():
        block = Backbone(BackboneConfig(d_model=WIDTH, layers=["mamba"], chunk_size=chunk_size))
        cases[f"one block, L = {4 * LENGTH}, {name}"] = lambda b=block: b(x)[0].backward(gradient)
    dt, weight = torch.randn(LENGTH, 8, requires_grad=True), torch.randn(256, 8, requires_grad=True)
    wide = torch.randn(LENGTH, 256)
    cases["projection 8 -> 256, as a linear layer"] = lambda: F.linear(dt, weight).backward(wide)
    cases["projection 8 -> 256, row-major"] = lambda: (dt @ weight.t().contiguous()).backward(wide)
    found = best_processor_time(cases)
    torch.set_num_threads(THREADS)
    return [{"forward and backward of": name, "milliseconds": ms} for name, ms in found.items()]


def measure_length(length: int, model: str) -> dict[str, Any]:
    """A model at one length: tokens/s, and what the peak of resident memory rose by over a short step's."""
    step = MODELS[model]()
    step(torch.randint(0, VOCABULARY, (1, 256)))
    before = peak_mebibytes()
    ids = torch.randint(0, VOCABULARY, (1, length))
    repeats = max(1, min(10, 2**17 // length))
    step(ids)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step(ids)
        times.append(time.perf_counter() - start)
    peak = peak_mebibytes()
    return {
        "length": length,
        "tokens/s": length / statistics.median(times),
        "peak MiB": peak,
        "MiB over the start": peak - before,
        "residual stream MiB": (LAYERS + 1) * length * WIDTH * 4 / MEBIBYTE,
    }


def curve(longest_log2: int) -> list[dict[str, Any]]:
    """Each length in a process of its own, after one at the shortest length: a slow spell falls on both."""
    rows = []
    for log2 in range(SHORTEST_LOG2, longest_log2 + 1):
        shortest, row = (in_own_process(2**k, "ours") for k in (SHORTEST_LOG2, log2))
        rows.append({**row, f"of the speed at {2**SHORTEST_LOG2:,}": row["tokens/s"] / shortest["tokens/s"]})
    return rows


def in_own_process(length: int, model: str) -> dict[str, Any]:
    """`measure_length` in a fresh process, so that no peak hides another."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--one-length", str(length), "--model", model]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    print(f"{model}, L = {length:,}: {row['tokens/s']:,.0f} tokens/s, peak {row['peak MiB']:,.0f} MiB", flush=True)
    return row


def beside_hyenadna() -> list[dict[str, Any]]:
    """Ours and HyenaDNA in turn at three lengths, both in float32, then both under bfloat16 autocast."""
    rows = []
    for dtype, suffix in (("float32", ""), ("bfloat16 autocast", " in bfloat16")):
        for log2 in HYENA_LOG2:
            mine, theirs = (in_own_process(2**log2, model + suffix) for model in ("ours", "hyenadna"))
            rows.append(
                {
                    "precision": dtype,
                    "length": 2**log2,
                    "ours, tokens/s": mine["tokens/s"],
                    "HyenaDNA, tokens/s": theirs["tokens/s"],
                    "ours is faster by": mine["tokens/s"] / theirs["tokens/s"],
                    "ours, peak MiB": mine["peak MiB"],
                    "HyenaDNA, peak MiB": theirs["peak MiB"],
                }
            )
    return rows


def main() -> None:
    """Measures the tables that `--only` names, prints them and writes them beside the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS[:2])
    parser.add_argument(
        "--only", nargs="*", choices=TITLES, default=list(TITLES), help="the other tables stay as written"
    )
    parser.add_argument("--max-log2", type=int, default=LONGEST_LOG2)
    parser.add_argument("--serve", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--one-length", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=list(MODELS), default="ours", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if options.serve:
        serve(options.serve)
        return
    keep_freed_memory()  # as `genomamba pretrain` does
    if options.one_length:
        print(json.dumps(measure_length(options.one_length, options.model)))
        return
    measures: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "step": lambda: compare(options.rounds, options.peers),
        "parts": profile,
        "decisions": decisions,
        "curve": lambda: curve(options.max_log2),
        "hyenadna": beside_hyenadna,
    }
    results = {key: value for key, value in load_results("train_step").items() if key in TITLES}
    for name in options.only:
        if name == "hyenadna" and "hyenadna" not in options.peers:
            continue
        results[name] = measures[name]()
        print_table(TITLES[name], results[name], skip=["all seconds"])
        save_results("train_step", results, seeds=[0])


if __name__ == "__main__":
    main()
