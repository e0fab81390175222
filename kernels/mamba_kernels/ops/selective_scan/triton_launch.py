"""Launches the Triton kernels of the scan: tiles, schedules, buffers, and the sums of the blocks' shares.

Two schedules. Sequential: a program walks its block of channels from end to end, its states in registers. By chunks,
for long sequences with few channels: local scans of all chunks at once, a carry over the chunks, then all chunks
again, each from its true beginning. README.md derives both.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.gpu.triton_runtime import accumulator, cdiv, lanes, launch, rows
from mamba_kernels.ops.selective_scan.triton_backward import scan_backward
from mamba_kernels.ops.selective_scan.triton_chunks import scan_carry, scan_chunk
from mamba_kernels.ops.selective_scan.triton_forward import scan_forward

SPACING = 240
"""Steps between the states that a forward pass keeps; every segment's length divides it, and it every chunk's."""

_FLAT = torch.contiguous_format

BUSY = 1024
"""Programs of one warp that keep a large GPU busy: about two for each of an H100's 528 schedulers."""


class Inputs(NamedTuple):
    """The scan's arguments without its states; see `selective_scan`."""

    x: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    reset: Tensor | None
    delta_softplus: bool
    reverse: bool


@dataclass(frozen=True)
class Tile:
    """How states lie in a program: `ni` x `bi` in a thread, `bd` x `no` across lanes; `segment` steps are unrolled."""

    segment: int
    ni: int
    bi: int
    bd: int
    no: int
    warps: int = 1

    @property
    def channels(self) -> int:
        """Channels of a program."""
        return self.bi * self.bd

    def options(self, states: int) -> dict[str, Any]:
        """Return the kernels' constants."""
        tile = (self.ni, self.bi, self.bd, self.no, states != self.ni * self.no)
        return {"SEGMENT": self.segment, "TILE": tile, "num_warps": self.warps}


