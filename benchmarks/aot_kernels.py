"""The Triton kernels as `benchmarks.aot` compiles them: types of arguments, constants, and what has to be moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl

from mamba_kernels.gpu.triton_runtime import tensor_type
from mamba_kernels.ops.causal_conv1d import triton_kernels as conv
from mamba_kernels.ops.causal_conv1d import triton_op as conv_op
from mamba_kernels.ops.causal_conv1d.triton_update import advance_conv
from mamba_kernels.ops.rms_norm import triton_op as norm
from mamba_kernels.ops.selective_scan.triton_backward import scan_backward
from mamba_kernels.ops.selective_scan.triton_chunks import scan_carry, scan_chunk
from mamba_kernels.ops.selective_scan.triton_forward import scan_forward
from mamba_kernels.ops.selective_scan.triton_launch import SPACING, Tile, backward_tile, chunk_tile, forward_tile
from mamba_kernels.ops.selective_scan.triton_update import advance_scan
from mamba_kernels.ops.ssd import triton_backward as backward
from mamba_kernels.ops.ssd import triton_forward as forward
from mamba_kernels.ops.ssd.triton_launch import HEADS, NUMBERS, WARPS, precision, shape_of, stages_of
from mamba_kernels.ops.ssd.triton_update import advance_ssd

BF16, FP32 = "*bf16", "*fp32"


@dataclass(frozen=True)
class Kernel:
    """A kernel to compile.

    Attributes:
        name: What the table calls it.
        function: The Triton function.
        arguments: Type of each argument, nested as at the launch; None for what is left out. A `!` at the end says that
            nothing is known of divisibility.
        constants: Its constants.
        elements: Elements in one turn of the innermost loop of one program; 0 where there is no such loop.
        traffic: Bytes an element that have to be moved.
        states: N, of the scan; 0 elsewhere.
        stages: Stages of pipelined loops.
    """

    name: str
    function: Any
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]
    warps: int = 1
    elements: int = 0
    traffic: float = 0.0
    states: int = 0
    stages: int = 3


def _scan_constants(tile: Tile, states: int, full: bool) -> dict[str, Any]:
    constants = {k: v for k, v in tile.options(states).items() if k != "num_warps"}
    return constants | {"SOFTPLUS": full, "REVERSE": False, "ACC": tl.float32}


SIZES = ("i32!",) * 4


def scan_kernels(states: int, full: bool, lanes: int = 32) -> list[Kernel]:
    """The scan's kernels in bf16; `full` with gate, skip, bias and softplus, as Mamba uses it."""
    name = f"{{}}, N = {states}, {'gate, skip, bias, softplus' if full else 'bare'}"
    vector, rows = (FP32, BF16) if full else (None, None)
    inputs = (BF16, BF16, FP32, BF16, BF16, vector, rows, vector, None)
    tile, back = forward_tile(states, 4096, lanes), backward_tile(states, lanes)
    strides, chunk = ("i32",) * 14, "i32!"
    pass_ = {"inputs": inputs, "entry": FP32, "DY": None, "sizes": SIZES, "strides": strides, "chunk": chunk}
    constants = _scan_constants(tile, states, full)
    piece = chunk_tile(states, 4096, lanes)
    cut = _scan_constants(piece, states, full)
    dense = Tile(back.segment, tile.ni, tile.bi, tile.bd, tile.no)
    refine = pass_ | {"DY": rows, "outputs": (FP32 if full else None, FP32, None, rows)}
    grad = FP32 if full else BF16
    walk = {
        "inputs": (*inputs[:6], *inputs[7:]),
        "grads": (grad, FP32, FP32),
        "outputs": (BF16, BF16, *[FP32] * 6),
        "sizes": SIZES,
        "strides": ("i32",) * 12,
        "chunk": chunk,
    }
    local = {
        "inputs": (BF16, BF16, FP32, BF16, vector, None),
        "outputs": (FP32, FP32),
        "sizes": SIZES,
        "strides": ("i32",) * 7,
        "chunk": chunk,
    }
    kept, extra = 4 * states / back.segment, 2 if full else 0
    unit, part = tile.channels * tile.segment, piece.channels * piece.segment
    shares = 8 * states / back.channels
    return [
        Kernel(name.format("forward"), scan_forward, pass_ | {"outputs": (BF16, FP32, FP32, None)},
               constants | {"SPACING": SPACING}, 1, unit, 6 + extra, states),
        Kernel(name.format("backward, refine"), scan_forward, refine,
               _scan_constants(dense, states, full) | {"SPACING": back.segment}, 1, tile.channels * back.segment,
               4 + kept + (10 if full else 0), states),
        Kernel(name.format("backward, walk"), scan_backward, walk, _scan_constants(back, states, full), back.warps,
               back.channels * back.segment, 4 + (4 if full else 2) + 4 + kept + shares, states),
        Kernel(name.format("chunk, forward"), scan_chunk, local, cut | {"ADJOINT": False}, 1, part, 4, states),
        Kernel(name.format("chunk, backward"), scan_chunk, local, cut | {"ADJOINT": True}, 1, part, 4, states),
    ]  # fmt: skip


