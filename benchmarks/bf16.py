"""The loss curve in bfloat16 autocast beside float32's: `python -m benchmarks.bf16`.

The 1.4M-parameter language model (12 layers x 128) learns the human DNA of the package's demonstration three times,
on the same windows in the same order: in float32, in bfloat16 from the same initial weights, and in float32 from other
initial weights. The last run is the yardstick: a precision that moves the loss less than a seed does changes nothing.
"""

from __future__ import annotations

import argparse
import gzip
import math
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common import RESULTS, print_table, save_results
from benchmarks.train_step import VOCABULARY, LanguageModel

RUNS = {"float32": (0, False), "bfloat16": (0, True), "float32, another seed": (1, False)}
WINDOW, STEPS, WARMUP, RATE = 4096, 250, 20, 4e-3
LETTERS = {letter: 7 + index for index, letter in enumerate(b"ACGT")}
DATA = files("genomamba").joinpath("demo/data/human.fa.gz")


def windows() -> torch.Tensor:
    """(windows, 4096) ids of the demonstration's human sequence, in an order of their own, as often as is needed."""
    text = gzip.decompress(DATA.read_bytes()).upper()
    bases = b"".join(line for line in text.split(b"\n") if not line.startswith(b">"))
    ids = torch.tensor([LETTERS.get(base, 11) for base in bases[: len(bases) // WINDOW * WINDOW]]).view(-1, WINDOW)
    generator = torch.Generator().manual_seed(0)
    return torch.cat([ids[torch.randperm(len(ids), generator=generator)] for _ in range(-(-STEPS // len(ids)))])


def curve(data: torch.Tensor, seed: int, *, bf16: bool) -> list[float]:
    """Bits per base of each step's window, before the step."""
    torch.manual_seed(seed)
    model = LanguageModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    bits = []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARMUP)
        ids = data[step : step + 1]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = model(ids)
        loss = F.cross_entropy(logits[:, :-1].reshape(-1, VOCABULARY).float(), ids[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        bits.append(loss.item() / math.log(2))
    return bits


def draw(curves: dict[str, list[float]]) -> None:
    """The curves, to `results/bf16.png`."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, bits), style in zip(curves.items(), ("-", "--", ":"), strict=True):
        axes.plot(bits, style, label=name, linewidth=1.3)
    axes.set(xlabel="step", ylabel="bits per base", ylim=(1.7, 2.3), title="The same windows, one each step")
    axes.legend()
    figure.savefig(RESULTS / "bf16.png", dpi=120)
    plt.close(figure)


def main() -> None:
    """Trains in both precisions, prints the table, and writes it with the picture."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data, curves = windows(), {}
    for name, (seed, bf16) in RUNS.items():
        curves[name] = curve(data, seed, bf16=bf16)
        print(f"{name}: last {curves[name][-1]:.4f} bits per base", flush=True)
    truth, late = torch.tensor(curves["float32"]), slice(STEPS // 2, STEPS)
    rows = []
    for name, bits in curves.items():
        apart = torch.tensor(bits) - truth
        rows.append(
            {
                "run": name,
                "mean bits, second half": f"{float(torch.tensor(bits)[late].mean()):.4f}",
                "mean difference, second half": round(float(apart[late].mean()), 5),
                "mean size of the difference": round(float(apart[late].abs().mean()), 5),
                "largest difference": round(float(apart.abs().max()), 4),
            }
        )
    print_table("The loss in bfloat16 beside float32", rows)
    save_results(
        "bf16",
        {"runs": rows, "bits": {name: [round(b, 5) for b in bits] for name, bits in curves.items()}},
        data=[Path(str(DATA))],
        seeds=sorted({seed for seed, _ in RUNS.values()}),
    )
    draw(curves)


if __name__ == "__main__":
    main()
