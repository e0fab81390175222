"""The CPU scan as a PyTorch operator, its low-level pair, and what callers can get wrong."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from mamba_kernels import available_backends, selective_scan
from mamba_kernels.dispatch import choose_backend, resolve_backend
from mamba_kernels.ops.selective_scan.numba_kernels import ScanInputs, scan_backward, scan_forward_saving
from mamba_kernels.ops.selective_scan.numba_op import selective_scan_numba

CPU = torch.device("cpu")


def tensors(batch: int = 2, length: int = 40, channels: int = 33, states: int = 4) -> dict[str, Tensor]:
    rows = (batch, length, channels)
    return {
        "x": torch.randn(rows),
        "delta": torch.rand(rows) * 0.2,
        "A": -torch.rand(channels, states) * 8,
        "B": torch.randn(batch, length, states),
        "C": torch.randn(batch, length, states),
    }


def optional(case: dict[str, Tensor]) -> dict[str, Tensor]:
    batch, length, channels = case["x"].shape
    return {
        "D": torch.randn(channels),
        "z": torch.randn(batch, length, channels),
        "delta_bias": torch.randn(channels),
        "initial_state": torch.randn(batch, channels, case["A"].shape[1]),
    }


def operator_arguments(full: bool, dtype: torch.dtype) -> tuple[Any, ...]:
    case = tensors()
    more = optional(case)
    leaves = {k: v.to(dtype).requires_grad_() for k, v in {**case, **more}.items()}
    reset = torch.rand(2, 40) < 0.1
    rest = [leaves[k] if full else None for k in ("D", "z", "delta_bias")]
    initial = leaves["initial_state"] if full else None
    inputs = [leaves[k] for k in ("x", "delta", "A", "B", "C")]
    return (*inputs, *rest, reset if full else None, full, full, initial, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("full", [False, True])
def test_operator_passes_opcheck(full: bool, dtype: torch.dtype) -> None:
    assert selective_scan_numba  # registers the operators
    arguments = operator_arguments(full, dtype)
    torch.library.opcheck(torch.ops.mamba_kernels.selective_scan.default, arguments)


def test_backward_operator_passes_opcheck() -> None:
    case = tensors()
    inputs = (*case.values(), None, None, None, None, False, False)
    checkpoints = scan_forward_saving(ScanInputs(*inputs))[2]
    arguments = (torch.randn(2, 40, 33), torch.randn(2, 33, 4), *inputs, checkpoints)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.mamba_kernels.selective_scan_backward.default, arguments, test_utils=checks)


COMPILED = """
import sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=".*jit.script_method.*")  # torch's own, when inductor is imported
import torch
from mamba_kernels import selective_scan

def function(x, delta, A, B, C, D, z, bias, state):
    plain = selective_scan(x, delta, A, B, C, D)
    y, final = selective_scan(plain, delta, A, B, C, D, z, bias, True, initial_state=state, reset=reset, reverse=True,
                              return_final_state=True)
    return y, final

torch.manual_seed(0)
reset = torch.rand(2, 41) < 0.2
shapes = (2, 41, 33), (2, 41, 33), (33, 4), (2, 41, 4), (2, 41, 4), (33,), (2, 41, 33), (33,), (2, 33, 4)
leaves = [torch.randn(shape) for shape in shapes]
leaves[2] = -leaves[2].abs()
leaves[1] = leaves[1].abs() * 0.1
leaves = [leaf.requires_grad_() for leaf in leaves]
compiled = torch.compile(function, backend=sys.argv[1], fullgraph=True, dynamic=sys.argv[2] == "dynamic")
found, expected = compiled(*leaves), function(*leaves)
torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
found, expected = (torch.autograd.grad(sum(t.square().sum() for t in o), leaves) for o in (found, expected))
torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
with torch.no_grad():
    torch.testing.assert_close(compiled(*leaves), function(*leaves), atol=1e-5, rtol=1e-5)
