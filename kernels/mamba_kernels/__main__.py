"""`python -m mamba_kernels`: which implementation of each operator runs on this machine, and why."""

import argparse
import json
import os
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from mamba_kernels.dispatch import BACKENDS, ENVIRONMENT_VARIABLE, backend_problem, choose_backend

OPERATORS = ("selective_scan", "ssd", "causal_conv1d", "rms_norm", "selective_state_update", "causal_conv1d_update")
LIBRARIES = ("torch", "numba", "llvmlite", "triton", "numpy")


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _devices() -> list[torch.device]:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return [torch.device("cpu"), *([accelerator] if accelerator is not None else [])]


def _choice(operator: str, device: torch.device) -> dict[str, str | None]:
    try:
        with warnings.catch_warnings(action="ignore"):
            choice = choose_backend(operator, None, device)
    except ValueError as error:  # the environment variable names a backend that cannot run here
        return {"operator": operator, "device": str(device), "backend": None, "reason": str(error)}
    return {"operator": operator, "device": str(device), "backend": choice.backend, "reason": choice.reason}


def _cache() -> str | None:
    if backend_problem("numba") is not None:
        return None
    from mamba_kernels.cpu.numba_runtime import cache_directory

    directory = cache_directory()
    return None if directory is None else str(directory)


def describe() -> dict[str, Any]:
    """Return what the command prints: backends, choices, versions, threads and the folder of compiled kernels."""
    return {
        "backends": {name: {"available": (why := backend_problem(name)) is None, "problem": why} for name in BACKENDS},
        "choices": [_choice(operator, device) for device in _devices() for operator in OPERATORS],
        "environment": {ENVIRONMENT_VARIABLE: os.environ.get(ENVIRONMENT_VARIABLE)},
        "versions": {"python": platform.python_version()} | {library: _version(library) for library in LIBRARIES},
        "threads": torch.get_num_threads(),
        "numba_cache": _cache(),
    }


def _table(facts: dict[str, Any]) -> str:
    """Lay out one row for each operator and device, columns as wide as their longest cell."""
    rows = [["operator", "device", *BACKENDS, "chosen", "why"]]
    for choice in facts["choices"]:
        cells = ["yes" if facts["backends"][name]["available"] else "no" for name in BACKENDS]
        if choice["device"] != "cpu":
            cells[BACKENDS.index("numba")] = "no"
        rows.append([choice["operator"], choice["device"], *cells, choice["backend"] or "none", choice["reason"]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _report(facts: dict[str, Any]) -> str:
    problems = [f"{name}: {state['problem']}" for name, state in facts["backends"].items() if not state["available"]]
    asked = facts["environment"][ENVIRONMENT_VARIABLE]
    return "\n".join(
        [
            _table(facts),
            "",
            *problems,
            "versions: " + ", ".join(f"{name} {found or 'missing'}" for name, found in facts["versions"].items()),
            f"threads: {facts['threads']} (torch.set_num_threads, OMP_NUM_THREADS)",
            f"compiled kernels: {facts['numba_cache'] or 'not kept: compiled anew in each process'}",
            f"{ENVIRONMENT_VARIABLE}: {asked or 'not set'}",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table, or JSON with `--json`."""
    parser = argparse.ArgumentParser(prog="python -m mamba_kernels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    as_json = parser.parse_args(arguments).json
    facts = describe()
    print(json.dumps(facts, indent=2) if as_json else _report(facts))


if __name__ == "__main__":
    main()