def other_kernels() -> list[Kernel]:
    """The other operators' kernels in bf16, and the carry over chunks."""
    conv_inputs = (BF16, FP32, FP32, BF16, "*i64")
    constants = {"REVERSE": False, "K": 4, "BT": conv_op.BT, "BD": conv_op.BD, "ACC": tl.float32}
    two, silu = ("i32", "i32"), constants | {"SILU": True}
    sums = {"inputs": conv_inputs, "DY": BF16, "outputs": (FP32, FP32), "sizes": two, "strides": two, "dy_strides": two}
    back = {"W": FP32, "SINCE": "*i64", "DZ": FP32, "DFINAL": BF16, "outputs": (BF16, FP32), "sizes": two}
    width = {"BLOCK": 1024, "ACC": tl.float32}
    normed = {
        "X": BF16,
        "RESIDUAL": FP32,
        "W": FP32,
        "outputs": (BF16, FP32),
        "D": "i32",
        "strides": two,
        "eps": "fp32",
    }
    norm_back = {"grads": (BF16, FP32), "TOTAL": FP32, "W": FP32, "outputs": (FP32, FP32), "sizes": two, "eps": "fp32"}
    step = {
        "inputs": (FP32, BF16, BF16, FP32, BF16, BF16, FP32, BF16, FP32),
        "outputs": (BF16, FP32),
        "sizes": ("i32",) * 3,
    }
    token_ssd = step | {"sizes": ("i32",) * 4, "skip_strides": two}
    carry = {"END": FP32, "DECAY": FP32, "FIRST": FP32, "chunks": "i32!", "size": "i32!"}
    token = {"inputs": (BF16, BF16, FP32, FP32), "outputs": (BF16, BF16), "D": "i32"}
    convolution = {"inputs": conv_inputs, "Y": BF16, "sizes": two, "strides": two}
    return [
        Kernel("chunk, carry", scan_carry, carry, {"ADJOINT": False, "BLOCK": 128, "ACC": tl.float32}, 4),
        Kernel("convolution forward", conv.conv_forward, convolution, silu, 4),
        Kernel("convolution backward, sums", conv.conv_backward_sums, sums, silu, 4),
        Kernel("convolution backward, inputs", conv.conv_backward_inputs, back, constants, 4),
        Kernel("norm forward", norm.norm_forward, normed, width, 4),
        Kernel("norm backward", norm.norm_backward, norm_back | {"strides": ("i32",) * 3}, width | {"ROWS": 32}, 4),
        Kernel("scan, one token", advance_scan, step, {"SOFTPLUS": True, "NP": 16, "BD": 32, "ACC": tl.float32}, 4),
        Kernel("SSD, one token", advance_ssd, token_ssd, {"SOFTPLUS": True, "NP": 128, "BP": 32, "ACC": tl.float32}, 4),
        Kernel("convolution, one token", advance_conv, token, {"SILU": True, "K": 4, "BD": 128, "ACC": tl.float32}, 4),
    ]


def ssd_kernels(target: str) -> list[Kernel]:
    """SSD's kernels with bf16 and with float32 inputs, at P = 64 and N = 128."""
    found = []
    for kind, dtype in ((BF16, torch.bfloat16), (FP32, torch.float32)):
        operands, name = precision(dtype, "hip" if target.startswith("gfx") else "cuda")
        tile = 32 if target in ("sm_80", "sm_120") else 64
        shape = shape_of(256, 2**20, 64, 128, operands, tile)
        found += _ssd_kernels(kind, shape, (tensor_type(operands), name, tl.float32))
    return found


