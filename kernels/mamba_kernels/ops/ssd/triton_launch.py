"""Launches the Triton kernels of SSD: sizes of chunks, tiles and blocks, buffers, and the sums of the blocks' shares.

README.md derives what runs here; `triton_forward` has the legend.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mamba_kernels.gpu.triton_runtime import accumulator, cdiv, launch, rows, tensor_type
from mamba_kernels.ops.ssd.triton_backward import (
    ssd_backward_inputs,
    ssd_backward_pairs,
    ssd_backward_projections,
    ssd_backward_steps,
)
from mamba_kernels.ops.ssd.triton_forward import ssd_carry, ssd_chunk_states, ssd_outputs, ssd_steps

LONGEST_CHUNK = 256
"""Positions of a chunk at most: its steps are read as one vector."""

BUSY = 512
"""Programs of four warps that keep a large GPU busy: about four for each of an H100's 132 multiprocessors."""

WARPS, STAGES = 4, 2
"""Warps of a program that multiplies matrices, and stages of its pipelined loops."""

WIDE = (9, 10)
"""Compute capabilities whose matrix units take 64 rows at once."""

HEADS, NUMBERS = 8, 512
"""Heads of a program of `ssd_steps`, numbers of a state of a program of `ssd_carry`."""


class Inputs(NamedTuple):
    """The operator's arguments without its states; see `ssd`. `dt` is final, in the dtype that is computed in."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    reset: Tensor | None
    reverse: bool
    chunk_size: int


def power_of_two(number: int, least: int, most: int) -> int:
    """Return the first power of two that is not below `number`, between two others."""
    return min(most, max(least, 1 << (number - 1).bit_length()))


def platform(device: torch.device) -> str:
    """Return "cuda" or "hip", or "cpu" where kernels are interpreted."""
    return "cpu" if device.type == "cpu" else "cuda" if torch.version.hip is None else "hip"


def precision(dtype: torch.dtype, platform: str) -> tuple[torch.dtype, str]:
    """Return the type of the operands of matrix products, and Triton's name of their precision.

    A GPU's matrix units take bfloat16 as it is; Triton's interpreter cannot. NVIDIA's take float32 in parts, of which
    three products are summed, and lose nothing; AMD's take it as it is. float16 is widened, since a state may leave its
    range.

    Args:
        dtype: The narrowest type that holds x, B and C.
        platform: "cuda", "hip" or "cpu".
    """
    if dtype == torch.bfloat16 and platform != "cpu":
        return torch.bfloat16, "ieee"
    if dtype == torch.float64 or platform != "cuda":
        return dtype if dtype == torch.float64 else torch.float32, "ieee"
    return torch.float32, "tf32x3" if dtype == torch.float32 else "tf32"


def longest_tile(device: torch.device) -> int:
    """Return the positions of a tile: 64 where a GPU's matrix units or registers are made for it, 32 on other GPUs."""
    wide = platform(device) != "cuda" or torch.cuda.get_device_capability(device)[0] in WIDE
    return 64 if wide else 32


def shape_of(
    chunk_size: int, length: int, width: int, states: int, operands: torch.dtype, tile: int
) -> tuple[int, int, int, int]:
    """Choose the positions of a chunk and of a tile, and the channels and states of a block; all are powers of two.

    Args:
        chunk_size: What was asked for; rounded up.
        length: L.
        width: P.
        states: N.
        operands: The type of the operands of matrix products: the wider, the smaller are the tiles.
        tile: Positions of a tile at most; see `longest_tile`.
    """
    most = {torch.float64: 16, torch.float32: 32}.get(operands, 64)
    chunk = power_of_two(min(chunk_size, length), 16, LONGEST_CHUNK)
    blocks = power_of_two(width, 16, most), power_of_two(states, 16, most)
    return chunk, min(chunk, most, tile), *blocks


def stages_of(tile: int, full: bool) -> int:
    """Return the stages of a kernel's loops: a single one where its registers are `full` and its tiles are long."""
    return 1 if full and tile > 32 else STAGES


