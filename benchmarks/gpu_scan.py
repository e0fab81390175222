"""The scans of Mamba and Mamba-2 on a GPU: ours with Triton beside mamba-ssm's, where installed, on the same work.

    python -m benchmarks.gpu_scan [--rounds N] [--dtype bf16|fp32]

Forward, and forward + backward, at several batch sizes and lengths. Without a GPU it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common import print_table, save_results
from mamba_kernels import selective_scan, ssd

CHANNELS, STATES = 1536, 16
SHAPES = ((64, 2048), (8, 2048), (8, 16384), (1, 65536), (1, 2**20))
"""Batch and length, from many programs to the one sequence that has to be cut into chunks."""

WIDTH, WIDE_STATES = 64, 128
"""Channels a head and states of Mamba-2, with one group."""

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


def ssd_inputs(batch: int, length: int, dtype: torch.dtype) -> list[Tensor]:
    """The same of Mamba-2, in heads."""
    device, heads = torch.device("cuda"), CHANNELS // WIDTH
    rows = (batch, length, heads, WIDTH)
    x, z = (torch.randn(rows, device=device, dtype=dtype) for _ in range(2))
    delta = torch.randn(rows[:3], device=device, dtype=dtype)
    B, C = (torch.randn(batch, length, 1, WIDE_STATES, device=device, dtype=dtype) for _ in "BC")
    A, skip = -torch.arange(1.0, heads + 1, device=device), torch.ones(heads, device=device)
    return [t.requires_grad_() for t in (x, delta, A, B, C, skip, z, torch.full((heads,), -4.0, device=device))]


def ours(leaves: list[Tensor]) -> Tensor:
    """Our selective scan in Triton, with softplus, skip, gate and bias fused."""
    return selective_scan(*leaves, delta_softplus=True, backend="triton")


def theirs(leaves: list[Tensor]) -> Tensor:
    """The same through mamba-ssm, which takes (B, D, L): transposing is part of what it costs in this layout."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]

    x, delta, A, B, C, skip, z, bias = leaves
    x, delta, B, C, z = (t.transpose(1, 2).contiguous() for t in (x, delta, B, C, z))
    return selective_scan_fn(x, delta, A, B, C, skip, z, bias, delta_softplus=True).transpose(1, 2)


def ssd_ours(leaves: list[Tensor]) -> Tensor:
    """Our Mamba-2 scan in Triton."""
    return ssd(*leaves, delta_softplus=True, backend="triton")


def ssd_torch(leaves: list[Tensor]) -> Tensor:
    """Our Mamba-2 scan in plain torch, whose matrix products are the vendor's."""
    return ssd(*leaves, delta_softplus=True, backend="torch")


def ssd_theirs(leaves: list[Tensor]) -> Tensor:
    """The Mamba-2 scan of mamba-ssm, in chunks of 256."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # pyright: ignore[reportMissingImports]

    x, delta, A, B, C, skip, z, bias = leaves
    return mamba_chunk_scan_combined(x, delta, A, B, C, 256, D=skip, z=z, dt_bias=bias, dt_softplus=True)


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


def scans() -> dict[str, tuple[Callable[..., list[Tensor]], dict[str, Callable[[list[Tensor]], Tensor]]]]:
    """What is measured, and on what: mamba-ssm only where it can be imported."""
    scan, dual = {"ours": ours}, {"ours": ssd_ours, "ours, torch": ssd_torch}
    try:
        import mamba_ssm.ops.selective_scan_interface  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        print(f"mamba-ssm is not measured: {error}")
    else:
        del mamba_ssm
        scan, dual = scan | {"mamba-ssm": theirs}, dual | {"mamba-ssm": ssd_theirs}
    return {"selective_scan": (inputs, scan), "ssd": (ssd_inputs, dual)}


def measure(scan: Callable[[list[Tensor]], Tensor], leaves: list[Tensor], rounds: int) -> tuple[float, float]:
    """Milliseconds of forward, and of forward and backward."""

    def forward() -> None:
        with torch.no_grad():
            scan(leaves)

    def both() -> None:
        torch.autograd.grad(scan(leaves), leaves, torch.ones_like(leaves[0]))

    return milliseconds(forward, rounds), milliseconds(both, rounds)


def row_of(operator: str, batch: int, length: int, name: str, forward: float, both: float) -> dict[str, object]:
    """One line of the table, from milliseconds."""
    work = batch * length * CHANNELS / 1e6
    return {
        "operator": operator,
        "batch": batch,
        "length": length,
        "case": name,
        "forward ms": forward,
        "forward + backward ms": both,
        "forward Gelem/s": work / forward,
        "both Gelem/s": work / both,
    }


def main() -> int:
    """Measures both scans beside mamba-ssm where it is installed; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu_scan needs a GPU, and torch finds none here: nothing was measured.")
        return 0
    rows = []
    for operator, (make, cases) in scans().items():
        for batch, length in SHAPES:
            leaves = make(batch, length, DTYPES[options.dtype])
            for name, scan in cases.items():
                rows.append(row_of(operator, batch, length, name, *measure(scan, leaves, options.rounds)))
    device = torch.cuda.get_device_name()
    print_table(f"Scans on {device}, D={CHANNELS} N={STATES} and P={WIDTH} N={WIDE_STATES}, {options.dtype}", rows)
    save_results("gpu_scan", {"device": device, "dtype": options.dtype, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