def forward_tile(states: int, width: int, lanes: int = 32) -> Tile:
    """Choose a forward tile: all states of a channel in one thread up to N = 16, and two channels where there are two.

    More states lie across lanes, with one channel in a thread and fewer steps unrolled, or registers would not do.

    Args:
        states: N.
        width: Channels in a group, D / G.
        lanes: Lanes that run in step.
    """
    padded = 1 << (states - 1).bit_length()
    across = max(1, padded // 16)
    if across > 1:
        return Tile(3, padded // across, 1, max(1, lanes // across), across)
    return Tile(8, padded, 2 if width > lanes else 1, lanes, 1)


def backward_tile(states: int, lanes: int = 32) -> Tile:
    """Choose a backward tile: states lie across four lanes or more, which makes the sums for dB and dC short.

    More than 16 states leave registers for two channels in a thread, more than 64 for one.
    """
    padded = 1 << (states - 1).bit_length()
    across = min(padded, max(4, padded // 4))
    deep = padded // across
    inside = 4 if padded <= 16 else 2 if padded <= 64 else 1
    return Tile(3, deep, inside, max(1, lanes // across), across)


def chunk_length(programs: int, length: int) -> int:
    """Return the steps of a chunk: the whole length unless there are too few programs to keep a GPU busy.

    Three phases cost about 1.8 times one pass, so fewer than three chunks are not worth their while.

    Args:
        programs: Programs of the sequential schedule: batch times blocks of channels.
        length: L.
    """
    chunks = min(BUSY // programs, length // SPACING)
    return length if chunks < 3 else cdiv(cdiv(length, chunks), SPACING) * SPACING


@dataclass(frozen=True)
class Plan:
    """What is derived from the inputs before a launch; states are (B, N, D) inside."""

    inputs: Inputs
    tensors: tuple[Tensor | None, ...]
    sizes: tuple[int, int, int, int]
    dtype: torch.dtype

    @classmethod
    def of(cls, inputs: Inputs, *states: Tensor | None) -> "Plan":
        """Bring tensors into the kernels' layout: neighbouring channels, groups in B and C, A as (N, D)."""
        x, delta, A, B, C, D, z, bias, reset = inputs[:9]
        B, C = (p if p.dim() == 4 else p.unsqueeze(2) for p in (B, C))
        flat = [None if t is None else t.contiguous() for t in (D, bias)]
        marks = None if reset is None else reset.contiguous().view(torch.uint8)
        gate = None if z is None else rows(z)
        tensors = (rows(x), rows(delta), A.t().contiguous(), rows(B), rows(C), flat[0], gate, flat[1], marks)
        sizes = (x.shape[1], x.shape[2], A.shape[1], B.shape[2])
        return cls(inputs, tensors, sizes, compute_dtype(*inputs[:8], *states))

    @property
    def batch(self) -> int:
        """Sequences in the batch."""
        return self.inputs.x.shape[0]

    def strides(self, *names: str) -> tuple[int, ...]:
        """Return the strides of batch and row, of B and C also of the group; zeros for what was left out."""
        found: list[int] = []
        for name in names:
            tensor, wanted = self.tensors[Inputs._fields.index(name)], 3 if name in "BC" else 2
            found += [0] * wanted if tensor is None else tensor.stride()[:wanted]
        return tuple(found)

    def blocks(self, tile: Tile) -> int:
        """Return the blocks of channels in a group."""
        return cdiv(self.sizes[1] // self.sizes[3], tile.channels)

    def grid(self, tile: Tile, chunk: int) -> tuple[int, int]:
        """Return programs over blocks, groups and batch, and over chunks."""
        return self.batch * self.sizes[3] * self.blocks(tile), cdiv(self.sizes[0], chunk)

    def options(self, tile: Tile) -> dict[str, Any]:
        """Return the constants of a launch."""
        flags = {"SOFTPLUS": self.inputs.delta_softplus, "REVERSE": self.inputs.reverse}
        return flags | tile.options(self.sizes[2]) | {"ACC": accumulator(self.dtype)}

    def empty(self, *shape: int) -> Tensor:
        """Return memory in the dtype that is computed in."""
        return torch.empty(shape, dtype=self.dtype, device=self.inputs.x.device)


def chunk_tile(states: int, width: int, lanes: int = 32) -> Tile:
    """Choose the tile of the scans of chunks from zero; see `forward_tile`."""
    tile = forward_tile(states, width, lanes)
    return replace(tile, segment=min(4, tile.segment), bi=1)


def _beginnings(plan: Plan, chunk: int, first: Tensor | None, grad: Tensor | None) -> Tensor | None:
    """Return what each chunk begins with, (B, chunks, N, D): states, or with `grad` gradients from the last on."""
    L, D, N, G = plan.sizes
    if chunk >= L:
        return first
    tile = chunk_tile(N, D // G, lanes(plan.inputs.x.device))
    programs, chunks = plan.grid(tile, chunk)
    end, decay = plan.empty(plan.batch, chunks, N, D), plan.empty(plan.batch, chunks, N, D)
    x, delta, A, B, C, _, _, bias, reset = plan.tensors
    if grad is None:
        inputs, strides = (x, delta, A, B, bias, reset), plan.strides("x", "delta", "B")
    else:
        inputs, strides = (grad, delta, A, C, bias, reset), (*grad.stride()[:2], *plan.strides("delta", "C"))
    adjoint = grad is not None
    options = plan.options(tile) | {"ADJOINT": adjoint}
    launch(scan_chunk, (programs, chunks), (inputs, (end, decay), plan.sizes, strides, chunk), options)
    carry = {"ADJOINT": adjoint, "BLOCK": 128, "ACC": accumulator(plan.dtype), "num_warps": 4}
    launch(scan_carry, (cdiv(N * D, 128), plan.batch), (end, decay, first, chunks, N * D), carry)
    return end


def _pass(
    plan: Plan,
    tile: Tile,
    chunk: int,
    entry: Tensor | None,
    outputs: tuple[Tensor | None, ...],
    spacing: int,
    grad_y: Tensor | None = None,
) -> None:
    """Run the forward kernel; outputs are y, checkpoints, final state and dz, those that are wanted."""
    away = (0, 0) if grad_y is None else grad_y.stride()[:2]
    strides = (*plan.strides("x", "delta", "B", "C", "z"), *away)
    options = plan.options(tile) | {"SPACING": spacing}
    arguments = (plan.tensors, entry, grad_y, outputs, plan.sizes, strides, chunk)
    launch(scan_forward, plan.grid(tile, chunk), arguments, options)


def scan_forward_saving(
    inputs: Inputs, initial_state: Tensor | None, save: bool, chunk: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan; return y, the final state (B, D, N), and the states every SPACING steps (B, segments, N, D) if `save`.

    Args:
        inputs: The arguments, not empty.
        initial_state: (B, D, N) or None.
        save: Whether a backward pass will follow.
        chunk: Steps of a chunk, a multiple of SPACING; chosen by shape if None.
    """
    plan = Plan.of(inputs, initial_state)
    L, D, N, groups = plan.sizes
    tile = forward_tile(N, D // groups, lanes(inputs.x.device))
    chunk = chunk_length(plan.grid(tile, L)[0], L) if chunk is None else chunk
    first = None if initial_state is None else initial_state.transpose(1, 2).contiguous()
    y = torch.empty(inputs.x.shape, dtype=inputs.x.dtype, device=inputs.x.device)
    final = plan.empty(plan.batch, N, D)
    checkpoints = plan.empty(plan.batch, cdiv(L, SPACING), N, D) if save else plan.empty(0)
    entry = _beginnings(plan, chunk, first, None)
    _pass(plan, tile, chunk, entry, (y, checkpoints if save else None, final, None), SPACING)
    return y, final.transpose(1, 2).contiguous(), checkpoints


def scan_backward_sums(
    grad_y: Tensor, grad_final: Tensor | None, inputs: Inputs, checkpoints: Tensor, chunk: int | None = None
) -> list[Tensor | None]:
    """Return the gradients of x, delta, A, B, C, D, z, delta_bias and of the initial state; arguments as above."""
    plan = Plan.of(inputs, checkpoints)
    L, D, N, groups = plan.sizes
    tile = backward_tile(N, lanes(inputs.x.device))
    chunk = chunk_length(plan.grid(tile, L)[0], L) if chunk is None else chunk
    first = None if grad_final is None else grad_final.transpose(1, 2).to(plan.dtype).contiguous()
    grad, dense, dz = _refine(plan, checkpoints, rows(grad_y), tile.segment)
    entry = _beginnings(plan, chunk, first, grad)
    grid, blocks = plan.grid(tile, chunk), plan.blocks(tile)
    dx, ddelta = torch.empty_like(inputs.x, memory_format=_FLAT), torch.empty_like(inputs.delta, memory_format=_FLAT)
    shares = plan.empty(plan.batch, grid[1], N, D)
    dB, dC = (plan.empty(plan.batch, groups, blocks, L, N) for _ in "BC")
    dD, dbias = (plan.empty(plan.batch, grid[1], D) for _ in range(2))
    state = plan.empty(plan.batch, N, D)
    outputs = (dx, ddelta, dB, dC, shares, dD, dbias, state)
    strides = (*plan.strides("x", "delta", "B", "C"), *grad.stride()[:2])
    without_gate = (*plan.tensors[:6], *plan.tensors[7:])
    arguments = (without_gate, (grad, dense, entry), outputs, plan.sizes, strides, chunk)
    launch(scan_backward, grid, arguments, plan.options(tile))
    dA = shares.sum((0, 1)).t().to(inputs.A.dtype).contiguous()
    dB, dC = (s.sum(2).transpose(1, 2).reshape(p.shape).to(p.dtype) for s, p in ((dB, inputs.B), (dC, inputs.C)))
    dD, dbias = (
        None if p is None else s.sum((0, 1)).to(p.dtype) for s, p in ((dD, inputs.D), (dbias, inputs.delta_bias))
    )
    return [dx, ddelta, dA, dB, dC, dD, dz, dbias, state.transpose(1, 2).contiguous()]


def _refine(plan: Plan, checkpoints: Tensor, grad_y: Tensor, segment: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run forward again from the checkpoints, all stretches between them at the same time.

    Returns:
        The gradient of what is gated (`grad_y` itself without a gate), the states before every segment, and dz.
    """
    L, D, N, groups = plan.sizes
    z = plan.inputs.z
    tile = replace(forward_tile(N, D // groups, lanes(grad_y.device)), segment=segment)
    dense = plan.empty(plan.batch, cdiv(L, segment), N, D)
    if z is None:
        _pass(plan, tile, SPACING, checkpoints, (None, dense, None, None), segment)
        return grad_y, dense, None
    grad, dz = plan.empty(*z.shape), torch.empty_like(z, memory_format=_FLAT)
    _pass(plan, tile, SPACING, checkpoints, (grad, dense, None, dz), segment, grad_y)
    return grad, dense, dz
