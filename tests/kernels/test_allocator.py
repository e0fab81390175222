"""Reuse of freed memory, seen by the page faults that it saves."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from mamba_kernels.cpu import allocator

def faults(values):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        several = [torch.zeros(values) for _ in range(2)]
        del several
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

values = int(sys.argv[2])
without = faults(values)
agreed = getattr(allocator, sys.argv[1])()
faults(values)
print(agreed, without, faults(values))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
@pytest.mark.parametrize(
    ("ask", "values", "reused"),
    [
        ("keep_freed_memory", 12_000_000, True),
        ("reuse_small_blocks", 4_000_000, True),
        ("reuse_small_blocks", 12_000_000, False),
    ],
)
def test_freed_memory_is_used_again(ask: str, values: int, reused: bool) -> None:
    command = [sys.executable, "-c", PROGRAM, ask, str(values)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    agreed, without, with_it = done.stdout.split()
    assert agreed == "True"
    assert int(without) > 20 * values * 2 * 4 // 2**21  # even with pages of 2 MiB, each is faulted in each time
    assert (10 * int(with_it) < int(without)) == reused, done.stdout
