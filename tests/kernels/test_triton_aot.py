"""Every Triton kernel compiles without a GPU for five targets, spills no register, and fits their shared memory.

In a process of its own: in this one Triton may be interpreting.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "sm_120", "gfx942"])
def test_no_kernel_spills_or_needs_too_much_shared_memory(target: str) -> None:
    command = [sys.executable, "-m", "benchmarks.aot", "--json", "--target", target]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert done.returncode == 0
    assert len(found["rows"]) == 59
    if target == "sm_90":
        counts = {row["kernel"]: row.get("instructions", 0) for row in found["rows"]}
        assert counts["forward, N = 16, bare"] < 170
        assert counts["forward, N = 16, gate, skip, bias, softplus"] < 170
        assert counts["backward, refine, N = 16, bare"] + counts["backward, walk, N = 16, bare"] < 600


def test_the_check_has_power() -> None:
    """A kernel that spills, and one that takes too much shared memory, are named; a loop is found and counted."""
    program = r"""
from benchmarks.aot import innermost_loop, problems
row = {"kernel": "k", "target": "sm_120", "spills": 1, "stack": 8, "shared": 100 * 1024}
print(len(problems([row])), len(problems([{**row, "spills": 0, "stack": 0, "shared": 1024}])))
code = '''
.L_x_0:
        /*0010*/  FADD R1, R1, R2 ;
.L_x_1:
        /*0020*/  MUFU.EX2 R1, R1 ;
        /*0030*/  @P0 BRA `(.L_x_1) ;
        /*0040*/  @P1 BRA `(.L_x_0) ;
'''
print(innermost_loop(code))
print(innermost_loop(".LBB0_1:\n  v_exp_f32_e32 v0, v1\n  s_cbranch_scc1 .LBB0_1\n"))
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2 0", "['MUFU', 'BRA']", "['v_exp_f32_e32', 's_cbranch_scc1']"]