def _ssd_kernels(kind: str, shape: tuple[int, int, int, int], math: tuple[Any, str, Any]) -> list[Kernel]:
    name = f"SSD {{}}, {'bf16' if kind == BF16 else 'fp32'}"
    sizes, widths, steps = ("i32!",) * 5, ("i32",) * 2, (FP32, None)
    constants = {"REVERSE": False, "SHAPE": shape, "MATH": math}
    vector = {"Q": shape[0], "ACC": tl.float32}
    common = {"steps": steps, "sizes": sizes, "widths": widths}
    states = common | {"V": kind, "PARAMETER": kind, "STATES": FP32, "strides": ("i32",) * 6}
    outputs = common | {"inputs": (kind,) * 3, "STATES": FP32, "Y": FP32, "strides": ("i32",) * 9}
    pairs = common | {"inputs": (kind,) * 3, "GRAD": FP32, "outputs": (FP32, FP32), "strides": ("i32",) * 12}
    inputs = pairs | {"states": (FP32, FP32), "outputs": (kind, FP32, FP32, FP32)}
    projected = common | {"PARAMETER": kind, "STATES": FP32, "SHARES": FP32, "strides": ("i32",) * 9, "each": "i32!"}
    of_c, of_b = projected | {"rows": (FP32, kind)}, projected | {"rows": (kind, FP32)}
    options, full = ({"warps": WARPS, "stages": stages_of(shape[1], is_full)} for is_full in (False, True))
    project = backward.ssd_backward_projections
    found = [
        Kernel(name.format("states"), forward.ssd_chunk_states, states, constants | {"ENTERING": False}, **options),
        Kernel(name.format("outputs"), forward.ssd_outputs, outputs, constants, **options),
        Kernel(name.format("backward, x"), backward.ssd_backward_inputs, inputs, constants,
               **options),
        Kernel(name.format("backward, pairs"), backward.ssd_backward_pairs, pairs, constants, **full),
        Kernel(name.format("backward, C"), project, of_c, constants | {"OF_C": True}, **full),
        Kernel(name.format("backward, B"), project, of_b, constants | {"OF_C": False}, **full),
    ]  # fmt: skip
    if kind == FP32:
        return found
    ends = {"DT": FP32, "A": FP32, "RESET": None, "outputs": (FP32, None), "sizes": sizes, "strides": ("i32",) * 3}
    carry = common | {"STATES": FP32, "ends": (FP32, FP32), "BEFORE": FP32, "THROUGH": FP32}
    shares = {"A": FP32, "STEPS": FP32, "shares": (FP32,) * 6, "outputs": (FP32, FP32), "sizes": sizes}
    return [
        Kernel("SSD steps", forward.ssd_steps, ends, vector | {"REVERSE": False, "BH": HEADS}, 4),
        *found,
        Kernel("SSD carry", forward.ssd_carry, carry, vector | {"BLOCK": NUMBERS}, 4),
        Kernel("SSD backward, steps", backward.ssd_backward_steps, shares | {"counts": ("i32!",) * 2},
               vector | {"REVERSE": False, "T": shape[1]}, 4),
    ]  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What a pass of SSD has to do for an element (batch, position, channel): multiply-adds in products, and bytes."""

    name: str
    products: float
    traffic: float


def ssd_work(width: int = 64, states: int = 128) -> list[Work]:
    """Count the work of the schedule with bf16 inputs, of B and C what a model of one group and 24 heads needs.

    A chunk's state is written and read by the carry, twice: 16 N / Q bytes an element. A tile meets the tiles before it
    in its chunk and itself: (Q + T) / 2 positions.
    """
    chunk, tile, _, _ = shape_of(256, 2**20, width, states, torch.bfloat16, 64)
    pairs, state = (chunk + tile) / 2, 16 * states / chunk
    shared = 2 * 2 * states / (24 * width)
    forward = states + states + pairs * (states + width) / width
    of_x = pairs * (states + width) / width + 2 * states
    of_pairs = pairs * (states + width) / width
    of_parameters = 2 * (pairs * (width + states) / width + states)
    return [
        Work("forward", forward, 2 + 2 + 4 + state + 2 * shared),
        Work(
            "backward", 2 * states + of_x + of_pairs + of_parameters, 2 + 4 + 4 * (2 + 4) + 2 + 2 * state + 8 * shared
        ),
    ]