print("one graph, the same numbers")
"""


@pytest.mark.parametrize(
    ("compiler", "shapes"),
    [
        pytest.param("aot_eager", "static", marks=pytest.mark.slow),
        ("aot_eager", "dynamic"),
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


def test_operator_without_checkpoints_cannot_be_differentiated() -> None:
    arguments = operator_arguments(False, torch.float32)
    with pytest.raises(RuntimeError, match="save=False"):
        torch.ops.mamba_kernels.selective_scan(*arguments[:-1], False)


def test_backward_writes_the_output_again_and_into_given_tensors() -> None:
    case = tensors(length=300)
    more = optional(case)
    initial = more.pop("initial_state")
    inputs = ScanInputs(**case, **more, delta_softplus=True, reverse=True)
    y, state, checkpoints = scan_forward_saving(inputs, initial)
    unsaved = scan_forward_saving(inputs, initial, save=False)
    assert torch.equal(unsaved[0], y)
    assert torch.equal(unsaved[1], state)
    assert unsaved[2].numel() == 0
    grads = torch.randn_like(y), torch.randn_like(state)
    plain = scan_backward(*grads, inputs, checkpoints)
    assert plain.y is None
    halves = torch.full((2, 300, 66), float("nan"))
    again = scan_backward(*grads, inputs, checkpoints, return_y=True, out_x=halves[..., :33], out_z=halves[..., 33:])
    assert again.y is not None
    assert plain.z is not None
    assert torch.equal(again.y, y)
    assert torch.equal(halves, torch.cat([plain.x, plain.z], dim=-1))
    for first, second in zip(plain[1:6], again[1:6], strict=True):
        assert first is not None
        assert second is not None
        assert torch.equal(first, second)


def test_no_gradient_no_checkpoints() -> None:
    case = tensors()
    with torch.no_grad():
        leaves = {k: v.requires_grad_() for k, v in case.items()}
        assert not selective_scan(**leaves).requires_grad


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.randn(40, 33)}, ValueError, r"x must be \(batch, length, channels\), found shape \(40, 33\)"),
    ({"delta": torch.randn(2, 40, 1)}, ValueError, r"delta must have shape \(2, 40, 33\), found \(2, 40, 1\)"),
    ({"A": torch.randn(4, 33)}, ValueError, r"A must be \(33, states\), found shape \(4, 33\)"),
    ({"A": torch.randn(33, 0)}, ValueError, r"A must be \(33, states\)"),
    ({"B": torch.randn(2, 40, 5)}, ValueError, r"B must have shape \(2, 40, 4\)"),
    ({"B": torch.randn(2, 40, 2, 4)}, ValueError, "2 groups, which do not divide 33 channels"),
    ({"B": torch.randn(2, 40, 3, 4)}, ValueError, r"C must have shape \(2, 40, 3, 4\), found \(2, 40, 4\)"),
    ({"D": torch.randn(4)}, ValueError, r"D must have shape \(33,\)"),
    ({"z": torch.randn(2, 41, 33)}, ValueError, "z must have shape"),
    ({"delta_bias": torch.randn(33, 1)}, ValueError, "delta_bias must have shape"),
    ({"initial_state": torch.randn(2, 4, 33)}, ValueError, r"initial_state must have shape \(2, 33, 4\)"),
    ({"reset": torch.zeros(2, 40)}, TypeError, "reset must be bool"),
    ({"reset": torch.zeros(2, 39, dtype=torch.bool)}, ValueError, r"reset must have shape \(2, 40\)"),
    ({"x": torch.zeros(2, 40, 33, dtype=torch.int64)}, TypeError, "x must be of a real floating dtype"),
    ({"A": torch.zeros(33, 4, dtype=torch.complex64)}, TypeError, "A must be of a real floating dtype"),
    ({"B": torch.randn(2, 40, 4, device="meta")}, ValueError, "B is on meta"),
    ({"backend": "cuda"}, ValueError, "unknown backend 'cuda'.*accepted: reference, torch, numba, triton"),
    ({"backend": "triton"}, ValueError, "'triton' asked for.*TRITON_INTERPRET=1 interprets them"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[message[:30] for _, _, message in BAD])
def test_what_a_caller_gets_wrong(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        selective_scan(**{**tensors(), **change})


def test_numba_refuses_what_it_cannot_compute() -> None:
    wide = {k: v.double() for k, v in tensors().items()}
    with pytest.raises(ValueError, match=r"takes float32 and bfloat16, not torch\.float64"):
        selective_scan(**wide, backend="numba")
    with pytest.raises(ValueError, match="runs on the CPU"):
        resolve_backend("selective_scan", "numba", torch.device("cuda"))


def test_backend_by_device_dtype_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAMBA_KERNELS_BACKEND", raising=False)
    assert available_backends() == ("reference", "torch", "numba")
    assert resolve_backend("selective_scan", None, CPU) == "numba"
    assert resolve_backend("selective_scan", None, CPU, torch.float64) == "torch"
    assert resolve_backend("selective_scan", None, torch.device("cuda")) == "torch"
    monkeypatch.setenv("MAMBA_KERNELS_BACKEND", "reference")
    assert choose_backend("selective_scan", None, CPU).reason == "asked for by MAMBA_KERNELS_BACKEND"
    assert resolve_backend("selective_scan", "torch", CPU) == "torch"
    monkeypatch.setenv("MAMBA_KERNELS_BACKEND", "numba")
    assert resolve_backend("selective_scan", None, CPU, torch.float64) == "torch"
    monkeypatch.setenv("MAMBA_KERNELS_BACKEND", "nonsense")
    with pytest.raises(ValueError, match="'nonsense' in the environment variable MAMBA_KERNELS_BACKEND"):
        resolve_backend("selective_scan", None, CPU)


def test_names_of_functions_survive_the_import_of_their_folders() -> None:
    import mamba_kernels
    import mamba_kernels.ops.selective_scan.interface

    assert mamba_kernels.selective_scan is selective_scan
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mamba_kernels.nonsense
    assert "selective_scan" in dir(mamba_kernels)
