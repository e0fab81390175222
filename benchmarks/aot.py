"""What compiled Triton kernels need, without a GPU: registers, spills, shared memory, instructions, a bound on speed.

    python -m benchmarks.aot [--target sm_90 ...] [--states 16 ...]

Compiles every kernel ahead of time for five targets, takes NVIDIA's code apart with the disassembler that comes with
Triton, and counts the instructions of the scan's innermost loop by unit. An element is one (batch, position, channel).
From the counts follows a bound: a multiprocessor of NVIDIA's issues instructions of 128 lanes a cycle, a compute unit
of AMD's of 64, and either makes 16 exponentials. SSD is bound by matrix products and memory, of which the schedule
tells the amounts. Nothing is run: latency, occupancy and caches can only make it slower.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, save_results

os.environ.pop("TRITON_INTERPRET", None)  # kernels are compiled here, whatever the caller's shell says

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.aot_kernels import Kernel, other_kernels, scan_kernels, ssd_kernels, ssd_work

STATES = (1, 4, 16, 64, 128, 256)
TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")
SHARED_LIMIT = {"sm_80": 163, "sm_90": 227, "sm_100": 227, "sm_120": 99, "gfx942": 64}
"""KiB of shared memory that one block may have (CUDA programming guide, table of compute capabilities; CDNA 3 ISA)."""


@dataclass(frozen=True)
class Processor:
    """Peak figures of a processor, by its vendor.

    Attributes:
        name: Which one.
        bandwidth: GB/s of its memory.
        tensor: Multiply-adds of bfloat16 matrix products in 10^12 a second, without sparsity.
        units: Multiprocessors or compute units; 0 if the vendor does not say.
        clock: Their GHz.
        lanes: Lanes a cycle and unit of ordinary instructions.
        source: Where the vendor says so.
    """

    name: str
    bandwidth: float
    tensor: float
    units: int
    clock: float
    lanes: int
    source: str


PROCESSORS = {
    "sm_80": Processor("A100 80 GB SXM", 2039, 156, 108, 1.41, 128, "NVIDIA A100 Tensor Core GPU data sheet"),
    "sm_90": Processor("H100 SXM", 3350, 494.5, 132, 1.755, 128, "NVIDIA H100 Tensor Core GPU data sheet, white paper"),
    "sm_100": Processor("B200 SXM", 8000, 1125, 0, 0, 128, "NVIDIA HGX B200 data sheet; no count of units, no clock"),
    "sm_120": Processor("RTX 5090", 1792, 104.8, 170, 2.407, 128, "NVIDIA RTX Blackwell architecture white paper"),
    "gfx942": Processor("MI300X", 5300, 653.7, 304, 2.1, 64, "AMD Instinct MI300X data sheet, CDNA 3 white paper"),
}
EXPONENTIALS = 16
"""A cycle and unit, on all of them (CUDA programming guide, throughput of arithmetic instructions; CDNA 3 ISA)."""

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


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
    compiled = triton.compile(
        _source(kernel), target=target_of(target), options={"num_warps": kernel.warps, "num_stages": kernel.stages}
    )
    row: dict[str, Any] = {"kernel": kernel.name, "target": target, "warps": kernel.warps, "states": kernel.states}
    if target.startswith("gfx"):
        code = compiled.asm["amdgcn"]
        return row | _amd_resources(code) | {"shared": compiled.metadata.shared} | _counts(kernel, code, target)
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


LABEL = re.compile(r"^\s*(\.L\w+):")
NVIDIA = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(?:.*?`\((\.L\w+)\))?.*?;")
AMD = re.compile(r"^\s+([a-z]\w+)(?:\s+(\.L\w+))?")


def innermost_loop(code: str) -> list[str]:
    """Return the names of the instructions of the longest loop without a loop inside, of either make's assembly."""
    labels: dict[str, int] = {}
    names: list[str] = []
    jumps: list[tuple[int, int]] = []
    instruction = NVIDIA if NVIDIA.search(code) else AMD
    for line in code.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(names)
        elif found := instruction.search(line):
            names.append(found[1].split(".")[0])
            begin = labels.get(found[2], len(names))
            if ("BRA" in names[-1] or "branch" in names[-1]) and begin < len(names) - 1:
                jumps.append((begin, len(names) - 1))
    inner = [j for j in jumps if not any(j[0] <= other[0] and other[1] <= j[1] and other != j for other in jumps)]
    start, end = max(inner, key=lambda loop: loop[1] - loop[0], default=(0, -1))
    return names[start : end + 1]