@dataclass(frozen=True)
class Plan:
    """What is derived from the inputs before a launch."""

    x: Tensor
    B: Tensor
    C: Tensor
    A: Tensor
    steps: tuple[Tensor, Tensor | None]
    sizes: tuple[int, int, int, int, int]
    widths: tuple[int, int]
    reverse: bool
    dtype: torch.dtype
    shape: tuple[int, int, int, int]
    math: tuple[Any, str, Any]

    @classmethod
    def of(cls, inputs: Inputs) -> "Plan":
        """Bring tensors into the kernels' layout, and compute the running sums of the decays."""
        x, dt, A, B, C, reset, reverse, chunk_size = inputs
        (batch, length, heads, width), (groups, states) = x.shape, B.shape[2:]
        dtype = dt.dtype
        narrow = torch.promote_types(torch.promote_types(x.dtype, B.dtype), C.dtype)
        operands, name = precision(torch.float64 if dtype == torch.float64 else narrow, platform(x.device))
        shape = shape_of(chunk_size, length, width, states, operands, longest_tile(x.device))
        chunks, acc = cdiv(length, shape[0]), accumulator(dtype)
        sizes, widths = (length, heads, groups, chunks, batch), (width, states)
        steps = torch.empty(3, batch, heads, chunks * shape[0], dtype=dtype, device=x.device)
        marks = None if reset is None else reset.contiguous().view(torch.uint8)
        documents = None if reset is None else x.new_empty(batch, chunks * shape[0], dtype=torch.int32)
        options = {"REVERSE": reverse, "Q": shape[0], "BH": HEADS, "ACC": acc, "num_warps": 4}
        grid = (batch * chunks * cdiv(heads, HEADS),)
        A = A.contiguous()
        launch(ssd_steps, grid, (dt, A, marks, (steps, documents), sizes, dt.stride()), options)
        x, B, C = rows(x), rows(B), rows(C)
        math = (tensor_type(operands), name, acc)
        return cls(x, B, C, A, (steps, documents), sizes, widths, reverse, dtype, shape, math)

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of channels and of states."""
        return cdiv(self.widths[0], self.shape[2]), cdiv(self.widths[1], self.shape[3])

    @property
    def tiles(self) -> int:
        """Tiles of a chunk."""
        return self.shape[0] // self.shape[1]

    def options(self, full: bool = False) -> dict[str, Any]:
        """Return the constants of a launch; `full`: of a kernel with hardly a register to spare."""
        constants = {"REVERSE": self.reverse, "SHAPE": self.shape, "MATH": self.math}
        return constants | {"num_warps": WARPS, "num_stages": stages_of(self.shape[1], full)}

    def empty(self, *shape: int) -> Tensor:
        """Return memory in the dtype that is computed in."""
        return torch.empty(shape, dtype=self.dtype, device=self.x.device)

    def grid(self, *counts: int) -> tuple[int]:
        """Return as many programs as there are chunks in all rows, times `counts`."""
        total = self.sizes[4] * self.sizes[3]
        for count in counts:
            total *= count
        return (total,)


def _chunk_states(plan: Plan, v: Tensor, parameter: Tensor, entering: bool) -> Tensor:
    """Return what the chunks add to the state, or what their outputs want of the state before: (B, K, H, P, N)."""
    _, heads, _, chunks, batch = plan.sizes
    found = plan.empty(batch, chunks, heads, *plan.widths)
    arguments = (v, parameter, plan.steps, found, plan.sizes, plan.widths, (*v.stride()[:3], *parameter.stride()[:3]))
    grid = plan.grid(heads, *plan.blocks)
    launch(ssd_chunk_states, grid, arguments, plan.options() | {"ENTERING": entering})
    return found


def _carry(plan: Plan, states: Tensor, first: Tensor | None, before: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Carry states from chunk to chunk in place; return the last, and with `before` the shares of what goes through."""
    _, heads, _, chunks, batch = plan.sizes
    blocks = cdiv(plan.widths[0] * plan.widths[1], NUMBERS)
    last = plan.empty(batch, heads, *plan.widths)
    through = None if before is None else plan.empty(blocks, batch, heads, chunks)
    options = {"Q": plan.shape[0], "BLOCK": NUMBERS, "ACC": plan.math[2], "num_warps": 4}
    first = None if first is None else first.contiguous()
    arguments = (states, (first, last), plan.steps, before, through, plan.sizes, plan.widths)
    launch(ssd_carry, (batch * heads * blocks,), arguments, options)
    return last, through


