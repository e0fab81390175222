"""`python -m mamba_kernels`, run as a user would."""

import json
import os
import subprocess
import sys

import torch

from mamba_kernels.__main__ import OPERATORS, describe


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mamba_kernels", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_table_names_every_operator_its_backend_and_the_reason():
    done = run(MAMBA_KERNELS_BACKEND="")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for operator in OPERATORS:
        (line,) = [line for line in lines if line.startswith(f"{operator} ") and " cpu " in line]
        assert "numba" in line
        assert "fastest on the CPU" in line
    assert any(line.startswith("triton: ") for line in lines)
    assert f"torch {torch.__version__.split('+')[0]}" in done.stdout
    assert any(line.startswith("compiled kernels: ") for line in lines)


def test_json_obeys_the_environment_variable():
    done = run("--json", MAMBA_KERNELS_BACKEND="torch")
    facts = json.loads(done.stdout)
    choices = [choice for choice in facts["choices"] if choice["device"] == "cpu"]
    assert [choice["operator"] for choice in choices] == list(OPERATORS)
    assert {(c["backend"], c["reason"]) for c in choices} == {("torch", "asked for by MAMBA_KERNELS_BACKEND")}


def test_a_backend_that_cannot_run_is_reported_not_raised():
    facts = json.loads(run("--json", MAMBA_KERNELS_BACKEND="triton").stdout)
    assert facts["choices"][0]["backend"] is None
    assert "'triton' asked for in the environment variable MAMBA_KERNELS_BACKEND" in facts["choices"][0]["reason"]


def test_threads_are_those_of_torch():
    facts = describe()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["backends"]["reference"] == {"available": True, "problem": None}
    assert set(facts["versions"]) == {"python", "torch", "numba", "llvmlite", "triton", "numpy"}
