"""torch.compile(fullgraph=True) over the convolution, the norm and the updates.

Compiled in a fresh process: the run-time type checker of these tests wraps every function, which torch cannot trace;
and so the first use of each operator lies inside a compiled function.
"""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=".*jit.script_method.*")  # torch's own, when inductor is imported
import torch
from mamba_kernels import causal_conv1d, causal_conv1d_update, rms_norm, selective_state_update

torch.manual_seed(0)

def function(x, weight, bias, state, scale, residual, rates):
    y, final = causal_conv1d(x, weight, bias, "silu", initial_state=state, reset=reset, return_final_state=True)
    normed, total = rms_norm(y, scale, 1e-5, residual)
    plain = rms_norm(causal_conv1d(total, weight, reverse=True), scale)
    last, final = causal_conv1d_update(normed[:, -1], final, weight, bias, "silu")
    out, memory = selective_state_update(rates.expand(2, -1, -1), last, last, rates, x[:, 0, :5], x[:, 1, :5], bias)
    return normed, plain, final, out, memory

reset = torch.rand(2, 9) < 0.2
shapes = (2, 9, 6), (6, 4), (6,), (2, 6, 3), (6,), (2, 9, 6), (6, 5)
leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]
compiled = torch.compile(function, backend=sys.argv[1], fullgraph=True)
found, expected = compiled(*leaves), function(*leaves)
torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
found, expected = (torch.autograd.grad(sum(t.square().sum() for t in o), leaves) for o in (found, expected))
torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
print("one graph, the same numbers")
"""


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_to_one_graph_with_gradients(compiler):
    done = subprocess.run([sys.executable, "-c", PROGRAM, compiler], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "one graph, the same numbers\n"
