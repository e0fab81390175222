"""The memory preflight beside what training steps take: `python -m benchmarks.preflight [--only grid held_out]`.

Each case trains two steps in a fresh process, and reads the peak of resident memory. "Predicted" is what the process
held before its first step, plus the prediction made then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import torch

from benchmarks.common import load_results, print_table, save_results
from benchmarks.memory import peak_mebibytes
from benchmarks.train_step import THREADS, VOCABULARY, LanguageModel, training_step
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_kernels.cpu.allocator import keep_freed_memory
from mamba_training.preflight import Workload, predict

MEBIBYTE = 2**20
CASES: list[dict[str, Any]] = [
    {"length": 2**10},
    {"length": 2**12},
    {"length": 2**12, "batch": 4, "layers": 6},
    {"length": 2**13, "precision": "bf16-mixed"},
    {"length": 2**13, "chunk_size": 1024},
    {"length": 2**13, "width": 256, "layers": 4},
    {"length": 2**13, "width": 64, "layers": 8, "batch": 2},
    {"length": 2**14},
    {"length": 2**14, "bidirectional": "add", "layers": 6},
    {"length": 2**15, "chunk_size": 4096},
    {"length": 2**15, "batch": 2, "layers": 4},
    {"length": 2**16, "layers": 6},
    {"length": 2**18},
    {"length": 2**12, "mixer": "s4d", "layers": 4},
    {"length": 2**12, "mixer": "hyena", "layers": 4},
    {"length": 2**14, "mixer": "hyena", "layers": 4},
    {"length": 2**13, "mixer": "hyena", "layers": 3, "bidirectional": "add"},
]
HELD_OUT: list[dict[str, Any]] = [  # tried only after the factors had been chosen on the cases above
    {"length": 3000, "batch": 3, "layers": 5},
    {"length": 2**12, "width": 192, "layers": 9, "states": 32},
    {"length": 2**13, "bidirectional": "concat", "layers": 4},
    {"length": 2**13, "reverse_complement": "equivariant", "layers": 6},
    {"length": 20_000, "layers": 8, "precision": "bf16-mixed"},
    {"length": 2**15, "chunk_size": 2048, "layers": 10},
    {"length": 2**18, "width": 256, "layers": 5, "chunk_size": 1024},
    {"length": 2**13, "mixer": "mamba2", "layers": 6},
    {"length": 2**14, "mixer": "mamba2", "chunk_size": 2048, "layers": 6},
    {"length": 2**12, "mixer": "attention", "layers": 6},
    {"length": 2**13, "mixer": "s4d", "layers": 3, "width": 96},
    {"length": 2**14, "mixer": "s4d", "layers": 6, "chunk_size": 2048},
]
DEFAULTS = {
    "batch": 1,
    "width": 128,
    "layers": 12,
    "precision": "32-true",
    "chunk_size": "auto",
    "bidirectional": "none",
    "reverse_complement": "none",
    "states": 16,
    "mixer": "mamba",
}


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One case, in this process."""
    config = BackboneConfig(
        d_model=case["width"],
        layers=[case["mixer"]] * case["layers"],
        d_state=case["states"],
        chunk_size=case["chunk_size"],
        bidirectional=case["bidirectional"],
        reverse_complement=case["reverse_complement"],
    )
    model = LanguageModel(Backbone(config)) if case["width"] == 128 else _resized(config)
    step = training_step(model, model, bf16=case["precision"] == "bf16-mixed")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ids = torch.randint(0, VOCABULARY, (case["batch"], case["length"]))
    before = peak_mebibytes()
    work = Workload(config, parameters, case["batch"], case["length"], case["precision"], VOCABULARY)
    rise = predict(work).total / MEBIBYTE
    for _ in range(2):
        step(ids)
    peak = peak_mebibytes()
    return {
        **case,
        "MiB before": before,
        "predicted MiB": before + rise,
        "measured MiB": peak,
        "predicted / measured": (before + rise) / peak,
        "rise predicted / measured": rise / (peak - before),
    }


def _resized(config: BackboneConfig) -> LanguageModel:
    model = LanguageModel(Backbone(config))
    model.embedding = torch.nn.Embedding(VOCABULARY, config.d_model)
    return model


def main() -> None:
    """Compares predicted with measured memory, prints the tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["grid", "held_out"], nargs="*", default=["grid", "held_out"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    if arguments.one:
        print(json.dumps(measure({**DEFAULTS, **json.loads(arguments.one)})))
        return
    results = load_results("preflight")
    for name, cases in {"grid": CASES, "held_out": HELD_OUT}.items():
        if name in arguments.only:
            results[name] = [in_own_process(case) for case in cases]
            print_table("Peak memory of a training step", results[name])
            save_results("preflight", results)


def in_own_process(case: dict[str, Any]) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.preflight", "--one", json.dumps(case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    print(f"{case}: predicted / measured {row['predicted / measured']:.2f}", flush=True)
    return row


if __name__ == "__main__":
    main()
