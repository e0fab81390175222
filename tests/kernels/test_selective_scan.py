"""The selective scan of every backend against the sequential float64 reference: output, final state, every gradient."""

from functools import partial
from random import Random
from typing import Any

import operator_cases
import pytest
import torch
from operator_cases import ScanCase as Case
from operator_cases import cast, errors, flags, make
from torch import Tensor

from mamba_kernels import selective_scan
from mamba_kernels.ops.selective_scan.numba_kernels import segment_length

pytestmark = pytest.mark.usefixtures("poisoned_memory")
FAST = ("torch", "numba")
differentiate = partial(operator_cases.differentiate, selective_scan)
check = partial(operator_cases.check, selective_scan)


def drawn(count: int, seed: int, lengths: list[int], channels: list[int], states: list[int]) -> list[Case]:
    """Cases that mix every option."""
    draw = Random(seed)
    cases = []
    for _ in range(count):
        width = draw.choice(channels)
        sizes = {
            "batch": draw.choice([1, 2, 3]),
            "length": draw.choice(lengths),
            "states": draw.choice(states),
            "groups": draw.choice([0, 0, 1, *(g for g in (2, 3, 5) if width % g == 0)]),
        }
        cases.append(Case(channels=width, **sizes, **flags(draw)))
    return cases


