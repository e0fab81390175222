"""What compiled Triton kernels need, without a GPU: registers, spills, shared memory, instructions, a bound on speed.

    python -m benchmarks.aot [--target sm_90 ...] [--states 16 ...]

Compiles every kernel ahead of time for five targets, takes NVIDIA's code apart with the disassembler that comes with
Triton, and counts the instructions of the innermost loop by unit. An element is one (batch, position, channel). From
the counts follows a bound: every SM issues four instructions of 32 lanes a cycle and makes 16 exponentials. Nothing is
run: latency, occupancy and caches can only make it slower.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, save_results

os.environ.pop("TRITON_INTERPRET", None)  # kernels are compiled here, whatever the caller's shell says

import triton
import triton.language as tl
from mamba_kernels.causal_conv1d import triton_kernels as conv
from mamba_kernels.causal_conv1d import triton_op as conv_op
from mamba_kernels.rms_norm import triton_op as norm
from mamba_kernels.selective_scan.triton_backward import scan_backward
from mamba_kernels.selective_scan.triton_chunks import scan_carry, scan_chunk
from mamba_kernels.selective_scan.triton_forward import scan_forward
from mamba_kernels.selective_scan.triton_launch import SPACING, Tile, backward_tile, chunk_tile, forward_tile
from mamba_kernels.triton_update import advance_conv, advance_scan
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")
SHARED_LIMIT = {"sm_80": 163, "sm_90": 227, "sm_100": 227, "sm_120": 99, "gfx942": 64}
"""KiB of shared memory that one block may have (CUDA programming guide, table of compute capabilities; CDNA 3 ISA)."""

PROCESSORS = {"sm_80": (108, 1.41, 2039), "sm_90": (132, 1.755, 3350)}
"""Multiprocessors, GHz and GB/s of an A100 80 GB SXM and an H100 SXM."""

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
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
    """

    name: str
    function: Any
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]
    warps: int = 1
    elements: int = 0
    traffic: float = 0.0


def target_of(name: str) -> GPUTarget:
    """Triton's description of a target."""
    return GPUTarget("hip", name, 64) if name.startswith("gfx") else GPUTarget("cuda", int(name.split("_")[1]), 32)


def _source(kernel: Kernel) -> ASTSource:
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}

    def describe(value: Any, path: tuple[int, ...]) -> Any:
        if isinstance(value, tuple):
            return tuple(describe(inner, (*path, i)) for i, inner in enumerate(value))
        if value is None:
            constants[path] = None
            return "constexpr"
        if not value.endswith("!") and not value.startswith("fp"):
            attributes[path] = [["tt.divisibility", 16]]
        return value.rstrip("!")

    for i, name in enumerate(kernel.function.arg_names):
        if name in kernel.constants:
            signature[name], constants[(i,)] = "constexpr", kernel.constants[name]
        else:
            signature[name] = describe(kernel.arguments[name], (i,))
    return ASTSource(fn=kernel.function, signature=signature, constexprs=constants, attrs=attributes)


def compile_kernel(kernel: Kernel, target: str) -> dict[str, Any]:
    """Compile for one target and return what it needs, and for NVIDIA the instructions of an element."""
    compiled = triton.compile(_source(kernel), target=target_of(target), options={"num_warps": kernel.warps})
    row: dict[str, Any] = {"kernel": kernel.name, "target": target, "warps": kernel.warps}
    if target.startswith("gfx"):
        return row | _amd_resources(compiled.asm["amdgcn"]) | {"shared": compiled.metadata.shared}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "--dump-resource-usage", file.name)
        code = _tool("nvdisasm", "-c", file.name)
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", usage)}
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    row |= {"registers": found["REG"], "stack": found["STACK"], "spills": spills, "shared": compiled.metadata.shared}
    return row | _counts(kernel, code, target)


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([str(TOOLS / name), *arguments], capture_output=True, text=True, check=True).stdout


def _amd_resources(assembly: str) -> dict[str, int]:
    def value(name: str) -> int:
        found = re.search(rf"\.{name}:\s*(\d+)", assembly)
        return int(found[1]) if found else 0

    return {
        "registers": value("vgpr_count"),
        "stack": value("private_segment_fixed_size"),
        "spills": value("vgpr_spill_count"),
    }


