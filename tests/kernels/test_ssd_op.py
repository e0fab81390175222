"""SSD on the CPU as a PyTorch operator, its one-token update, and what callers can get wrong."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from mamba_kernels import ssd, ssd_update
from mamba_kernels.ops.ssd.numba_op import ssd_numba


def tensors(batch: int = 2, length: int = 20, heads: int = 4, width: int = 3, groups: int = 2, states: int = 5):
    return {
        "x": torch.randn(batch, length, heads, width),
        "delta": torch.rand(batch, length, heads) * 0.2,
        "A": -torch.rand(heads) * 8,
        "B": torch.randn(batch, length, groups, states),
        "C": torch.randn(batch, length, groups, states),
    }


def operator_arguments(full: bool, dtype: torch.dtype) -> tuple[Any, ...]:
    case = tensors()
    wide = ("delta", "A")
    leaves = [v.to(torch.float32 if k in wide else dtype).requires_grad_() for k, v in case.items()]
    initial = torch.randn(2, 4, 3, 5, requires_grad=True) if full else None
    return (*leaves, initial, torch.rand(2, 20) < 0.1 if full else None, full, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("full", [False, True])
def test_operator_passes_opcheck(full: bool, dtype: torch.dtype) -> None:
    assert ssd_numba  # registers the operators
    torch.library.opcheck(torch.ops.mamba_kernels.ssd.default, operator_arguments(full, dtype))


def test_backward_operator_passes_opcheck() -> None:
    arguments = [a.detach() if isinstance(a, Tensor) else a for a in operator_arguments(True, torch.float32)]
    checkpoints = torch.ops.mamba_kernels.ssd(*arguments)[2]
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    grads = torch.randn(2, 20, 4, 3), torch.randn(2, 4, 3, 5)
    backward = torch.ops.mamba_kernels.ssd_backward.default
    torch.library.opcheck(backward, (*grads, *arguments, checkpoints), test_utils=checks)


COMPILED = """
import sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=".*jit.script_method.*")  # torch's own, when inductor is imported
import torch
from mamba_kernels import ssd, ssd_update

def function(x, delta, A, B, C, D, z, bias, state):
    plain = ssd(x, delta, A, B, C, D)
    y, final = ssd(plain, delta, A, B, C, D, z, bias, True, chunk_size=8, initial_state=state, reset=reset,
                   reverse=True, return_final_state=True)
    return (y, *ssd_update(final, x[:, 0], delta[:, 0], A, B[:, 0], C[:, 0], D))

