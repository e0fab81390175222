"""Compiled kernels: the cache on disk under bad conditions, and threads under forks and concurrent callers."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from mamba_kernels.cpu import numba_runtime
from mamba_kernels.cpu.numba_runtime import cache_directory, parallel_for

PROGRAM = """
import json, sys
import numpy as np
from mamba_kernels.cpu.numba_runtime import cache_directory, kernel

@kernel
def double(lo, hi, values):
    for i in range(lo, hi):
        values[i] *= 2

for dtype in sys.argv[1:]:
    values = np.ones(5, dtype)
    double(0, 5, values)
    assert (values == 2).all(), values
folder = cache_directory()
print(json.dumps([None if folder is None else str(folder), sum(double.stats.cache_hits.values())]))
"""


def start(folder: Path, *dtypes: str, **environment: str) -> "subprocess.Popen[str]":
    """Compile and run a kernel, saved as a file, in a process of its own."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    known = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    return subprocess.Popen(
        [sys.executable, str(program), *dtypes],
        env={**known, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return out.strip()


def test_cache_serves_two_processes_at_once_and_survives_damage(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home")}
    for process in [start(tmp_path, *dtypes, **home) for dtypes in (("f4", "f8"), ("f8", "f4"))]:
        assert answer(process).startswith(f'["{tmp_path}/home/.cache/mamba_kernels/')
    assert answer(start(tmp_path, "f4", "f8", **home)).endswith(", 2]")
    files = [path for path in (tmp_path / "home").rglob("*.nb?") if path.is_file()]
    assert len(files) == 3  # an index, and a file for each of the two types
    for path in files:
        path.write_bytes(path.read_bytes()[:40])
    assert answer(start(tmp_path, "f4", **home)).endswith(", 0]")


def test_without_a_home_the_cache_is_temporary(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    out = answer(start(tmp_path, "f4", HOME=str(blocked), TMPDIR=str(tmp_path)))
    assert out.startswith(f'["{tmp_path}/mamba_kernels-')


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A user cache and a temporary folder of the test's own."""
    found = {name: tmp_path / name for name in ("cache", "temporary")}
    found["temporary"].mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(found["cache"]))
    monkeypatch.setattr(tempfile, "tempdir", str(found["temporary"]))
    monkeypatch.setattr(numba_runtime._config, "CACHE_DIR", "")
    return found


def find() -> Path | None:
    cache_directory.cache_clear()
    try:
        return cache_directory()
    finally:
        cache_directory.cache_clear()


def test_cache_is_the_users_and_private(places: dict[str, Path]) -> None:
    found = find()
    assert found is not None
    assert found.parent == places["cache"] / "mamba_kernels"
    assert found.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("kind", ["open to others", "a link"])
def test_cache_that_others_could_fill_is_not_trusted(kind: str, places: dict[str, Path], tmp_path: Path) -> None:
    base = places["cache"] / "mamba_kernels"
    places["cache"].mkdir()
    if kind == "a link":
        (tmp_path / "elsewhere").mkdir()
        base.symlink_to(tmp_path / "elsewhere")
    else:
        base.mkdir()
        base.chmod(0o777)
    found = find()
    assert found is not None
    assert found.is_relative_to(places["temporary"])


def test_no_place_at_all_means_no_cache(places: dict[str, Path]) -> None:
    places["cache"].touch()
    places["temporary"].rmdir()
    places["temporary"].touch()
    assert find() is None


def spread(n_tasks: int) -> list[tuple[int, int]]:
    parts: list[tuple[int, int]] = []
    parallel_for(lambda lo, hi: parts.append((lo, hi)), n_tasks)
    return sorted(parts)


@pytest.fixture
def three_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_every_task_runs_once() -> None:
    assert spread(0) == [(0, 0)]
    assert spread(1) == [(0, 1)]
    assert spread(2) == [(0, 1), (1, 2)]
    assert spread(8) == [(0, 2), (2, 5), (5, 8)]


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_in_any_share_is_raised_after_all_have_ended(failing: int) -> None:
    ended: list[int] = []

    def share(lo: int, hi: int) -> None:
        if lo == failing:
            raise ArithmeticError(f"share {lo}")
        ended.append(hi)

    with pytest.raises(ArithmeticError, match=f"share {failing}"):
        parallel_for(share, 3)
    assert len(ended) == 2


@pytest.mark.usefixtures("three_threads")
def test_many_callers_at_once() -> None:
    found: list[list[tuple[int, int]]] = []
    callers = [threading.Thread(target=lambda: found.append(spread(30))) for _ in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert found == [[(0, 10), (10, 20), (20, 30)]] * 16


FORK = """
import os, sys
import torch
from mamba_kernels import selective_scan

torch.set_num_threads(2)
x, A, B = torch.rand(1, 50, 96), -torch.rand(96, 4), torch.rand(1, 50, 4)
before = selective_scan(x, x, A, B, B)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(selective_scan(x, x, A, B, B), before) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