def ssd_forward(inputs: Inputs, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return y (B, L, H, P) and the final state (B, H, P, N), of inputs that are not empty."""
    plan = Plan.of(inputs)
    states = _chunk_states(plan, plan.x, plan.B, False)
    final, _ = _carry(plan, states, initial_state, None)
    y = plan.empty(*inputs.x.shape)
    strides = (*plan.x.stride()[:3], *plan.B.stride()[:3], *plan.C.stride()[:3])
    arguments = ((plan.x, plan.B, plan.C), plan.steps, states, y, plan.sizes, plan.widths, strides)
    grid = plan.grid(plan.sizes[1], plan.blocks[0], plan.tiles)
    launch(ssd_outputs, grid, arguments, plan.options())
    return y, final


def ssd_backward(
    grad_y: Tensor, grad_final: Tensor | None, inputs: Inputs, initial_state: Tensor | None
) -> list[Tensor]:
    """Return the gradients of x, dt, A, B, C and of the initial state; the states are computed anew."""
    plan = Plan.of(inputs)
    grad = rows(grad_y)
    before = _chunk_states(plan, plan.x, plan.B, False)
    _carry(plan, before, initial_state, None)
    after = _chunk_states(plan, grad, plan.C, True)
    dstate, through = _carry(plan, after, grad_final, before)
    dx, shares = _inputs_back(plan, grad, (before, after))
    dB, dC = (_projections_back(plan, grad, states, states is before) for states in (after, before))
    ddt, dA = _steps_back(plan, (*shares, through))
    return [dx, ddt, dA, dB.to(inputs.B.dtype), dC.to(inputs.C.dtype), dstate]


def _inputs_back(plan: Plan, grad: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return dx, and the shares of the steps' gradients through pairs of positions and through the states."""
    _, heads, _, _, batch = plan.sizes
    blocks, width = plan.blocks[0], plan.steps[0].shape[3]
    dx = torch.empty(plan.x.shape, dtype=plan.x.dtype, device=plan.x.device)
    of_logs, of_pairs = plan.empty(plan.tiles, batch, heads, width), plan.empty(batch, heads, width)
    of_states = [plan.empty(blocks, batch, heads, width) for _ in range(3)]
    tensors = (plan.x, plan.B, plan.C, grad)
    strides = tuple(s for tensor in tensors for s in tensor.stride()[:3])
    rest = (plan.sizes, plan.widths, strides)
    arguments = (tensors[:3], grad, states, plan.steps, (dx, *of_states), *rest)
    launch(ssd_backward_inputs, plan.grid(heads, blocks, plan.tiles), arguments, plan.options())
    arguments = (tensors[:3], grad, plan.steps, (of_logs, of_pairs), *rest)
    launch(ssd_backward_pairs, plan.grid(heads, plan.tiles), arguments, plan.options(full=True))
    return dx, (of_logs, of_pairs, *of_states)


def _projections_back(plan: Plan, grad: Tensor, states: Tensor, of_c: bool) -> Tensor:
    """Return dC, or dB."""
    length, heads, groups, _, batch = plan.sizes
    blocks = plan.blocks[1]
    programs = plan.grid(groups, blocks, plan.tiles)[0]
    each = cdiv(heads // groups, min(heads // groups, cdiv(BUSY, programs)))
    splits = cdiv(heads // groups, each)
    shares = plan.empty(splits, batch, length, groups, plan.widths[1])
    own, other = (grad, plan.x) if of_c else (plan.x, grad)
    parameter = plan.B if of_c else plan.C
    strides = tuple(s for tensor in (own, other, parameter) for s in tensor.stride()[:3])
    arguments = ((own, other), parameter, states, plan.steps, shares, plan.sizes, plan.widths, strides, each)
    options = plan.options(full=True) | {"OF_C": of_c}
    launch(ssd_backward_projections, plan.grid(groups, blocks, plan.tiles, splits), arguments, options)
    return shares.sum(0)


def _steps_back(plan: Plan, shares: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    """Return the gradients of dt and A from the shares."""
    length, heads, _, chunks, batch = plan.sizes
    ddt, dA = plan.empty(batch, length, heads), plan.empty(batch, heads, chunks)
    through = shares[-1]
    counts = (plan.blocks[0], 0 if through is None else through.shape[0])
    options = {"REVERSE": plan.reverse, "Q": plan.shape[0], "T": plan.shape[1], "ACC": plan.math[2], "num_warps": 4}
    arguments = (plan.A, plan.steps[0], shares, (ddt, dA), plan.sizes, counts)
    launch(ssd_backward_steps, plan.grid(heads), arguments, options)
    return ddt, dA.sum((0, 2))