torch.manual_seed(0)
reset = torch.rand(2, 21) < 0.2
shapes = (2, 21, 4, 3), (2, 21, 4), (4,), (2, 21, 2, 5), (2, 21, 2, 5), (4,), (2, 21, 4, 3), (4,), (2, 4, 3, 5)
leaves = [torch.randn(shape) for shape in shapes]
leaves[2] = -leaves[2].abs()
leaves[1] = leaves[1].abs() * 0.1
leaves = [leaf.requires_grad_() for leaf in leaves]
compiled = torch.compile(function, backend=sys.argv[1], fullgraph=True, dynamic=sys.argv[2] == "dynamic")
found, expected = compiled(*leaves), function(*leaves)
torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
found, expected = (torch.autograd.grad(sum(t.square().sum() for t in o), leaves) for o in (found, expected))
torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
print("one graph, the same numbers")
"""


@pytest.mark.parametrize(
    ("compiler", "shapes"),
    [
        pytest.param("aot_eager", "static", marks=pytest.mark.slow),
        pytest.param("aot_eager", "dynamic", marks=pytest.mark.slow),
        pytest.param("inductor", "static", marks=pytest.mark.slow),
        pytest.param("inductor", "dynamic", marks=pytest.mark.slow),
    ],
)
def test_compiles_to_one_graph_with_gradients(compiler: str, shapes: str) -> None:
    """In a fresh process: torch cannot trace the run-time type checker that wraps every function in these tests."""
    command = [sys.executable, "-c", COMPILED, compiler, shapes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "one graph, the same numbers\n"


@pytest.mark.parametrize("backend", ["reference", "torch", "numba"])
def test_update_has_gradients_and_leaves_the_state_alone(backend: str) -> None:
    case = {k: v[:, 0] if v.dim() > 1 else v for k, v in tensors().items()}
    state = torch.randn(2, 4, 3, 5)
    kept = state.clone()
    y, new = ssd_update(state, **case, delta_softplus=True, backend=backend)
    assert torch.equal(state, kept)
    assert (y.shape, new.shape) == ((2, 4, 3), (2, 4, 3, 5))
    leaves = [t.double().requires_grad_() for t in (state, *case.values())]
    assert torch.autograd.gradcheck(lambda *t: ssd_update(*t, delta_softplus=True), leaves)


def test_update_keeps_the_dtypes_of_token_and_state() -> None:
    case = {k: v[:, 0].bfloat16() if v.dim() > 1 else v for k, v in tensors().items()}
    y, new = ssd_update(torch.randn(2, 4, 3, 5), **case)
    assert (y.dtype, new.dtype) == (torch.bfloat16, torch.float32)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.randn(2, 20, 12)}, ValueError, r"x must be \(batch, length, heads, .*found shape \(2, 20, 12\)"),
    ({"delta": torch.randn(2, 20, 1)}, ValueError, r"delta must have shape \(2, 20, 4\), found \(2, 20, 1\)"),
    ({"A": torch.randn(4, 5)}, ValueError, r"A must have shape \(4,\), found \(4, 5\)"),
    ({"B": torch.randn(2, 20, 5)}, ValueError, r"B must be \(2, 20, groups, states\), found shape \(2, 20, 5\)"),
    ({"B": torch.randn(2, 20, 3, 5)}, ValueError, "B has 3 groups, which do not divide 4 heads"),
    ({"C": torch.randn(2, 20, 1, 5)}, ValueError, r"C must have shape \(2, 20, 2, 5\), found \(2, 20, 1, 5\)"),
    ({"D": torch.randn(3)}, ValueError, r"D must have shape \(4,\), found \(3,\)"),
    ({"D": torch.randn(4, 4)}, ValueError, r"D must have shape \(4, 3\), found \(4, 4\)"),
    ({"z": torch.randn(2, 20, 4)}, ValueError, r"z must have shape \(2, 20, 4, 3\)"),
    ({"initial_state": torch.randn(2, 4, 5, 3)}, ValueError, r"initial_state must have shape \(2, 4, 3, 5\)"),
    ({"reset": torch.zeros(2, 20)}, TypeError, "reset must be bool"),
    ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1, found 0"),
    ({"A": torch.zeros(4, dtype=torch.complex64)}, TypeError, "A must be of a real floating dtype"),
    ({"backend": "cuda"}, ValueError, "unknown backend 'cuda'"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[message[:30] for _, _, message in BAD])
def test_what_a_caller_gets_wrong(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ssd(**{**tensors(), **change})


BAD_STEP: list[tuple[dict[str, Any], str]] = [
    ({"state": torch.zeros(2, 4, 3)}, r"state must be \(batch, heads, channels, states\), found \(2, 4, 3\)"),
    ({"x": torch.zeros(2, 12)}, r"x must have shape \(2, 4, 3\), found \(2, 12\)"),
    ({"B": torch.zeros(2, 5)}, r"B must be \(2, groups, 5\) with groups that divide 4 heads, found shape \(2, 5\)"),
    ({"D": torch.zeros(5)}, r"D must have shape \(4,\), found \(5,\)"),
]


@pytest.mark.parametrize(("change", "message"), BAD_STEP, ids=[message[:20] for _, message in BAD_STEP])
def test_what_a_caller_of_the_update_gets_wrong(change: dict[str, Any], message: str) -> None:
    case = {k: v[:, 0] if v.dim() > 1 else v for k, v in tensors().items()}
    with pytest.raises(ValueError, match=message):
        ssd_update(**{"state": torch.zeros(2, 4, 3, 5), **case, **change})
