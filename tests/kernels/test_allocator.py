"""Reuse of freed memory, seen by the page faults that it saves."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from mamba_kernels.cpu.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        several = [torch.zeros(12_000_000) for _ in range(2)]
        del several
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults()
if keep_freed_memory():
    faults()
    assert faults() * 10 < without, (faults(), without)
    print("fewer")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("", "fewer\n")
