"""torch.compile(fullgraph=True) over the Triton operators.

Compiled in a fresh process: the run-time type checker of these tests wraps every function, which torch cannot trace.
Without a GPU the kernels are interpreted there.
"""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

PROGRAM = """
import torch
from mamba_kernels import causal_conv1d, rms_norm, selective_scan

def function(x, delta, A, B, C, state, weight, scale):
    y = causal_conv1d(x, weight, None, "silu", backend="triton")
    y = rms_norm(y, scale, 1e-5, x, backend="triton")[0]
    options = {"reverse": True, "return_final_state": True, "backend": "triton"}
    return selective_scan(y, delta, A, B, C, initial_state=state, **options)

torch.manual_seed(0)
shapes = (1, 5, 4), (1, 5, 4), (4, 2), (1, 5, 2), (1, 5, 2), (1, 4, 2), (4, 3), (4,)
leaves = [torch.randn(shape) for shape in shapes]
leaves[1], leaves[2] = leaves[1].abs() * 0.1, -leaves[2].abs()
leaves = [leaf.requires_grad_() for leaf in leaves]
compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
found, expected = compiled(*leaves), function(*leaves)
torch.testing.assert_close(found, expected)
found, expected = (torch.autograd.grad(sum(t.square().sum() for t in o), leaves) for o in (found, expected))
torch.testing.assert_close(found, expected)
print("one graph, the same numbers")
"""


def test_compiles_to_one_graph_with_gradients() -> None:
    program, environment = PROGRAM, {**os.environ, "TRITON_INTERPRET": "1"}
    if torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "0"
        program = "import torch; torch.set_default_device('cuda')\n" + PROGRAM
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "one graph, the same numbers"
