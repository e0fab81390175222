"""SSD of every backend against the sequential float64 reference: output, final state, every gradient."""

from functools import partial
from random import Random
from typing import Any

import operator_cases
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operator_cases import SSDCase as Case
from operator_cases import cast, errors, flags, make
from torch import Tensor

from mamba_kernels import ssd, ssd_update

pytestmark = pytest.mark.usefixtures("poisoned_memory")
FAST = ("torch", "numba")
differentiate = partial(operator_cases.differentiate, ssd)
check = partial(operator_cases.check, ssd)


def drawn(count: int, seed: int, lengths: list[int]) -> list[Case]:
    """Cases that mix every option."""
    draw = Random(seed)
    cases = []
    for _ in range(count):
        sizes = {
            "batch": draw.choice([1, 2, 3]),
            "length": draw.choice(lengths),
            "groups": draw.choice([1, 1, 2, 3]),
            "each": draw.choice([1, 2, 3]),
            "width": draw.choice([1, 3, 8, 20]),
            "states": draw.choice([1, 2, 5, 16, 33]),
            "chunk": draw.choice([1, 2, 7, 16, 31, 64]),
        }
        cases.append(Case(**sizes, **flags(draw)))
    return cases


PLAIN = [
    Case(length=1, width=1, states=1, each=1),
    Case(length=2, reverse=True),
    Case(length=16),
    Case(length=17, reset=True),
    Case(length=17, reset=True, reverse=True),
    Case(batch=3, length=257, width=64, states=16, chunk=64, reset=True, each=4),
    Case(batch=2, length=130, groups=4, width=5, states=128, chunk=64, reverse=True, each=1),
    Case(length=1100, width=16, states=16, chunk=64),
    Case(length=1100, width=16, states=16, chunk=64, reset=True, reverse=True),
    Case(length=70, softplus=False, damping=2000.0),
    Case(length=70, gate=False, skip=False, bias=False, softplus=False, initial=False),
]
FEW = PLAIN + drawn(40, 1, [1, 2, 3, 7, 13, 31, 61, 97])
MANY = drawn(150, 2, [1, 5, 63, 64, 127, 255, 256, 257, 511, 521])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_agrees_with_float64(case: Case, backend: str) -> None:
    check(case, backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", MANY, ids=str)
def test_agrees_with_float64_on_many_shapes(case: Case, backend: str) -> None:
    check(case, backend)


@pytest.mark.parametrize("case", [Case(), Case(reset=True, reverse=True, groups=2), Case(length=70)], ids=str)
def test_torch_backend_in_float64(case: Case) -> None:
    tensors, options = make(case)
    wide = cast(tensors)
    expected = differentiate(wide, options, "reference")
    assert max(errors(differentiate(wide, options, "torch"), expected).values()) < 1e-12


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_by_finite_differences(backend: str, reverse: bool) -> None:
    case = Case(batch=2, length=5, groups=2, width=2, states=3, chunk=3, reset=True, reverse=reverse, each=1)
    tensors, options = make(case)
    names = list(tensors)
    leaves = [v.double().requires_grad_() for v in tensors.values() if v is not None]

    def run(*values: Tensor) -> Any:
        arguments = dict(zip(names, values, strict=True))
        return ssd(**arguments, **options, return_final_state=True, backend=backend)

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_one_skip_weight_a_channel(backend: str) -> None:
    tensors, options = make(Case())
    tensors["D"] = torch.randn(2, 8)
    expected = differentiate(cast(tensors), options, "reference")
    assert max(errors(differentiate(tensors, options, backend), expected).values()) < 3e-5
    x, D = tensors["x"], tensors["D"]
    assert x is not None
    bare = ssd(**{**tensors, "D": None, "z": None}, **options, backend=backend)
    torch.testing.assert_close(ssd(**{**tensors, "z": None}, **options, backend=backend), bare + D * x)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("case", [Case(length=130, states=16), Case(groups=2, reverse=True, each=1)], ids=str)
def test_bfloat16(case: Case, backend: str) -> None:
    tensors, options = make(case)
    rounded = cast(tensors, torch.bfloat16)
    expected = differentiate(cast(rounded), options, "reference")
    found = differentiate(rounded, options, backend)
    assert found["y"].dtype == torch.bfloat16
    assert found["final_state"].dtype == torch.float32
    assert all(found[f"d{k}"].dtype == torch.bfloat16 for k, v in tensors.items() if v is not None)
    assert max(errors(found, expected).values()) < 1e-2


def test_half_and_double_precision_fall_to_torch() -> None:
    tensors, options = make(Case(length=9))
    for dtype, tolerance in ((torch.float16, 5e-3), (torch.float64, 1e-12)):
        narrow = cast(tensors, dtype)
        expected = ssd(**cast(narrow), **options, backend="reference")
        found = ssd(**narrow, **options)
        assert found.dtype == dtype
        assert float((found.double() - expected).abs().max() / expected.abs().max()) < tolerance


@pytest.mark.parametrize("backend", FAST)
def test_strides_do_not_matter(backend: str) -> None:
    tensors, options = make(Case(batch=2, length=40, reset=True))
    turned = {k: None if v is None else v.mT.contiguous().mT if v.dim() > 1 else v for k, v in tensors.items()}
    assert turned["x"] is not None
    assert not turned["x"].is_contiguous()
    expected = ssd(**tensors, **options, backend=backend)
    torch.testing.assert_close(ssd(**turned, **options, backend=backend), expected)


def test_bitwise_the_same_in_every_run_and_for_any_number_of_threads() -> None:
    tensors, options = make(Case(batch=2, length=300, width=16, states=16, groups=2, chunk=32, reset=True))
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
    tensors, options = make(Case(length=40, each=3))
    poisoned = {k: None if v is None else v.clone() for k, v in tensors.items()}
    target = poisoned[name]
    assert target is not None
    target.view(-1)[0] = float("nan")
    y = ssd(**poisoned, **options, backend=backend)
    assert y[0, 0, 0, 0].isnan()
    if name not in ("B", "C"):
        assert not y[0, :, 1:].isnan().any()


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_nan_reaches_neither_the_past_nor_the_next_sequence(backend: str, reverse: bool) -> None:
    tensors, options = make(Case(length=80, reverse=reverse))
    assert tensors["x"] is not None
    tensors["x"][0, 20 if not reverse else 60] = float("nan")
    reset = torch.zeros(1, 80, dtype=torch.bool)
    reset[0, 40 if not reverse else 39] = True
    found = differentiate(tensors, {**options, "reset": reset}, backend)
    spared = [slice(None, 20), slice(40, None)] if not reverse else [slice(61, None), slice(None, 40)]
    assert found["y"].isnan().any()
    for part in spared:
        assert not found["y"][0, part].isnan().any()
    assert not found["final_state"].isnan().any()
    assert not found["dx"][0, spared[1]].isnan().any()


@pytest.mark.parametrize("backend", FAST)
def test_extreme_steps_neither_overflow_nor_linger(backend: str) -> None:
    tensors, options = make(Case(length=70, softplus=False, bias=False))
    assert tensors["delta"] is not None
    tensors["delta"][0, ::7] = 1e4
    tensors["delta"][0, 3] = 0.0
    expected = differentiate(cast(tensors), options, "reference")
    found = differentiate(tensors, options, backend)
    assert max(errors(found, expected).values()) < 1e-5


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("shape", [(2, 0, 3, 4), (0, 4, 3, 4)], ids=str)
def test_nothing_to_run_over(shape: tuple[int, ...], backend: str) -> None:
    x, B = torch.randn(shape), torch.randn(*shape[:2], 1, 5)
    start = torch.randn(shape[0], 3, 4, 5)
    y, state = ssd(x, x[..., 0], torch.randn(3), B, B, initial_state=start, return_final_state=True, backend=backend)
    assert y.shape == shape
    assert torch.equal(state, start)


@pytest.mark.parametrize("backend", FAST)
def test_keeps_no_states_for_the_backward_pass(backend: str) -> None:
    case = Case(length=2048, width=16, states=32, chunk=64)
    tensors, options = make(case)
    leaves = {k: None if v is None else v.requires_grad_() for k, v in tensors.items()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ssd(**leaves, **options, backend=backend)
    row = case.length * case.heads * case.width * 4
    assert row < sum(kept.values()) < 12 * row  # the states alone would be 32 rows


def test_gradient_of_only_one_output() -> None:
    tensors, options = make(Case(length=40))
    for chosen in (0, 1):
        grads = []
        for backend in FAST:
            leaves = {k: None if v is None else v.clone().requires_grad_() for k, v in tensors.items()}
            outputs = ssd(**leaves, **options, return_final_state=True, backend=backend)
            outputs[chosen].square().sum().backward()
            assert leaves["x"] is not None
            assert leaves["x"].grad is not None
            grads.append(leaves["x"].grad)
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)


def split_run(
    tensors: dict[str, Tensor | None], options: dict[str, Any], cut: int, backend: str
) -> tuple[Tensor, Tensor]:
    """Run in two pieces, the state handed from the earlier to the later."""
    parts = [slice(None, cut), slice(cut, None)]
    state, outputs = tensors["initial_state"], {}
    for part in reversed(parts) if options["reverse"] else parts:
        along = {k: v[:, part] if v is not None and v.dim() > 2 else v for k, v in tensors.items()}
        reset = None if options["reset"] is None else options["reset"][:, part]
        chosen = {**options, "reset": reset, "return_final_state": True, "backend": backend}
        outputs[part.start is None], state = ssd(**{**along, "initial_state": state}, **chosen)
    assert state is not None
    return torch.cat([outputs[True], outputs[False]], dim=1), state


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.integers(2, 90),
    cut=st.floats(0, 1),
    chunk=st.sampled_from([1, 5, 16, 64]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    backend=st.sampled_from(FAST),
)
def test_pieces_make_the_whole(
    length: int, cut: float, chunk: int, flags: tuple[bool, bool, bool], backend: str
) -> None:
    reset, reverse, initial = flags
    case = Case(batch=2, length=length, chunk=chunk, reset=reset, reverse=reverse, initial=initial)
    tensors, options = make(case, seed=length)
    whole = ssd(**tensors, **options, return_final_state=True, backend=backend)
    pieces = split_run(tensors, options, round(cut * length), backend)
    torch.testing.assert_close(pieces, whole, atol=2e-5, rtol=1e-4)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1, 40), groups=st.sampled_from([1, 2, 4]), backend=st.sampled_from(FAST))
