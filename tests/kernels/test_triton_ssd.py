"""The Triton SSD against the sequential float64 reference: output, final state, every gradient; and its update."""

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import operator_cases
import pytest
import torch
from operator_cases import SSDCase, cast, errors, flags, make, surrounded
from torch import Tensor

from mamba_kernels import ssd, ssd_update

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("poisoned_memory")
differentiate = partial(operator_cases.differentiate, ssd)


@dataclass(frozen=True, kw_only=True)
class Case(SSDCase):
    """Smaller by default: the interpreter takes its time."""

    length: int = 21
    width: int = 5
    states: int = 3


def check(case: Case, device: torch.device, tolerance: float = 1e-5, dtype: torch.dtype = torch.float32) -> None:
    operator_cases.check(ssd, case, "triton", device, tolerance, dtype)


def drawn(count: int, seed: int) -> list[Case]:
    """Cases that mix every option."""
    draw = Random(seed)
    cases = []
    for _ in range(count):
        chunk = draw.choice([1, 7, 16, 30, 64, 128])
        sizes = {
            "batch": draw.choice([1, 1, 2]),
            "length": draw.choice([1, 2, 5, 15, 16, 17, 31, 33, 47] if chunk < 64 else [63, 65, 97, 129, 150]),
            "groups": draw.choice([1, 1, 2, 3]),
            "each": draw.choice([1, 2, 3]),
            "width": draw.choice([1, 2, 3, 8, 16, 20, 31, 33]),
            "states": draw.choice([1, 2, 3, 5, 8, 13, 16, 17, 24, 31, 48, 64, 100, 128, 200, 256]),
        }
        cases.append(Case(chunk=chunk, **sizes, **flags(draw)))
    return cases


FEW = [
    Case(length=1, each=1, width=1, states=1),
    Case(length=16, gate=False, skip=False, bias=False, softplus=False, initial=False),
    Case(length=17, reset=True),
    Case(length=17, reset=True, reverse=True),
    Case(batch=2, length=33, groups=2, each=1, reverse=True),
    Case(length=9, each=1, states=256),
    Case(length=19, each=3, width=33, states=17, reset=True),
    Case(length=70, each=1, chunk=64),  # two tiles a chunk, two chunks
    Case(length=75, each=1, chunk=128, reset=True, reverse=True),
    Case(length=33, damping=2000.0),
    Case(batch=3, length=5, each=1, width=2),
]
MANY = drawn(80, 3)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_agrees_with_float64(case: Case, triton_device: torch.device) -> None:
    check(case, triton_device)


@pytest.mark.slow
@pytest.mark.parametrize("case", MANY, ids=str)
def test_agrees_with_float64_on_many_shapes(case: Case, triton_device: torch.device) -> None:
    check(case, triton_device)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_dtypes_are_read_as_they_are_and_computed_in_float32(
    dtype: torch.dtype, triton_device: torch.device
) -> None:
    check(Case(length=18, each=1, reverse=True), triton_device, 2**-6, dtype)


