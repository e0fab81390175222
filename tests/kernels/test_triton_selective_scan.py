"""The Triton scan against the sequential float64 reference: output, final state, every gradient, both schedules."""

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import operator_cases
import pytest
import torch
from operator_cases import ScanCase, flags, make, surrounded
from torch import Tensor

from mamba_kernels import selective_scan

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("poisoned_memory")
differentiate = partial(operator_cases.differentiate, selective_scan)


@dataclass(frozen=True, kw_only=True)
class Case(ScanCase):
    """Smaller by default: the interpreter takes its time."""

    length: int = 13
    channels: int = 5


def check(case: Case, device: torch.device, tolerance: float = 2e-5, dtype: torch.dtype = torch.float32) -> None:
    operator_cases.check(selective_scan, case, "triton", device, tolerance, dtype)


def drawn(count: int, seed: int) -> list[Case]:
    """Cases that mix every option."""
    draw = Random(seed)
    cases = []
    for _ in range(count):
        width = draw.choice([1, 2, 3, 6, 9, 15, 31, 32, 33, 45, 64, 65])
        sizes = {
            "batch": draw.choice([1, 2]),
            "length": draw.choice([1, 2, 5, 7, 11, 17, 23]),
            "states": draw.choice([1, 2, 3, 5, 8, 13, 16, 17, 24, 31, 48, 64, 100, 128, 200, 256]),
            "groups": draw.choice([0, 0, 1, *(g for g in (2, 3, 5) if width % g == 0)]),
        }
        cases.append(Case(channels=width, **sizes, **flags(draw)))
    return cases