def innermost_loop(code: str) -> list[str]:
    """Return the names of the instructions of the longest loop without a loop inside, from nvdisasm's output."""
    labels: dict[str, int] = {}
    names: list[str] = []
    jumps: list[tuple[int, int]] = []
    for line in code.splitlines():
        if label := re.match(r"^\s*(\.L_\w+):", line):
            labels[label[1]] = len(names)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?);", line):
            names.append(found[1].split(".")[0])
            to = re.search(r"`\((\.L\w+)\)", found[2])
            if names[-1] == "BRA" and to and labels.get(to[1], len(names)) < len(names) - 1:
                jumps.append((labels[to[1]], len(names) - 1))
    inner = [j for j in jumps if not any(j[0] <= other[0] and other[1] <= j[1] and other != j for other in jumps)]
    start, end = max(inner, key=lambda loop: loop[1] - loop[0], default=(0, -1))
    return names[start : end + 1]


def _counts(kernel: Kernel, code: str, target: str) -> dict[str, Any]:
    if not kernel.elements:
        return {}
    names = Counter(innermost_loop(code))
    scale = 32 * kernel.warps / kernel.elements
    per_element, exponentials = names.total() * scale, names["MUFU"] * scale
    row = {"instructions": per_element, "exponentials": exponentials}
    if target not in PROCESSORS:
        return row
    multiprocessors, clock, bandwidth = PROCESSORS[target]
    bounds = {
        "issue": multiprocessors * clock * 128 / per_element,
        "exp": multiprocessors * clock * 16 / exponentials if exponentials else float("inf"),
        "HBM": bandwidth / kernel.traffic,
    }
    return (
        row
        | {f"{name} bound": bound for name, bound in bounds.items()}
        | {"limit": min(bounds, key=bounds.__getitem__)}
    )


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
    forward = {"inputs": inputs, "entry": FP32, "DY": None, "sizes": SIZES, "strides": strides, "chunk": chunk}
    constants = _scan_constants(tile, states, full)
    piece = chunk_tile(states, 4096, lanes)
    cut = _scan_constants(piece, states, full)
    dense = Tile(back.segment, tile.ni, tile.bi, tile.bd, tile.no)
    refine = forward | {"DY": rows, "outputs": (FP32 if full else None, FP32, None, rows)}
    grad = FP32 if full else BF16
    backward = {
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
        Kernel(name.format("forward"), scan_forward, forward | {"outputs": (BF16, FP32, FP32, None)},
               constants | {"SPACING": SPACING}, 1, unit, 6 + extra),
        Kernel(name.format("backward, refine"), scan_forward, refine,
               _scan_constants(dense, states, full) | {"SPACING": back.segment}, 1, tile.channels * back.segment,
               4 + kept + (10 if full else 0)),
        Kernel(name.format("backward, walk"), scan_backward, backward, _scan_constants(back, states, full), back.warps,
               back.channels * back.segment, 4 + (4 if full else 2) + 4 + kept + shares),
        Kernel(name.format("chunk, forward"), scan_chunk, local, cut | {"ADJOINT": False}, 1, part, 4),
        Kernel(name.format("chunk, backward"), scan_chunk, local, cut | {"ADJOINT": True}, 1, part, 4),
    ]  # fmt: skip