def _counts(kernel: Kernel, code: str, target: str) -> dict[str, Any]:
    """Count instructions and exponentials of an element; on AMD, where scalar ones run beside, vector instructions."""
    if not kernel.elements:
        return {}
    names = Counter(innermost_loop(code))
    amd = target.startswith("gfx")
    scale = (64 if amd else 32) * kernel.warps / kernel.elements
    special = sum(n for name, n in names.items() if name.startswith(("MUFU", "v_exp", "v_rcp", "v_log")))
    per_element = sum(n for name, n in names.items() if not amd or name.startswith("v_")) * scale
    exponentials, processor = special * scale, PROCESSORS[target]
    cycles = processor.units * processor.clock
    bounds = {"HBM": processor.bandwidth / kernel.traffic}
    if cycles:
        bounds |= {"issue": cycles * processor.lanes / per_element, "exp": cycles * EXPONENTIALS / exponentials}
    row = {"instructions": per_element, "exponentials": exponentials}
    found = {f"{name} bound": bounds.get(name) for name in ("issue", "exp", "HBM")}
    return row | found | {"limit": min(bounds, key=bounds.__getitem__)}


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


def of_states(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a number of states: what the scan's kernels of it need at most."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        if not row["states"]:
            continue
        line = found.setdefault(row["states"], {"N": row["states"], "spills": 0, "shared bytes": 0})
        line["spills"] = max(line["spills"], row["spills"])
        line["shared bytes"] = max(line["shared bytes"], row["shared"])
        name = f"registers {row['target']}"
        line[name] = max(line.get(name, 0), row["registers"])
        for kind in ("forward", "backward, walk"):
            if row["target"] == "sm_90" and row["kernel"].startswith(f"{kind}, N") and "gate" in row["kernel"]:
                line[f"instructions {kind}"] = row["instructions"]
    return list(found.values())


def bounds_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the counts allow at most at N = 16, on the processors whose figures are known."""
    names = ("kernel", "target", "issue bound", "exp bound", "HBM bound", "limit")
    return [{name: row[name] for name in names} for row in rows if "limit" in row and row["states"] == 16]


def ssd_bounds() -> list[dict[str, Any]]:
    """What the amounts of work allow SSD at most, in 10^9 elements a second."""
    rows = []
    for work in ssd_work():
        for processor in PROCESSORS.values():
            bounds = {"tensor": processor.tensor * 1e3 / work.products, "HBM": processor.bandwidth / work.traffic}
            rows.append(
                {"pass": work.name, "processor": processor.name, "multiply-adds": work.products, "bytes": work.traffic}
                | {f"{name} bound": bound for name, bound in bounds.items()}
                | {"limit": min(bounds, key=bounds.__getitem__)}
            )
    return rows


def main() -> int:
    """Compile, print, save; 1 if a kernel spills or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--states", nargs="+", type=int, default=STATES, help="of the scan; all of its forms at 16")
    parser.add_argument("--json", action="store_true", help="print rows and problems as JSON; write no file")
    options = parser.parse_args()
    rows = []
    for target in options.target:
        lanes = 64 if target.startswith("gfx") else 32
        kernels = [
            k for n in options.states for full in (True, False) if full or n == 16 for k in scan_kernels(n, full, lanes)
        ]
        rows += [compile_kernel(kernel, target) for kernel in [*kernels, *ssd_kernels(target), *other_kernels()]]
    wrong = problems(rows)
    if options.json:
        print(json.dumps({"rows": rows, "problems": wrong}))
        return bool(wrong)
    results = {
        "resources": summary([row for row in rows if row["states"] in (0, 16)]),
        "states": of_states(rows),
        "bounds": bounds_of(rows),
        "ssd_bounds": ssd_bounds(),
        "problems": wrong,
        "processors": {target: asdict(processor) for target, processor in PROCESSORS.items()},
        "rows": rows,
        "triton": triton.__version__,
    }
    print_table("What compiled kernels need (bf16 unless said; compiled, not run)", results["resources"])
    print_table("The scan with other numbers of states: the most of its kernels", results["states"])
    print_table("Upper bounds in billions of elements a second (from the code; not run)", results["bounds"])
    print_table(
        "Upper bounds of SSD in billions of elements a second (from the schedule; not run)", results["ssd_bounds"]
    )
    save_results("aot", results)
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