def test_products_of_bfloat16(triton_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does with bfloat16: operands of products are rounded, sums are not."""
    from mamba_kernels.ops.ssd import triton_launch

    if triton_device.type == "cpu":
        import triton.language as tl
        from triton.runtime import interpreter

        plain = interpreter.InterpreterBuilder.create_dot

        def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
            """The interpreter keeps bfloat16 as 16-bit integers, and would multiply those."""
            return plain(self, *(interpreter.TensorHandle(_float32(t.data), tl.float32) for t in (a, b)), *rest)

        monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
        monkeypatch.setattr(triton_launch, "precision", lambda *_: (torch.bfloat16, "ieee"))
    tensors, options = make(Case(length=70, each=1, chunk=128, width=16, states=16), torch.bfloat16)
    expected = differentiate(cast(tensors), options, "reference")
    worst = errors(differentiate(tensors, options, "triton", triton_device), expected)
    assert 1e-4 < worst["final_state"] < 2**-6  # rounded indeed
    assert max(worst.values()) < 2**-5, worst


def _float32(bits: Any) -> Any:
    assert bits.dtype == "uint16"
    return (bits.astype("uint32") << 16).view("float32")


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_by_finite_differences(reverse: bool, triton_device: torch.device) -> None:
    case = Case(length=17, each=1, width=2, states=2, reset=True, reverse=reverse)
    tensors, options = make(case, torch.float64)
    names = list(tensors)
    leaves = [v.to(triton_device).requires_grad_() for v in tensors.values() if v is not None]
    settings: dict[str, Any] = {k: v.to(triton_device) if isinstance(v, Tensor) else v for k, v in options.items()}

    def run(*values: Tensor) -> Any:
        arguments = dict(zip(names, values, strict=True))
        return ssd(**arguments, **settings, return_final_state=True, backend="triton")

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("case", [Case(batch=2, groups=2, each=1), Case(reverse=True)], ids=str)
def test_strides_do_not_matter_and_neighbouring_memory_is_not_read(case: Case, triton_device: torch.device) -> None:
    tensors, options = make(case)
    plain = differentiate(tensors, options, "triton", triton_device)
    spread = {k: None if v is None else surrounded(v.to(triton_device)).requires_grad_() for k, v in tensors.items()}
    y, state = ssd(**spread, **options, return_final_state=True, backend="triton")
    torch.testing.assert_close(y.detach().cpu(), plain["y"], rtol=1e-5, atol=1e-6)  # torch's softplus rounds otherwise
    torch.testing.assert_close(state.detach().cpu(), plain["final_state"], rtol=1e-5, atol=1e-6)
    y.sum().backward()  # the gradient of a sum is expanded: all its strides are zero
    for name, leaf in spread.items():
        assert leaf is not None
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all(), name


def test_bitwise_the_same_in_every_run_and_however_heads_are_split(
    triton_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mamba_kernels.ops.ssd import triton_launch

    tensors, options = make(Case(length=9, each=3))
    first, second = (differentiate(tensors, options, "triton", triton_device) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    monkeypatch.setattr(triton_launch, "BUSY", 1)  # one program for all heads of a group, instead of one for each
    assert max(errors(differentiate(tensors, options, "triton", triton_device), cast(first)).values()) < 1e-6


@pytest.mark.parametrize("reverse", [False, True])
def test_a_nan_stays_in_its_chunk_if_a_reset_follows(reverse: bool, triton_device: torch.device) -> None:
    tensors, options = make(Case(length=50, each=1))
    assert tensors["x"] is not None
    tensors["x"][0, 5 if not reverse else 44] = float("nan")
    reset = torch.zeros(1, 50, dtype=torch.bool)
    reset[0, 10 if not reverse else 39] = True
    found = differentiate(tensors, {**options, "reset": reset, "reverse": reverse}, "triton", triton_device)
    other = slice(16, None) if not reverse else slice(None, 34)
    assert found["y"].isnan().any()
    assert not found["y"][0, other].isnan().any()
    assert not found["final_state"].isnan().any()
    assert not found["dx"][0, other].isnan().any()


@pytest.mark.parametrize("name", ["x", "delta", "A", "B", "C", "initial_state"])
def test_nan_is_never_hidden(name: str, triton_device: torch.device) -> None:
    tensors, options = make(Case(length=17, each=1, width=1))
    target = tensors[name]
    assert target is not None
    target.view(-1)[0] = float("nan")
    placed = {k: None if v is None else v.to(triton_device) for k, v in tensors.items()}
    assert ssd(**placed, **options, backend="triton")[0, 0].isnan().all()


def test_gradient_of_only_one_output(triton_device: torch.device) -> None:
    tensors, options = make(Case(each=1))
    for chosen in (0, 1):
        grads = []
        for backend in ("torch", "triton"):
            leaves = {k: None if v is None else v.to(triton_device).requires_grad_() for k, v in tensors.items()}
            outputs = ssd(**leaves, **options, return_final_state=True, backend=backend)
            outputs[chosen].square().sum().backward()
            assert leaves["x"] is not None
            grads.append(leaves["x"].grad)
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk", [None, 1, 40, 1000])
def test_any_chunk_size_gives_the_same(chunk: int | None, triton_device: torch.device) -> None:
    tensors, options = make(Case(length=45, each=1))
    placed = {k: None if v is None else v.to(triton_device) for k, v in tensors.items()}
    expected = ssd(**placed, **options, backend="torch")
    found = ssd(**placed, **{**options, "chunk_size": chunk}, backend="triton")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1, 5, 16, 64, 128])
@pytest.mark.parametrize("states", [1, 16, 17, 64, 256, 1000])
@pytest.mark.parametrize("operands", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_shapes_are_powers_of_two_that_products_take(
    width: int, states: int, operands: torch.dtype, triton_device: torch.device
) -> None:
    from mamba_kernels.ops.ssd.triton_launch import shape_of

    for chunk_size, length in ((1, 1), (100, 1000), (256, 40), (10**6, 10**6)):
        shape = shape_of(chunk_size, length, width, states, operands, 32 if width > 16 else 64)
        assert all(size >= 16 and size & (size - 1) == 0 for size in shape)
        assert shape[0] % shape[1] == 0
        assert shape[0] < 2 * max(16, min(chunk_size, length, 256))


def test_empty_sequences(triton_device: torch.device) -> None:
    x, B = torch.zeros(2, 0, 2, 3, device=triton_device), torch.zeros(2, 0, 1, 4, device=triton_device)
    rates = torch.zeros(2, device=triton_device)
    y, state = ssd(x, x[..., 0], rates, B, B, return_final_state=True, backend="triton")
    assert y.shape == (2, 0, 2, 3)
    assert torch.equal(state, torch.zeros(2, 2, 3, 4, device=triton_device))


def test_operators_pass_opcheck(triton_device: torch.device) -> None:
    tensors, options = make(Case(length=3, each=1, width=2, states=2, reset=True))
    leaves = {k: v.to(triton_device).requires_grad_() for k, v in tensors.items() if v is not None}
    inputs = [leaves[k] for k in ("x", "delta", "A", "B", "C")]
    assert ssd(*(t.detach() for t in inputs), backend="triton").shape == (1, 3, 1, 2)  # registers them
    ops = torch.ops.mamba_kernels
    arguments = (*inputs, options["reset"].to(triton_device), True, 16, leaves["initial_state"])
    torch.library.opcheck(ops.ssd_triton.default, arguments)
    arguments = tuple(a.detach() if isinstance(a, Tensor) else a for a in arguments)
    y, state = ops.ssd_triton(*arguments)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    backward = (torch.ones_like(y), torch.ones_like(state), *arguments)
    torch.library.opcheck(ops.ssd_triton_backward.default, backward, test_utils=checks)


UPDATES = [
    (batch, groups, each, width, states, full)
    for batch, groups, each, width in ((1, 1, 1, 1), (2, 1, 3, 33), (3, 2, 2, 5))
    for states in (1, 3, 16, 17, 128, 256)
    for full in (False, True)
]


@pytest.mark.parametrize(("batch", "groups", "each", "width", "states", "full"), UPDATES)
def test_update(
    batch: int, groups: int, each: int, width: int, states: int, full: bool, triton_device: torch.device
) -> None:
    heads, generator = groups * each, torch.Generator().manual_seed(0)
    row, parameter = (batch, heads, width), (batch, groups, states)
    shapes = {"state": (*row, states), "x": row, "delta": row[:2], "A": (heads,), "B": parameter, "C": parameter}
    shapes |= {"D": (heads, width) if each > 1 else (heads,), "z": row, "delta_bias": (heads,)} if full else {}
    tensors = {k: torch.randn(v, generator=generator) for k, v in shapes.items()}
    tensors["A"] = -tensors["A"].abs()
    expected = ssd_update(**{k: v.double() for k, v in tensors.items()}, delta_softplus=full, backend="reference")
    placed: dict[str, Any] = {k: v.to(triton_device) for k, v in tensors.items()}
    found = ssd_update(**placed, delta_softplus=full, backend="triton")
    torch.testing.assert_close([t.cpu() for t in found], [e.float() for e in expected], rtol=1e-5, atol=1e-5)


def test_update_with_a_gradient_runs_in_torch(triton_device: torch.device) -> None:
    x = torch.randn(1, 2, 3, device=triton_device, requires_grad=True)
    state, ones = torch.zeros(1, 2, 3, 4, device=triton_device), torch.ones(1, 1, 4, device=triton_device)
    steps, rates = torch.ones(1, 2, device=triton_device), -torch.ones(2, device=triton_device)
    y, _ = ssd_update(state, x, steps, rates, ones, ones, backend="triton")
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, torch.full_like(x, 4.0))