def other_kernels() -> list[Kernel]:
    """The other operators' kernels in bf16, and the carry over chunks."""
    conv_inputs = (BF16, FP32, FP32, BF16, "*i64")
    constants = {"REVERSE": False, "K": 4, "BT": conv_op.BT, "BD": conv_op.BD, "ACC": tl.float32}
    two, silu = ("i32", "i32"), constants | {"SILU": True}
    sums = {"inputs": conv_inputs, "DY": BF16, "outputs": (FP32, FP32), "sizes": two, "strides": two, "dy_strides": two}
    back = {"W": FP32, "SINCE": "*i64", "DZ": FP32, "DFINAL": BF16, "outputs": (BF16, FP32), "sizes": two}
    width = {"BLOCK": 1024, "ACC": tl.float32}
    forward = {
        "X": BF16,
        "RESIDUAL": FP32,
        "W": FP32,
        "outputs": (BF16, FP32),
        "D": "i32",
        "strides": two,
        "eps": "fp32",
    }
    backward = {"grads": (BF16, FP32), "TOTAL": FP32, "W": FP32, "outputs": (FP32, FP32), "sizes": two, "eps": "fp32"}
    step = {
        "inputs": (FP32, BF16, BF16, FP32, BF16, BF16, FP32, BF16, FP32),
        "outputs": (BF16, FP32),
        "sizes": ("i32",) * 3,
    }
    carry = {"END": FP32, "DECAY": FP32, "FIRST": FP32, "chunks": "i32!", "size": "i32!"}
    token = {"inputs": (BF16, BF16, FP32, FP32), "outputs": (BF16, BF16), "D": "i32"}
    convolution = {"inputs": conv_inputs, "Y": BF16, "sizes": two, "strides": two}
    return [
        Kernel("chunk, carry", scan_carry, carry, {"ADJOINT": False, "BLOCK": 128, "ACC": tl.float32}, 4),
        Kernel("convolution forward", conv.conv_forward, convolution, silu, 4),
        Kernel("convolution backward, sums", conv.conv_backward_sums, sums, silu, 4),
        Kernel("convolution backward, inputs", conv.conv_backward_inputs, back, constants, 4),
        Kernel("norm forward", norm.norm_forward, forward, width, 4),
        Kernel("norm backward", norm.norm_backward, backward | {"strides": ("i32",) * 3}, width | {"ROWS": 32}, 4),
        Kernel("scan, one token", advance_scan, step, {"SOFTPLUS": True, "NP": 16, "BD": 32, "ACC": tl.float32}, 4),
        Kernel("convolution, one token", advance_conv, token, {"SILU": True, "K": 4, "BD": 128, "ACC": tl.float32}, 4),
    ]


def problems(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which kernels spill registers or need more shared memory than a block may have."""
    found = []
    for row in rows:
        if row["spills"] or row["stack"]:
            found.append(f"{row['kernel']} on {row['target']}: {row['spills']} spills, {row['stack']} bytes of stack")
        if row["shared"] > SHARED_LIMIT[row["target"]] * 1024:
            found.append(f"{row['kernel']} on {row['target']}: {row['shared']} bytes of shared memory")
    return found


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a kernel: registers on every target, the worst of the rest, instructions of an element on sm_90."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        line = found.setdefault(row["kernel"], {"kernel": row["kernel"], "spills": 0, "shared bytes": 0})
        line[f"registers {row['target']}"] = row["registers"]
        line["spills"] = max(line["spills"], row["spills"])
        line["shared bytes"] = max(line["shared bytes"], row["shared"])
        if row["target"] == "sm_90":
            line["instructions"], line["exponentials"] = row.get("instructions"), row.get("exponentials")
    return list(found.values())


def bounds_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the counts allow at most, on the processors whose figures are known."""
    names = ("kernel", "target", "issue bound", "exp bound", "HBM bound", "limit")
    return [{name: row[name] for name in names} for row in rows if "limit" in row]


def main() -> int:
    """Compile, print, save; 1 if a kernel spills or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--states", nargs="+", type=int, default=[16])
    parser.add_argument("--json", action="store_true", help="print rows and problems as JSON; write no file")
    options = parser.parse_args()
    rows = []
    for target in options.target:
        lanes = 64 if target.startswith("gfx") else 32
        kernels = [k for n in options.states for full in (False, True) for k in scan_kernels(n, full, lanes)]
        rows += [compile_kernel(kernel, target) for kernel in [*kernels, *other_kernels()]]
    wrong = problems(rows)
    if options.json:
        print(json.dumps({"rows": rows, "problems": wrong}))
        return bool(wrong)
    resources, bounds = summary(rows), bounds_of(rows)
    print_table("What compiled kernels need (bf16; compiled, not run)", resources)
    print_table("Upper bounds in billions of elements a second (from the code; not run)", bounds)
    results = {"resources": resources, "bounds": bounds, "problems": wrong, "rows": rows, "triton": triton.__version__}
    save_results("aot", results)
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
