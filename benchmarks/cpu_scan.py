"""The selective scan on the CPU: ours, a C++ loop, mambapy's parallel scan and a torch loop, on one work in one run.

    python -m benchmarks.cpu_scan [--rounds N] [--length L]

Batch 1, L = 8192, D = 256, N = 16, gate and skip, float32, two threads; the cases alternate, and medians
with quartiles are reported. Everything is measured twice: with the allocator as our kernels leave it in any program,
which reuses blocks of up to 32 MiB, and with the setting of a training run, which keeps all memory that is freed. The
second is a help to the peers, whose tensors are larger.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import yardstick
from benchmarks.common import alternate, format_number, print_table, save_results
from mamba_kernels import selective_scan
from mamba_kernels.cpu.allocator import keep_freed_memory

LENGTH, CHANNELS, STATES, THREADS, SEED = 8192, 256, 16, 2, 0
Scan = Callable[..., Tensor]


def ours(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor) -> Tensor:
    """Our scan in Numba."""
    return selective_scan(x, delta, A, B, C, D, z, backend="numba")


def mambapy_scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor) -> Tensor:
    """What `mambapy.mamba.MambaBlock` does with `pscan`, and its gate."""
    from mambapy.pscan import pscan  # pyright: ignore[reportMissingImports]  (an optional peer)

    decay = torch.exp(delta.unsqueeze(-1) * A)
    update = delta.unsqueeze(-1) * B.unsqueeze(2) * x.unsqueeze(-1)
    y = (pscan(decay, update) @ C.unsqueeze(-1)).squeeze(3)
    return (y + D * x) * F.silu(z)


def torch_loop(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor) -> Tensor:
    """One step after another, as transformers and mambapy do without their parallel scans."""
    decay = torch.exp(delta.unsqueeze(-1) * A)
    update = delta.unsqueeze(-1) * B.unsqueeze(2) * x.unsqueeze(-1)
    h = torch.zeros_like(update[:, 0])
    outputs = []
    for decay_t, update_t, C_t in zip(decay.unbind(1), update.unbind(1), C.unbind(1), strict=True):
        h = decay_t * h + update_t
        outputs.append((h @ C_t.unsqueeze(-1)).squeeze(-1))
    return (torch.stack(outputs, dim=1) + D * x) * F.silu(z)


def inputs(length: int, *, gradients: bool) -> tuple[Tensor, ...]:
    """The same numbers for every case: dt and A as in a freshly initialised block."""
    generator = torch.Generator().manual_seed(SEED)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rows = (1, length, CHANNELS)
    delta = torch.exp(torch.rand(*rows, generator=generator) * 4.6 - 6.9)
    A = -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1)
    parts = (normal(*rows), delta, A, normal(1, length, STATES), normal(1, length, STATES), normal(CHANNELS))
    return tuple(tensor.requires_grad_(gradients) for tensor in (*parts, normal(*rows)))


def forward(scan: Scan, leaves: tuple[Tensor, ...]) -> Tensor:
    """The scan's output, without a graph."""
    with torch.no_grad():
        return scan(*leaves)


def both(scan: Scan, leaves: tuple[Tensor, ...], weight: Tensor) -> None:
    """The scan and the gradients of all of its inputs, for a gradient `weight` of its output."""
    torch.autograd.grad(scan(*leaves), leaves, weight)


def agreement(scans: dict[str, Scan], leaves: tuple[Tensor, ...]) -> dict[str, float]:
    """Greatest difference from ours, relative to the greatest output."""
    mine = forward(ours, leaves)
    return {name: float((forward(scan, leaves) - mine).abs().max() / mine.abs().max()) for name, scan in scans.items()}


def measure(scans: dict[str, Scan], length: int, rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Times each scan, forward and with gradients.

    Returns:
        The table's rows, and the seconds of each round by work and case.
    """
    plain, leaves = inputs(length, gradients=False), inputs(length, gradients=True)
    weight = torch.randn(1, length, CHANNELS, generator=torch.Generator().manual_seed(SEED))
    differences = agreement(scans, plain)
    forwards = {name: lambda scan=scan: forward(scan, plain) for name, scan in scans.items()}
    trained = {name: lambda scan=scan: both(scan, leaves, weight) for name, scan in scans.items()}
    timings = {"forward": alternate(forwards, rounds=rounds)}
    timings["forward + backward"] = alternate(trained, rounds=rounds)
    rows = [
        {"work": work, "case": name, **timing(seconds[name], seconds["ours"]), "difference": differences[name]}
        for work, seconds in timings.items()
        for name in seconds
    ]
    return rows, timings


def timing(seconds: list[float], ours: list[float]) -> dict[str, Any]:
    """The median of a case's rounds in milliseconds, its quartiles, and how many times our median it is."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "median ms": median * 1e3,
        "quartiles ms": f"{format_number(low * 1e3)} to {format_number(high * 1e3)}",
        "best ms": min(seconds) * 1e3,
        "ours is faster by": median / statistics.median(ours),
    }


def main() -> None:
    """Measures every scan with both settings of the allocator, prints the tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--length", type=int, default=LENGTH)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    scans: dict[str, Scan] = {"ours": ours, "mambapy pscan": mambapy_scan, "torch loop": torch_loop}
    if yardstick.available():
        scans["C++ loop"] = yardstick.scan
    work = f"B=1 L={options.length} D={CHANNELS} N={STATES}, gate + skip, float32"
    rows, seconds = measure(scans, options.length, options.rounds)
    print_table(f"Selective scan, {work}", rows)
    results = {"rows": rows, "seconds": seconds}
    if keep_freed_memory():
        kept, seconds = measure(scans, options.length, options.rounds)
        print_table(f"The same, freed memory kept, {work}", kept)
        results |= {"kept": kept, "kept_seconds": seconds}
    shape = {"batch": 1, "length": options.length, "channels": CHANNELS, "states": STATES}
    save_results("cpu_scan", {"shape": shape, "rounds": options.rounds, **results}, seeds=[SEED])


if __name__ == "__main__":
    main()
