"""`python -m mamba_kernels`: which implementation of each operator runs on this machine, and why."""

import argparse
import json
import os
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mamba_kernels.dispatch import BACKENDS, ENVIRONMENT_VARIABLE, backend_problem, choose_backend

OPERATORS = ("selective_scan", "causal_conv1d", "rms_norm", "selective_state_update", "causal_conv1d_update")
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
    from mamba_kernels.numba_runtime import cache_directory

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


def _print_tables(facts: dict[str, Any], console: Console) -> None:
    table = Table(title="Operators on this machine", title_justify="left")
    for heading in ("operator", "device", *BACKENDS, "chosen", "why"):
        table.add_column(heading, overflow="fold")
    marks = ["yes" if facts["backends"][name]["available"] else "no" for name in BACKENDS]
    for choice in facts["choices"]:
        on_cpu = choice["device"] == "cpu"
        row = [mark if name != "numba" or on_cpu else "no" for name, mark in zip(BACKENDS, marks, strict=True)]
        table.add_row(choice["operator"], choice["device"], *row, choice["backend"] or "none", choice["reason"])
    console.print(table)
    for name, state in facts["backends"].items():
        if not state["available"]:
            console.print(f"{name}: {state['problem']}", highlight=False)
    asked = facts["environment"][ENVIRONMENT_VARIABLE]
    versions = ", ".join(f"{library} {found or 'missing'}" for library, found in facts["versions"].items())
    for label, value in (
        ("versions", versions),
        ("threads", f"{facts['threads']} (torch.set_num_threads, OMP_NUM_THREADS)"),
        ("compiled kernels", facts["numba_cache"] or "not kept: compiled anew in each process"),
        (ENVIRONMENT_VARIABLE, asked or f"not set (accepted: {', '.join(BACKENDS)})"),
    ):
        console.print(f"{label}: {value}", highlight=False, soft_wrap=True, markup=False)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables, or JSON with `--json`."""
    parser = argparse.ArgumentParser(prog="python -m mamba_kernels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    facts = describe()
    if parser.parse_args(arguments).json:
        print(json.dumps(facts, indent=2))
    else:
        _print_tables(facts, Console())


if __name__ == "__main__":
    main()