FEW = [
    Case(length=1, channels=1, states=1),
    Case(length=19, channels=33, states=16, reset=True),
    Case(batch=2, length=8, channels=6, states=5, groups=3, reverse=True),
    Case(length=7, channels=65, states=3, gate=False, skip=False, bias=False, softplus=False, initial=False),
    Case(length=5, channels=3, states=256, reset=True, reverse=True),
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
    check(Case(length=7, channels=3, states=3, reverse=True), triton_device, 2**-7, dtype)


@pytest.mark.slow
def test_gradients_by_finite_differences(triton_device: torch.device) -> None:
    tensors, options = make(Case(length=3, channels=2, states=3, groups=2, reset=True), torch.float64)
    names = list(tensors)
    leaves = [v.to(triton_device).requires_grad_() for v in tensors.values() if v is not None]
    options["reset"][0, 1] = True
    settings = {k: v.to(triton_device) if isinstance(v, Tensor) else v for k, v in options.items()}

    def scan(*values: Tensor) -> Any:
        arguments = dict(zip(names, values, strict=True))
        return selective_scan(**arguments, **settings, return_final_state=True, backend="triton")

    assert torch.autograd.gradcheck(scan, leaves, fast_mode=True)


@pytest.mark.parametrize("case", [Case(batch=2, length=7, channels=6, groups=2), Case(reverse=True)], ids=str)
def test_strides_do_not_matter_and_neighbouring_memory_is_not_read(case: Case, triton_device: torch.device) -> None:
    tensors, options = make(case)
    plain = differentiate(tensors, options, "triton", triton_device)
    spread = {k: None if v is None else surrounded(v.to(triton_device)).requires_grad_() for k, v in tensors.items()}
    y, state = selective_scan(**spread, **options, return_final_state=True, backend="triton")
    assert torch.equal(y.detach().cpu(), plain["y"])
    assert torch.equal(state.detach().cpu(), plain["final_state"])
    y.sum().backward()  # the gradient of a sum is expanded: all its strides are zero
    for name, leaf in spread.items():
        assert leaf is not None
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all(), name


def test_bitwise_the_same_in_every_run(triton_device: torch.device) -> None:
    tensors, options = make(Case(batch=2, length=9, channels=34))
    first, second = (differentiate(tensors, options, "triton", triton_device) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("reverse", [False, True])
def test_reset_keeps_a_nan_in_its_own_sequence(reverse: bool, triton_device: torch.device) -> None:
    tensors, options = make(Case(length=20, channels=2))
    assert tensors["x"] is not None
    tensors["x"][0, 5 if not reverse else 15] = float("nan")
    reset = torch.zeros(1, 20, dtype=torch.bool)
    reset[0, 10 if not reverse else 9] = True
    found = differentiate(tensors, {**options, "reset": reset, "reverse": reverse}, "triton", triton_device)
    other = slice(10, None) if not reverse else slice(None, 10)
    assert found["y"].isnan().any()
    assert not found["y"][0, other].isnan().any()
    assert not found["final_state"].isnan().any()
    assert not found["dx"][0, other].isnan().any()


CHUNKED = [
    Case(length=490, channels=3, states=2),
    Case(batch=2, length=481, channels=2, states=3, groups=2, reverse=True, reset=True, gate=False),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CHUNKED, ids=str)
def test_chunks_at_the_same_time_give_what_one_pass_gives(
    case: Case, triton_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mamba_kernels.ops.selective_scan import triton_launch

    asked = []
    monkeypatch.setattr(triton_launch, "chunk_length", lambda programs, length: asked.append(length) or 240)
    check(case, triton_device)
    assert asked == [case.length, case.length]  # forward and backward: three chunks each


@pytest.mark.parametrize(
    ("programs", "length", "chunk"),
    [
        (1, 1, 1),
        (1, 719, 719),  # not three times 240
        (1, 720, 240),
        (1, 2**20, 1200),  # 1,024 programs are enough: 2^20 / 1,024, rounded up to a multiple of 240
        (64, 2**16, 4320),  # 16 chunks
        (512, 2**20, 2**20),  # only two chunks: three phases would not pay
        (5000, 2**20, 2**20),
    ],
)
def test_schedule_is_chosen_by_shape(programs: int, length: int, chunk: int, triton_device: torch.device) -> None:
    from mamba_kernels.ops.selective_scan.triton_launch import SPACING, chunk_length

    assert chunk_length(programs, length) == chunk
    assert chunk == length or chunk % SPACING == 0


@pytest.mark.parametrize("states", [1, 2, 3, 16, 17, 100, 256, 1000])
@pytest.mark.parametrize("lanes", [32, 64])
def test_tiles_hold_every_state_and_fill_every_lane(states: int, lanes: int, triton_device: torch.device) -> None:
    from mamba_kernels.ops.selective_scan.triton_launch import SPACING, backward_tile, forward_tile

    for tile in (forward_tile(states, 512, lanes), backward_tile(states, lanes)):
        assert states <= tile.ni * tile.no < 2 * max(states, 2)
        assert tile.bd * tile.no >= lanes
        assert SPACING % tile.segment == 0


def test_operators_pass_opcheck(triton_device: torch.device) -> None:
    tensors, options = make(Case(length=3, channels=2, states=2, reset=True))
    leaves = {k: v.to(triton_device).requires_grad_() for k, v in tensors.items() if v is not None}
    inputs = [leaves[k] for k in ("x", "delta", "A", "B", "C", "D", "z", "delta_bias")]
    assert selective_scan(*(t.detach() for t in inputs[:5]), backend="triton").shape == (1, 3, 2)  # registers them
    ops = torch.ops.mamba_kernels
    arguments = (*inputs, options["reset"].to(triton_device), True, False, leaves["initial_state"], True)
    torch.library.opcheck(ops.selective_scan_triton.default, arguments)
    y, state, checkpoints = (t.detach() for t in ops.selective_scan_triton(*arguments))
    backward = (torch.ones_like(y), torch.ones_like(state), *(t.detach() for t in inputs), *arguments[8:11])
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(ops.selective_scan_triton_backward.default, (*backward, checkpoints), test_utils=checks)
