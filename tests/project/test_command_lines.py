"""Help, completion and argument errors answer at once, because they import none of the heavy libraries."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = {"torch", "pandas", "numpy", "lightning", "numba", "pyarrow", "sklearn", "matplotlib", "pydantic"}
GENOMAMBA_COMMANDS = ["pretrain", "finetune", "classify", "score", "variants", "reproduce"]


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m program`, printing every import to stderr."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def heavy_imports(stderr: str) -> set[str]:
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines} & HEAVY


@pytest.mark.parametrize("program", ["genomamba", "tsmamba"])
def test_help_imports_nothing_heavy(program: str) -> None:
    done = run(program, "--help")
    assert done.returncode == 0
    assert "Usage: " + program in done.stdout
    assert heavy_imports(done.stderr) == set()


@pytest.mark.parametrize("command", GENOMAMBA_COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    done = run("genomamba", command, "--help")
    assert done.returncode == 0
    assert f"Usage: genomamba {command}" in done.stdout
    assert heavy_imports(done.stderr) == set()


@pytest.mark.parametrize("arguments", [["pretrain"], ["classify", "--no-such-option"], ["no-such-command"]])
def test_an_argument_error_imports_nothing_heavy(arguments: list[str]) -> None:
    done = run("genomamba", *arguments)
    assert done.returncode == 2
    assert "genomamba: error: " in done.stderr
    assert heavy_imports(done.stderr) == set()


def test_completion_imports_nothing_heavy() -> None:
    done = run("genomamba", _GENOMAMBA_COMPLETE="bash_complete", COMP_WORDS="genomamba pre", COMP_CWORD="1")
    assert "pretrain" in done.stdout
    assert heavy_imports(done.stderr) == set()


LIGHT = {"click", "genomamba", "tsmamba", "mamba_configs", "mamba_data_prep", "mamba_training"}
"""What a command line may import before it works, besides Python's own modules."""


@pytest.mark.parametrize("program", ["genomamba", "tsmamba"])
def test_help_imports_little_besides_python_itself(program: str) -> None:
    """What is imported decides how long help takes, on any machine; a limit in seconds would measure the machine."""
    done = run(program, "--help", PYTHONNOUSERSITE="1")
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    modules = {line.rpartition("|")[2].strip() for line in lines} - set(_imported_at_start())
    others = {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names)
    assert others <= LIGHT, others - LIGHT
    assert len(modules) < 200, f"{len(modules)} modules, most of them Python's own"


def _imported_at_start() -> list[str]:
    """The modules that Python imports whatever it runs, those of its `.pth` files among them."""
    command = [sys.executable, "-X", "importtime", "-c", "pass"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]


def test_importing_the_kernels_loads_no_compiler() -> None:
    """Numba and Triton cost seconds and may be missing: they are imported when a kernel first runs."""
    code = "import sys, mamba_kernels; print({'numba', 'triton'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
