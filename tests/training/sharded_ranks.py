"""DDP and FSDP around a backbone, on gloo: python sharded_ranks.py RANK SIZE FOLDER; silent if all is as on one rank.

Three optimiser steps on rows that the ranks share out, with the activations kept and in chunks; and with every row
split over pairs of ranks besides.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from mamba_kernels.blocks import Backbone, BackboneConfig

LENGTH, WIDTH, ROWS, STEPS = 26, 12, 4, 3


def make(chunk_size: int | None) -> Backbone:
    torch.manual_seed(0)
    config = BackboneConfig(d_model=WIDTH, layers=["mamba", "mamba"], d_state=4, chunk_size=chunk_size)
    return Backbone(config).double()


def train(model: Any, x: torch.Tensor, weight: torch.Tensor, average: float) -> list[float]:
    """The losses of this process's share, `average` making the ranks' mean gradient that of one process."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (model(x)[0] * weight).square().mean() * average
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def shared(losses: list[float]) -> list[float]:
    total = torch.tensor(losses, dtype=torch.float64)
    dist.all_reduce(total)
    return (total / dist.get_world_size()).tolist()


def compare(how: str, chunk_size: int | None, parts: int) -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(ROWS, LENGTH, WIDTH, dtype=torch.float64, generator=generator) for _ in "xw")
    expected = train(make(chunk_size), x, weight, 1.0)
    model: Any = make(chunk_size)
    mesh = init_device_mesh("cpu", (size // parts, parts), mesh_dim_names=("data", "context"))
    replicas, part = size // parts, LENGTH // parts
    rows = slice(rank // parts * ROWS // replicas, (rank // parts + 1) * ROWS // replicas)
    tokens = slice(rank % parts * part, (rank % parts + 1) * part)
    if parts > 1:
        model.split_over(mesh.get_group("context"))
    if how == "ddp":
        model = DistributedDataParallel(model)
    else:
        flat = init_device_mesh("cpu", (size,))
        for block in model.blocks:
            fully_shard(block, mesh=flat)
        fully_shard(model, mesh=flat)
    found = shared(train(model, x[rows, tokens], weight[rows, tokens], 1.0))
    worst = max(abs(one - two) for one, two in zip(found, expected, strict=True))
    if worst > 1e-10:
        raise SystemExit(f"{how}, chunks of {chunk_size}, {parts} parts: {found} instead of {expected}")


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    for how in ("ddp", "fsdp"):
        for chunk_size in (None, 7):
            for parts in (1, 2):
                compare(how, chunk_size, parts)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
