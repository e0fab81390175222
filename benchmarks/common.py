"""What every benchmark shares: alternating timings, the machine's description, tables, and JSON under `results/`."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
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


PEERS = ("transformers", "mambapy", "mamba-ssm", "statsforecast", "lightgbm", "statsmodels", "scikit-learn")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "asimd")


def describe_machine() -> dict[str, Any]:
    """What a reader needs in order to compare figures."""
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("torch", "numba", "numpy", "triton", *PEERS)},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


_WHAT_COUNTS = (":(top)", ":(top,exclude)docs", ":(top,exclude)benchmarks/results")
"""All but pages and results, which no figure depends on."""


def describe_making(data: Sequence[Path] = (), seeds: Sequence[int] = ()) -> dict[str, Any]:
    """How figures were made: the commit, the command, the files read and the seeds.

    Args:
        data: files that were read.
        seeds: that were used; none where nothing is drawn at random.
    """
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": bool(_git("status", "--porcelain", "--untracked-files=no", "--", *_WHAT_COUNTS)),
        "command": " ".join(["python -m", _module(), *map(_file_name, sys.argv[1:])]),
        "data": {path.name: sha256(path) for path in data},
        "seeds": list(seeds),
    }


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _module() -> str:
    place = Path(sys.argv[0]).resolve()
    root = Path(__file__).resolve().parent.parent
    if not place.is_relative_to(root):
        return place.name
    return ".".join(place.relative_to(root).with_suffix("").parts).removesuffix(".__main__")


def _file_name(word: str) -> str:
    """A word of the command line; of a path its last part alone, since where it lay means nothing elsewhere."""
    return Path(word).name if "/" in word else word


def _git(*words: str) -> str | None:
    done = subprocess.run(
        ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )  # fmt: skip
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpuinfo(field: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == field), None)


def _processor() -> str:
    """The processor's name with family, model and stepping, which a shared machine's name alone does not tell."""
    name = _cpuinfo("model name")
    if name is None:
        return platform.processor() or platform.machine()
    parts = [f"{word} {value}" for word in ("cpu family", "model", "stepping") if (value := _cpuinfo(word))]
    return f"{name} ({', '.join(parts)})" if parts else name


def _instructions() -> list[str] | None:
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    return None if flags is None else [one for one in _INSTRUCTIONS if one in flags.split()]


def save_results(
    name: str,
    results: Mapping[str, Any],
    folder: Path = RESULTS,
    *,
    data: Sequence[Path] = (),
    seeds: Sequence[int] = (),
) -> Path:
    """Writes `NAME.json` with the machine's description and how it was made.

    Args:
        name: of the file.
        results: plain values.
        folder: where it is written; among the results by default.
        data: files that were read; their hashes are kept.
        seeds: that were used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    about = {"machine": describe_machine(), "made": describe_making(data, seeds)}
    path.write_text(json.dumps({**about, **results}, indent=2) + "\n")
    print(f"written to {path}")
    return path


def load_results(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """The results that `save_results` wrote, or nothing yet."""
    path = folder / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return {key: value for key, value in found.items() if key not in ("machine", "made")}


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