def test_steps_make_the_whole(length: int, groups: int, backend: str) -> None:
    tensors, options = make(Case(batch=2, length=length, each=4 // groups, groups=groups), seed=length)
    expected = ssd(**tensors, **options, return_final_state=True, backend=backend)
    state, outputs = tensors["initial_state"], []
    assert state is not None
    fixed = {k: tensors[k] for k in ("A", "D", "delta_bias")}
    for t in range(length):
        token = {k: v[:, t] for k in ("x", "delta", "B", "C", "z") if (v := tensors[k]) is not None}
        y, state = ssd_update(state, **token, **fixed, delta_softplus=True)
        outputs.append(y)
    torch.testing.assert_close((torch.stack(outputs, 1), state), expected, atol=2e-5, rtol=1e-4)


def test_one_channel_heads_are_a_selective_scan() -> None:
    """Two definitions written apart agree where they mean the same."""
    from mamba_kernels import selective_scan

    tensors, options = make(Case(length=50, width=1, states=5, each=6))
    same = {k: v.squeeze(-1) if v is not None and k in ("x", "z") else v for k, v in tensors.items()}
    assert tensors["A"] is not None
    assert tensors["initial_state"] is not None
    same |= {"A": tensors["A"].unsqueeze(1).expand(6, 5), "initial_state": tensors["initial_state"].squeeze(2)}
    del options["chunk_size"]
    expected = selective_scan(**same, **options)
    torch.testing.assert_close(ssd(**tensors, **options).squeeze(-1), expected, atol=1e-5, rtol=1e-4)
