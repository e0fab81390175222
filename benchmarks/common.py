"""What every benchmark shares: alternating timings, the machine's description, tables, and JSON under `results/`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def alternate(cases: Mapping[str, Callable[[], object]], *, rounds: int = 5, warmup: int = 1) -> dict[str, list[float]]:
    """Times each case once a round, in turn, so that a slow spell of the machine falls on all.

    Returns:
        Seconds of each round, by case.
    """
    for _ in range(warmup):
        for run in cases.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def describe_machine() -> dict[str, Any]:
    """What a reader needs in order to compare figures."""
    packages = {}
    for name in ("torch", "numba", "numpy", "transformers", "mambapy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": packages,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def save_results(name: str, results: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Writes `NAME.json` with the machine's description, among the results or in another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": describe_machine(), **results}, indent=2) + "\n")
    print(f"written to {path}")
    return path


def load_results(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """What `save_results` wrote, or nothing yet."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def print_table(title: str, rows: Sequence[Mapping[str, Any]], *, skip: Sequence[str] = ()) -> None:
    """Prints rows that share their keys, numbers with as many digits as matter."""
    columns = [key for key in rows[0] if key not in skip]
    table = [columns, *([format_number(row[key]) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    print(f"\n{title}")
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print(flush=True)


def format_number(value: object) -> str:
    """Three significant digits for what is small, whole numbers for what is large."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
