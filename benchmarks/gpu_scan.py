"""The selective scan on a GPU: ours with Triton beside mamba-ssm's CUDA, where it is installed, on the same work.

    python -m benchmarks.gpu_scan [--rounds N] [--dtype bf16|fp32]

Forward, and forward + backward, at several batch sizes and lengths. Without a GPU it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from mamba_kernels import selective_scan
from torch import Tensor

from benchmarks.common import print_table, save_results

CHANNELS, STATES = 1536, 16
SHAPES = ((64, 2048), (8, 2048), (8, 16384), (1, 65536), (1, 2**20))
"""Batch and length, from many programs to the one sequence that has to be cut into chunks."""

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def inputs(batch: int, length: int, dtype: torch.dtype) -> list[Tensor]:
    """x, delta, A, B, C, D, z and delta_bias as in a freshly initialised block."""
    device = torch.device("cuda")
    rows = (batch, length, CHANNELS)
    A = -torch.arange(1.0, STATES + 1, device=device).repeat(CHANNELS, 1)
    B, C = (torch.randn(batch, length, STATES, device=device, dtype=dtype) for _ in "BC")
    x, delta, z = (torch.randn(rows, device=device, dtype=dtype) for _ in range(3))
    skip, bias = torch.ones(CHANNELS, device=device), torch.full((CHANNELS,), -4.0, device=device)
    return [t.requires_grad_() for t in (x, delta, A, B, C, skip, z, bias)]


def ours(leaves: list[Tensor]) -> Tensor:
    return selective_scan(*leaves, delta_softplus=True, backend="triton")


def theirs(leaves: list[Tensor]) -> Tensor:
    """The same through mamba-ssm, which takes (B, D, L): transposing is part of what it costs in this layout."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]

    x, delta, A, B, C, skip, z, bias = leaves
    x, delta, B, C, z = (t.transpose(1, 2).contiguous() for t in (x, delta, B, C, z))
    return selective_scan_fn(x, delta, A, B, C, skip, z, bias, delta_softplus=True).transpose(1, 2)


def milliseconds(run: Callable[[], object], rounds: int) -> float:
    """Median time on the device, after three warming runs."""
    times = []
    for i in range(rounds + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if i >= 3:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def scans() -> dict[str, Callable[[list[Tensor]], Tensor]]:
    """What is measured: mamba-ssm only where it can be imported."""
    try:
        import mamba_ssm.ops.selective_scan_interface  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        print(f"mamba-ssm is not measured: {error}")
        return {"ours": ours}
    del mamba_ssm
    return {"ours": ours, "mamba-ssm": theirs}


def measure(scan: Callable[[list[Tensor]], Tensor], leaves: list[Tensor], rounds: int) -> tuple[float, float]:
    """Milliseconds of forward, and of forward and backward."""

    def forward() -> None:
        with torch.no_grad():
            scan(leaves)

    def both() -> None:
        torch.autograd.grad(scan(leaves), leaves, torch.ones_like(leaves[0]))

    return milliseconds(forward, rounds), milliseconds(both, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu_scan needs a GPU, and torch finds none here: nothing was measured.")
        return 0
    rows = []
    for batch, length in SHAPES:
        leaves = inputs(batch, length, DTYPES[options.dtype])
        for name, scan in scans().items():
            forward, both = measure(scan, leaves, options.rounds)
            work = batch * length * CHANNELS / 1e6
            rows.append(
                {
                    "batch": batch,
                    "length": length,
                    "case": name,
                    "forward ms": forward,
                    "forward + backward ms": both,
                    "forward Gelem/s": work / forward,
                    "both Gelem/s": work / both,
                }
            )
    device = torch.cuda.get_device_name()
    print_table(f"Selective scan on {device}, D={CHANNELS} N={STATES}, {options.dtype}", rows)
    save_results("gpu_scan", {"device": device, "dtype": options.dtype, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