PLAIN = [
    Case(length=1, channels=1, states=1),
    Case(length=1, channels=33, states=16, reverse=True),
    Case(length=2, channels=31, states=3, reset=True),
    Case(length=31),
    Case(length=32, channels=32),
    Case(length=64, channels=64, states=16),
    Case(length=65, channels=65, states=1),
    Case(length=255, channels=8, states=16),
    Case(length=256, channels=8, states=16),
    Case(length=257, channels=8, states=16, reset=True),
    Case(length=257, channels=8, states=16, reset=True, reverse=True),
    Case(length=300, channels=33, states=32),
    Case(length=131, channels=40, states=64),
    Case(length=40, channels=200, states=5),
    Case(length=20, channels=560, states=2),
    Case(batch=5, length=17, channels=6, states=7, groups=3),
    Case(batch=2, length=37, channels=96, states=16, groups=2, reverse=True),
    Case(length=50, channels=4, states=4, groups=4),
    Case(length=70, softplus=False, damping=2000.0),
    Case(length=70, channels=48, gate=False, skip=False, bias=False, softplus=False, initial=False),
]
FEW = PLAIN + drawn(
    44, 1, [1, 2, 3, 7, 13, 31, 61, 97], [1, 2, 5, 15, 16, 30, 33, 45, 64, 67], [1, 2, 3, 5, 8, 13, 16, 24]
)
MANY = drawn(
    200,
    2,
    [1, 5, 63, 64, 127, 255, 256, 257, 511, 521],
    [1, 3, 17, 32, 60, 64, 90, 129, 300],
    [1, 4, 11, 16, 33, 64, 128, 256],
)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_agrees_with_float64(case: Case, backend: str) -> None:
    check(case, backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", MANY, ids=str)
def test_agrees_with_float64_on_many_shapes(case: Case, backend: str) -> None:
    check(case, backend)


@pytest.mark.slow
@pytest.mark.parametrize("states", [16, 256])
def test_stays_exact_over_a_long_sequence(states: int) -> None:
    check(Case(length=3001, channels=20, states=states, reset=True), "numba")


@pytest.mark.parametrize("case", [Case(), Case(reset=True, reverse=True, groups=2), Case(length=70)], ids=str)
def test_torch_backend_in_float64(case: Case) -> None:
    tensors, options = make(case)
    wide = cast(tensors)
    expected = differentiate(wide, options, "reference")
    assert max(errors(differentiate(wide, options, "torch"), expected).values()) < 1e-12


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_by_finite_differences(backend: str, reverse: bool) -> None:
    tensors, options = make(Case(batch=2, length=5, channels=4, states=3, groups=2, reset=True, reverse=reverse))
    names = list(tensors)
    leaves = [v.double().requires_grad_() for v in tensors.values() if v is not None]

    def scan(*values: Tensor) -> Any:
        arguments = dict(zip(names, values, strict=True))
        return selective_scan(**arguments, **options, return_final_state=True, backend=backend)

    assert torch.autograd.gradcheck(scan, leaves)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("case", [Case(length=300, channels=45, states=16), Case(groups=2, reverse=True)], ids=str)
def test_bfloat16(case: Case, backend: str) -> None:
    tensors, options = make(case)
    rounded = cast(tensors, torch.bfloat16)
    expected = differentiate(cast(rounded), options, "reference")
    found = differentiate(rounded, options, backend)
    assert found["y"].dtype == torch.bfloat16
    assert found["final_state"].dtype == torch.float32
    assert all(found[f"d{k}"].dtype == torch.bfloat16 for k, v in tensors.items() if v is not None)
    assert max(errors(found, expected).values()) < 1e-2


@pytest.mark.parametrize("narrow", [{"x"}, {"x", "z"}, {"delta", "B"}, {"A", "C", "D", "delta_bias", "initial_state"}])
def test_mixed_dtypes(narrow: set[str]) -> None:
    tensors, options = make(Case(length=40, channels=35))
    mixed = {k: v if v is None or k not in narrow else v.bfloat16() for k, v in tensors.items()}
    expected = differentiate(cast(mixed), options, "reference")
    found = differentiate(mixed, options, "numba")
    for name, tensor in mixed.items():
        assert tensor is not None
        assert found[f"d{name}"].dtype == tensor.dtype
    assert found["y"].dtype == (mixed["x"].dtype if mixed["x"] is not None else None)
    assert max(errors(found, expected).values()) < 1e-2


def test_half_and_double_precision_fall_to_torch() -> None:
    tensors, options = make(Case(length=9))
    for dtype, tolerance in ((torch.float16, 5e-3), (torch.float64, 1e-12)):
        narrow = cast(tensors, dtype)
        expected = selective_scan(**cast(narrow), **options, backend="reference")
        found = selective_scan(**narrow, **options)
        assert found.dtype == dtype
        assert float((found.double() - expected).abs().max() / expected.abs().max()) < tolerance


def strided(tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    """The same values: x and z as halves of one tensor, B and C slices of a projection, delta and A transposed."""
    x, z, B, C, delta, A = (tensors[k] for k in ("x", "z", "B", "C", "delta", "A"))
    assert x is not None
    assert z is not None
    assert B is not None
    assert C is not None
    assert delta is not None
    assert A is not None
    both = torch.cat([x, z], dim=-1)
    projection = torch.cat([torch.randn(*B.shape[:2], 3), B, C], dim=-1)
    N, D = B.shape[-1], x.shape[-1]
    return {
        **tensors,
        "x": both[..., :D],
        "z": both[..., D:],
        "B": projection[..., 3 : 3 + N],
        "C": projection[..., 3 + N :],
        "delta": delta.transpose(1, 2).contiguous().transpose(1, 2),
        "A": A.T.contiguous().T,
    }


@pytest.mark.parametrize("case", [Case(batch=2, length=70, channels=40, reset=True), Case(reverse=True)], ids=str)
def test_strides_do_not_matter(case: Case) -> None:
    tensors, options = make(case)
    leaves = {k: None if v is None else v.requires_grad_() for k, v in strided(tensors).items()}
    y = selective_scan(**leaves, **options, backend="numba")
    y.sum().backward()  # the gradient of a sum is expanded: all its strides are zero
    plain = {k: None if v is None else v.detach().clone().contiguous().requires_grad_() for k, v in tensors.items()}
    expected = selective_scan(**plain, **options, backend="numba")
    expected.backward(torch.ones_like(expected))
    assert torch.equal(y, expected)
    for name, leaf in plain.items():
        other = leaves[name]
        assert leaf is not None
        assert other is not None
        assert leaf.grad is not None
        assert other.grad is not None
        assert torch.equal(other.grad, leaf.grad), name


@pytest.mark.parametrize(
    "case", [Case(batch=2, length=300, channels=200, states=16), Case(groups=4, reset=True)], ids=str
)
def test_bitwise_the_same_in_every_run_and_for_any_number_of_threads(case: Case) -> None:
    tensors, options = make(case)
    runs = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(differentiate(tensors, options, "numba"))
    torch.set_num_threads(1)
    for run in runs[1:]:
        assert all(torch.equal(run[k], runs[0][k]) for k in run)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("name", ["x", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
def test_nan_is_never_hidden(name: str, backend: str) -> None:
    tensors, options = make(Case(length=40, channels=36))
    poisoned = {k: None if v is None else v.clone() for k, v in tensors.items()}
    target = poisoned[name]
    assert target is not None
    target.view(-1)[0] = float("nan")
    y = selective_scan(**poisoned, **options, backend=backend)
    assert y[0, :, 0].isnan().any()
    if name not in ("B", "C"):
        assert not y[0, :, 1:].isnan().any()
    assert y[0, 0, 0].isnan()


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("reverse", [False, True])
def test_reset_keeps_a_nan_in_its_own_sequence(backend: str, reverse: bool) -> None:
    tensors, options = make(Case(length=80, channels=3))
    assert tensors["x"] is not None
    tensors["x"][0, 20 if not reverse else 60] = float("nan")
    reset = torch.zeros(1, 80, dtype=torch.bool)
    reset[0, 40 if not reverse else 39] = True
    found = differentiate(tensors, {**options, "reset": reset, "reverse": reverse}, backend)
    other = slice(40, None) if not reverse else slice(None, 40)
    assert found["y"].isnan().any()
    assert not found["y"][0, other].isnan().any()
    assert not found["final_state"].isnan().any()
    assert not found["dx"][0, other].isnan().any()


@pytest.mark.parametrize("backend", FAST)
def test_extreme_steps_neither_overflow_nor_linger(backend: str) -> None:
    tensors, options = make(Case(length=70, softplus=False, bias=False))
    assert tensors["delta"] is not None
    tensors["delta"][0, ::7] = 1e4
    tensors["delta"][0, 3] = 0.0
    expected = selective_scan(**cast(tensors), **options, backend="reference")
    found = selective_scan(**tensors, **options, backend=backend)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-6


@pytest.mark.parametrize("backend", FAST)
def test_unstable_systems_grow_as_they_should(backend: str) -> None:
    tensors, options = make(Case(length=6, channels=2, states=1, softplus=False, bias=False, gate=False))
    tensors |= {"A": torch.tensor([[50.0], [1.0]]), "delta": torch.ones(1, 6, 2)}
    y = selective_scan(**tensors, **options, backend=backend)
    assert y[0, -1, 0].abs() == float("inf")
    assert y[0, :, 1].isfinite().all()


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 4, 3)])
def test_nothing_to_scan(shape: tuple[int, int, int], backend: str) -> None:
    x, A, B = torch.randn(shape), torch.randn(3, 5), torch.randn(*shape[:2], 5)
    start = torch.randn(shape[0], 3, 5)
    y, state = selective_scan(x, x, A, B, B, initial_state=start, return_final_state=True, backend=backend)
    assert y.shape == shape
    assert torch.equal(state, start)


@pytest.mark.parametrize("backend", FAST)
def test_keeps_no_states_for_the_backward_pass(backend: str) -> None:
    case = Case(length=512, channels=32, states=32)
    tensors, options = make(case)
    leaves = {k: None if v is None else v.requires_grad_() for k, v in tensors.items()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        selective_scan(**leaves, **options, backend=backend)
    row = case.length * case.channels * 4
    assert row < sum(kept.values()) < 12 * row  # the states alone would be 32 rows


def test_checkpoints_lie_a_few_hundred_steps_apart() -> None:
    assert segment_length(16) == 256
    assert all(64 <= segment_length(n) <= 256 and segment_length(n) % 32 == 0 for n in range(1, 1025))


def test_gradient_of_only_one_output() -> None:
    tensors, options = make(Case(length=40))
    for chosen in (0, 1):
        grads = []
        for backend in ("numba", "torch"):
            leaves = {k: None if v is None else v.clone().requires_grad_() for k, v in tensors.items()}
            outputs = selective_scan(**leaves, **options, return_final_state=True, backend=backend)
            outputs[chosen].square().sum().backward()
            assert leaves["x"] is not None
            assert leaves["x"].grad is not None
            grads.append(leaves["x"].grad)
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)


def test_a_wrong_damping_is_far_outside_the_tolerance() -> None:
    tensors, options = make(Case())
    expected = differentiate(cast(tensors), options, "reference")
    assert tensors["A"] is not None
    wrong = differentiate({**tensors, "A": tensors["A"] * 1.001}, options, "numba")
    assert max(errors(wrong, expected).values()) > 1e-4
