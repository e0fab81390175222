"""mamba-ssm's `mamba_chunk_scan_combined` against a statement of its definition in float64, written here."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from mamba_kernels.compat.mamba_ssm import mamba_chunk_scan_combined

TOLERANCES = {torch.float32: (3e-4, 1e-3), torch.float16: (3e-3, 5e-3), torch.bfloat16: (3e-2, 5e-2)}
"""Relative and absolute; no looser than the tests of mamba-ssm for the scan in each dtype."""


def inputs(batch=2, length=75, heads=4, width=8, groups=2, states=6, dtype=torch.float32):
    def normal(*shape):
        return torch.randn(*shape).to(dtype)

    return {
        "x": normal(batch, length, heads, width),
        "dt": normal(batch, length, heads) - 2,
        "A": -torch.rand(heads) * 4,
        "B": normal(batch, length, groups, states),
        "C": normal(batch, length, groups, states),
        "D": torch.randn(heads, width),
        "z": normal(batch, length, heads, width),
        "dt_bias": torch.rand(heads),
        "initial_states": torch.randn(batch, heads, width, states),
    }


def definition(x, dt, A, B, C, D=None, z=None, dt_bias=None, initial_states=None, dt_limit=(0.0, math.inf)):
    """One position after another, with softplus."""
    x, dt, A, B, C = (t.double() for t in (x, dt, A, B, C))
    dt = F.softplus(dt if dt_bias is None else dt + dt_bias.double()).clamp(*dt_limit)
    heads = x.shape[2]
    B, C = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (B, C))
    state = x.new_zeros(x.shape[0], *x.shape[2:], B.shape[3]) if initial_states is None else initial_states.double()
    outputs = []
    for t in range(x.shape[1]):
        fresh = torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t])
        state = torch.exp(dt[:, t] * A)[..., None, None] * state + fresh
        outputs.append(torch.einsum("bhpn,bhn->bhp", state, C[:, t]))
    y = torch.stack(outputs, 1)
    if D is not None:
        y = y + (D if D.dim() == 2 else D[:, None]).double() * x
    return (y if z is None else y * F.silu(z.double())), state


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("chunk_size", [16, 64, 256])
def test_output_states_and_gradients(chunk_size, dtype):
    case = {name: tensor.requires_grad_() for name, tensor in inputs(dtype=dtype).items()}
    options = {"chunk_size": chunk_size, "dt_softplus": True, "return_final_states": True}
    out, final = mamba_chunk_scan_combined(**case, **options)
    expected, expected_final = definition(**case)
    rtol, atol = TOLERANCES[dtype]
    assert out.dtype == dtype
    assert final.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(final.double(), expected_final, rtol=1e-3, atol=1e-3)
    outer = torch.randn(out.shape).to(dtype).double()
    leaves = list(case.values())
    found = torch.autograd.grad((out.double() * outer).sum() + final.double().sum(), leaves)
    wanted = torch.autograd.grad((expected * outer).sum() + expected_final.sum(), leaves)
    for name, a, b in zip(case, found, wanted, strict=True):
        error = float((a - b).abs().max() / (1 + b.abs().max()))
        assert error < (1e-4 if dtype == torch.float32 else 2e-2), f"gradient of {name}: {error:.1e}"


@pytest.mark.parametrize("left_out", ["D", "z", "dt_bias", "initial_states"])
def test_what_may_be_left_out(left_out):
    case = inputs(length=20)
    del case[left_out]
    out = mamba_chunk_scan_combined(**case, chunk_size=8, dt_softplus=True)
    torch.testing.assert_close(out.double(), definition(**case)[0], rtol=1e-5, atol=2e-5)


def test_limits_of_the_step_size():
    case, limits = inputs(length=20), (0.1, 0.3)
    out = mamba_chunk_scan_combined(**case, chunk_size=8, dt_softplus=True, dt_limit=limits)
    torch.testing.assert_close(out.double(), definition(**case, dt_limit=limits)[0], rtol=1e-5, atol=2e-5)


def test_packed_sequences_and_their_states():
    case = inputs(batch=1, length=30)
    del case["initial_states"]
    bounds = [0, 5, 6, 30]
    numbers = torch.tensor([0] * 5 + [1] + [2] * 24, dtype=torch.int32)[None]
    options = {"chunk_size": 8, "dt_softplus": True, "return_varlen_states": True}
    cuts = torch.tensor(bounds, dtype=torch.int32)
    out, ends = mamba_chunk_scan_combined(**case, seq_idx=numbers, cu_seqlens=cuts, **options)
    assert ends.shape == (3, 4, 8, 6)
    for index, (start, end) in enumerate(itertools.pairwise(bounds)):
        piece = {name: t[:, start:end] if t.dim() > 2 else t for name, t in case.items()}
        expected, state = definition(**piece)
        torch.testing.assert_close(out[:, start:end].double(), expected, rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(ends[index : index + 1].double(), state, rtol=1e-5, atol=2e-5)


def test_what_does_not_fit_is_named():
    case = inputs(length=5)
    with pytest.raises(ValueError, match=r"seq_idx must have shape \(2, 5\), found \(2, 4\)"):
        mamba_chunk_scan_combined(**case, chunk_size=4, seq_idx=torch.zeros(2, 4))
    with pytest.raises(ValueError, match="return_varlen_states needs cu_seqlens and a batch of 1, found 2 rows"):
        mamba_chunk_scan_combined(**case, chunk_size=4, return_varlen_states=True)
