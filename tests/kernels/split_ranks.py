"""Ranks that share sequences, as processes on gloo: python split_ranks.py RANK SIZE FOLDER; silent if all agree.

Each rank computes the whole on its own, too, and compares its part: outputs, and after a sum over ranks the gradients.
"""

from __future__ import annotations

import sys
import weakref
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mamba_kernels import causal_conv1d, selective_scan
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_kernels.parallel import split_causal_conv1d, split_selective_scan

KINDS = {
    "causal": {"layers": ["mamba", "mamba"]},
    "in chunks": {"layers": ["mamba", "mamba"], "chunk_size": 4},
    "add": {"layers": ["mamba", "mamba"], "bidirectional": "add", "chunk_size": 5},
    "add untied": {"layers": ["mamba"], "bidirectional": "add", "tie_directions": False, "proj_bias": True},
    "concat": {"layers": ["mamba", "mamba"], "bidirectional": "concat", "chunk_size": 3, "d_conv": 3},
    "mamba2": {"layers": ["mamba2", "mamba"], "bidirectional": "add", "chunk_size": 6},
    "equivariant": {"layers": ["mamba"], "reverse_complement": "equivariant", "bidirectional": "add"},
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def close(found: torch.Tensor, expected: torch.Tensor, what: str, tolerance: float) -> None:
    found, expected = found.detach(), expected.detach()
    scale = max(1.0, float(expected.abs().max()))
    difference = float((found - expected).abs().max()) if found.numel() else 0.0
    if not difference <= tolerance * scale:
        raise SystemExit(f"rank {dist.get_rank()}: {what} differs by {difference:.3g} of {scale:.3g}")


def uneven(length: int, size: int) -> list[int]:
    """The ranks' lengths."""
    first = [length // size + (1 if rank % 2 else -1) for rank in range(size - 1)]
    return [*first, length - sum(first)]


def summed(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    for gradient in gradients:
        dist.all_reduce(gradient)
    return gradients


def compare_backbone(name: str, dtype: torch.dtype, length: int, with_reset: bool) -> list[torch.Tensor]:
    torch.manual_seed(length)
    rank, size = dist.get_rank(), dist.get_world_size()
    backbone = Backbone(BackboneConfig(**{"d_model": 12, "d_state": 4, "chunk_size": None, **KINDS[name]})).to(dtype)
    x, weight = torch.randn(2, length, 12, dtype=dtype), torch.randn(2, length, 12, dtype=dtype)
    reset = torch.rand(2, length) < 0.1 if with_reset else None
    lengths = uneven(length, size)
    here = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
    whole = x.clone().requires_grad_()
    expected, _ = backbone(whole, reset=reset)
    inputs = [whole, *backbone.parameters()]
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    backbone.split_over(dist.group.WORLD)
    part = x[:, here].clone().requires_grad_()
    found, state = backbone(part, reset=None if reset is None else reset[:, here])
    if state is not None:
        raise SystemExit("a split sequence gave a state")
    inputs = [part, *backbone.parameters()]
    at_x, *others = torch.autograd.grad((found * weight[:, here]).sum(), inputs)
    what = f"{name}, {dtype}, L = {length}, reset = {with_reset}"
    close(found, expected[:, here], f"{what}: output", TOLERANCE[dtype])
    close(at_x, expected_gradients[0][:, here], f"{what}: gradient of x", 10 * TOLERANCE[dtype])
    for (label, _), one, two in zip(backbone.named_parameters(), summed(others), expected_gradients[1:], strict=True):
        close(one, two, f"{what}: gradient of {label}", 10 * TOLERANCE[dtype])
    return [found.detach(), at_x, *others]


def compare_operators(reverse: bool) -> None:
    torch.manual_seed(3)
    rank, size, length = dist.get_rank(), dist.get_world_size(), 29
    lengths = uneven(length, size)
    here = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
    reset = torch.rand(2, length) < 0.08

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64).requires_grad_()

    long = {name: leaf(2, length, width) for name, width in (("x", 6), ("delta", 6), ("B", 4), ("C", 4), ("z", 6))}
    short = {"A": (-leaf(6, 4).detach().exp()).requires_grad_(), "D": leaf(6), "delta_bias": leaf(6)}
    weight, taps, bias = torch.randn(2, length, 6, dtype=torch.float64), leaf(6, 4), leaf(6)
    cases = {
        "scan": (selective_scan, split_selective_scan, long, {**short, "delta_softplus": True}),
        "convolution": (causal_conv1d, split_causal_conv1d, {"x": long["x"]}, {"weight": taps, "bias": bias}),
    }
    for what, (whole, split, tensors, others) in cases.items():
        expected = whole(**tensors, **others, reset=reset, reverse=reverse)
        cut = {name: tensor[:, here] for name, tensor in tensors.items()}
        found = split(**cut, **others, reset=reset[:, here], reverse=reverse, group=dist.group.WORLD)
        inputs = [*tensors.values(), *(value for value in others.values() if isinstance(value, torch.Tensor))]
        wanted = torch.autograd.grad((expected * weight).sum(), inputs)
        got = torch.autograd.grad((found * weight[:, here]).sum(), inputs)
        close(found, expected[:, here], f"{what}, reverse = {reverse}", 1e-12)
        for one, two in zip(summed(list(got)), wanted, strict=True):
            close(one, two, f"{what}, reverse = {reverse}: a gradient", 1e-11)


def refuses() -> None:
    backbone = Backbone(BackboneConfig(d_model=12, layers=["mamba", "attention"], n_heads=1))
    with pytest.raises(ValueError, match=r"layers\[1\] is 'attention'"):
        backbone.split_over(dist.group.WORLD)
    backbone = Backbone(BackboneConfig(d_model=12, layers=["mamba"]))
    backbone.split_over(dist.group.WORLD)
    with pytest.raises(ValueError, match="each rank needs at least 3"):
        backbone(torch.randn(1, 2 if dist.get_rank() else 9, 12))
    backbone.split_over(None)
    assert backbone(torch.randn(1, 2, 12))[1] is not None


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    refuses()
    for reverse in (False, True):
        compare_operators(reverse)
    for name in KINDS:
        for length, with_reset in ((23, False), (31, True)):
            compare_backbone(name, torch.float64, length, with_reset)
    compare_backbone("in chunks", torch.float32, 301, True)
    first, second = (compare_backbone("add", torch.float32, 300, True) for _ in range(2))
    if not all(torch.equal(one, two) for one, two in zip(first, second, strict=True)):
        raise SystemExit("two runs gave different bits")
    group = weakref.ref(dist.group.WORLD)
    dist.destroy_process_group()
    if group() is not None:
        raise SystemExit("the group outlives its destruction: its threads may abort the process as it ends")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
