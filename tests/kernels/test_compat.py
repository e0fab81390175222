"""The functions of mamba-ssm and causal-conv1d against statements of their definitions in float64, written here."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels.compat import mamba_ssm as compat


def scan_definition(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """x' = exp(dt A) x + dt B u, y = C x (twice the real part of a complex product), + D u, times silu(z)."""
    wide = torch.complex128 if A.is_complex() else torch.float64
    dt = delta.double() + (0.0 if delta_bias is None else delta_bias.double()[:, None])
    dt = torch.where(dt > 30, dt, torch.log1p(torch.exp(dt.clamp(max=30)))) if delta_softplus else dt
    channels = u.shape[1]

    def at(parameter: Tensor, t: int) -> Tensor:
        """B or C at one position, broadcast against (B, D, N)."""
        if parameter.dim() == 2:
            return parameter.to(wide)[None]
        if A.is_complex():
            value = torch.complex(parameter[..., 2 * t].double(), parameter[..., 2 * t + 1].double())
        else:
            value = parameter[..., t].double()
        return value[:, None] if value.dim() == 2 else value.repeat_interleave(channels // value.shape[1], dim=1)

    state = torch.zeros(u.shape[0], *A.shape, dtype=wide)
    columns = []
    for t in range(u.shape[2]):
        step, token = dt[:, :, t, None], u[:, :, t, None].double()
        state = torch.exp(step * A.to(wide)) * state + step * token * at(B, t)
        y = (state * at(C, t)).sum(2)
        columns.append(2 * y.real if y.is_complex() else y)
    out = torch.stack(columns, 2)
    out = out if D is None else out + u.double() * D.double()[:, None]
    out = out if z is None else out * z.double() * torch.sigmoid(z.double())
    return out, state


def scan_inputs(length, *, kind="real", b="varying", c="varying", dtype=torch.float32, batch=2, channels=4, states=8):
    """Inputs of the kind that mamba-ssm's own test draws: A in (-0.5, 0), delta in (0, 0.5)."""
    width = 2 * length if kind == "complex" else length
    wtype = torch.complex64 if kind == "complex" else torch.float32

    def parameter(form):
        if form == "constant":
            return torch.randn(channels, states, dtype=wtype)
        shape = (batch, states, width) if form == "varying" else (batch, form, states, width)
        return torch.randn(shape).to(dtype)

    rates = -0.5 * torch.rand(channels, states)
    inputs = {
        "u": torch.randn(batch, channels, length).to(dtype),
        "delta": (0.5 * torch.rand(batch, channels, length)).to(dtype),
        "A": torch.complex(rates, torch.randn(channels, states)) if kind == "complex" else rates,
        "B": parameter(b),
        "C": parameter(c),
        "D": torch.randn(channels),
        "z": torch.randn(batch, channels, length).to(dtype),
        "delta_bias": 0.5 * torch.rand(channels),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


TOLERANCES = {torch.float32: (6e-4, 2e-3), torch.float16: (3e-3, 5e-3), torch.bfloat16: (3e-2, 5e-2)}
"""Relative and absolute, as mamba-ssm's own tests have them."""


def check_scan(inputs, softplus=True, tight=True):
    """Output, last state and every gradient against the definition."""
    out, last = compat.selective_scan_fn(**inputs, delta_softplus=softplus, return_last_state=True)
    expected, expected_last = scan_definition(**inputs, delta_softplus=softplus)
    dtype = inputs["u"].dtype
    assert out.dtype == dtype
    assert last.dtype == (torch.complex64 if inputs["A"].is_complex() else torch.float32)
    rtol, atol = (1e-5, 5e-5) if tight and dtype == torch.float32 else TOLERANCES[dtype]
    torch.testing.assert_close(out.double(), expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(last.to(expected_last.dtype), expected_last, rtol=1e-4, atol=1e-4)
    outer = torch.randn(out.shape).to(dtype).double()  # the gradient as it arrives: in the dtype of the output
    leaves = list(inputs.values())
    found = torch.autograd.grad((out.double() * outer).sum(), leaves)
    wanted = torch.autograd.grad((expected * outer).sum(), leaves)
    for name, leaf, a, b in zip(inputs, leaves, found, wanted, strict=True):
        assert a.dtype == leaf.dtype, name
        scale = 1 + b.abs().max().item()
        error = (a - b).abs().max().item() / scale
        assert error < (1e-4 if dtype == torch.float32 else 2e-2), f"gradient of {name}: {error:.1e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [1, 8, 37, 128, 256])
@pytest.mark.parametrize("groups", ["varying", 1, 2])
def test_scan_with_a_real_a_as_their_grid_has_it(groups, length, dtype):
    check_scan(scan_inputs(length, b=groups, c=groups, dtype=dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("groups", ["varying", 2])
def test_scan_with_a_real_a_at_their_lengths(groups, length, dtype):
    check_scan(scan_inputs(length, b=groups, c=groups, dtype=dtype), tight=False)


FORMS = ["constant", "varying", 1, 2, 4]


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize(("b", "c"), list(itertools.product(FORMS, FORMS)), ids=str)
def test_scan_with_every_form_of_b_and_c(b, c, kind):
    check_scan(scan_inputs(19, kind=kind, b=b, c=c))


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize(("skip", "gate", "bias", "softplus"), list(itertools.product((False, True), repeat=4)))
def test_scan_with_every_optional_argument(skip, gate, bias, softplus, kind):
    inputs = scan_inputs(11, kind=kind)
    for name, kept in (("D", skip), ("z", gate), ("delta_bias", bias)):
        if not kept:
            del inputs[name]
    check_scan(inputs, softplus)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_complex_scan_of_narrow_inputs(dtype):
    check_scan(scan_inputs(40, kind="complex", b=2, c="varying", dtype=dtype))


def test_gradients_of_the_last_state_are_kept():
    for kind in ("real", "complex"):
        inputs = scan_inputs(9, kind=kind)
        last = compat.selective_scan_fn(**inputs, return_last_state=True)[1]
        expected = scan_definition(**inputs)[1]
        leaves = [inputs[name] for name in ("u", "delta", "A", "B")]
        found = torch.autograd.grad(last.abs().square().sum(), leaves)
        wanted = torch.autograd.grad(expected.abs().square().sum(), leaves)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_scan_out_is_contiguous_and_alone_unless_asked():
    inputs = {name: tensor.detach() for name, tensor in scan_inputs(7).items()}
    out = compat.selective_scan_fn(*inputs.values(), True)
    assert isinstance(out, Tensor)
    assert out.is_contiguous()
    strided = {name: tensor.clone().transpose(0, -1).contiguous().transpose(0, -1) for name, tensor in inputs.items()}
    torch.testing.assert_close(compat.selective_scan_fn(*strided.values(), True), out)


def test_scan_of_packed_sequences_is_the_scans_of_each():
    for form in ("varying", "constant"):
        inputs = {n: t.detach() for n, t in scan_inputs(20, b=form, batch=1).items()}
        bounds = [0, 5, 6, 20]
        packed = compat.selective_scan_fn(**inputs, cu_seqlens=torch.tensor(bounds, dtype=torch.int32))
        for start, end in itertools.pairwise(bounds):
            piece = {n: t[..., start:end] if t.shape[-1] == 20 else t for n, t in inputs.items()}
            alone = compat.selective_scan_fn(**piece)
            torch.testing.assert_close(packed[..., start:end], alone, rtol=1e-5, atol=1e-5)


BAD_SCANS = [
    ({"u": torch.zeros(2, 4)}, ValueError, r"u must be \(batch, channels, length\), found shape \(2, 4\)"),
    ({"A": torch.zeros(5, 8)}, ValueError, r"A must be \(4, states\), found shape \(5, 8\)"),
    ({"B": torch.zeros(2, 7, 8)}, ValueError, r"B must be \(4, 8\), \(2, 8, 7\) or .*, found shape \(2, 7, 8\)"),
    ({"C": torch.zeros(2, 3, 8, 7)}, ValueError, r"groups that divide 4 channels, found shape \(2, 3, 8, 7\)"),
    ({"A": torch.zeros(4, 8, dtype=torch.cfloat)}, ValueError, r"B must be .*\(2, 8, 14\).*parts alternate along"),
    ({"B": torch.zeros(4, 8, dtype=torch.cfloat)}, TypeError, r"B may be complex only where A is"),
    ({"z": torch.zeros(2, 7, 4)}, ValueError, r"z must have shape \(2, 4, 7\), found \(2, 7, 4\)"),
    ({"delta": torch.zeros(2, 4, 7, dtype=torch.int32)}, TypeError, r"delta must be of a real floating dtype"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_SCANS, ids=lambda value: str(value)[:40])
def test_what_a_caller_of_the_scan_gets_wrong_is_named(change, error, message):
    with pytest.raises(error, match=message):
        compat.selective_scan_fn(**(scan_inputs(7) | change))


def step_definition(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False):
    """The definition over (B, H, P, N), with every argument in float64."""
    dt = dt if dt_bias is None else dt + dt_bias
    dt = F.softplus(dt) if dt_softplus else dt
    heads = state.shape[1]
    b, c = (p.repeat_interleave(heads // p.shape[1], dim=1).unsqueeze(2) for p in (B, C))
    new = torch.exp(dt.unsqueeze(3) * A) * state + (dt * x).unsqueeze(3) * b
    out = (new * c).sum(3)
    out = out if D is None else out + D * x
    return (out if z is None else out * F.silu(z)), new


def step_inputs(batch, heads, width, states, groups):
    shapes = {
        "state": (batch, heads, width, states),
        "x": (batch, heads, width),
        "dt": (batch, heads, width),
        "A": (heads, width, states),
        "B": (batch, groups, states),
        "C": (batch, groups, states),
        "D": (heads, width),
        "z": (batch, heads, width),
        "dt_bias": (heads, width),
    }
    inputs = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return inputs | {"A": -torch.rand(shapes["A"], dtype=torch.float64)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 3, 2, 1), (2, 4, 5, 16, 1), (2, 4, 5, 16, 2), (3, 6, 8, 4, 6)], ids=str)
def test_step_with_heads_overwrites_the_state(shape, dtype):
    inputs = step_inputs(*shape)
    tokens = ("x", "dt", "B", "C", "z")
    narrow = {name: tensor.to(dtype if name in tokens else torch.float32) for name, tensor in inputs.items()}
    expected, new = step_definition(**{name: t.double() for name, t in narrow.items()}, dt_softplus=True)
    address = narrow["state"].data_ptr()
    out = compat.selective_state_update(**narrow, dt_softplus=True)
    assert (out.shape, out.dtype) == (inputs["x"].shape, dtype)
    rtol, atol = (1e-5, 1e-4) if dtype == torch.float32 else TOLERANCES[dtype]
    torch.testing.assert_close(out.double(), expected, rtol=rtol, atol=atol)
    assert narrow["state"].data_ptr() == address
    torch.testing.assert_close(narrow["state"].double(), new, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_step_reads_a_narrow_state_as_it_was_rounded(dtype):
    inputs = step_inputs(2, 4, 5, 64, 2) | {"z": None, "D": None}
    state = inputs.pop("state").to(dtype)
    narrow = {name: None if tensor is None else tensor.float() for name, tensor in inputs.items()}
    out = compat.selective_state_update(state, **narrow, dt_softplus=True)
    c = narrow["C"].repeat_interleave(2, dim=1).unsqueeze(2)
    torch.testing.assert_close(out, (state.float() * c).sum(3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("skip", "gate", "bias", "softplus"), list(itertools.product((False, True), repeat=4)))
def test_step_without_heads(skip, gate, bias, softplus):
    inputs = step_inputs(2, 1, 6, 5, 1)
    for name, kept in (("D", skip), ("z", gate), ("dt_bias", bias)):
        if not kept:
            del inputs[name]
    expected, new = step_definition(**inputs, dt_softplus=softplus)
    axis = {"A": 0, "D": 0, "dt_bias": 0}
    flat = {name: tensor.float().squeeze(axis.get(name, 1)) for name, tensor in inputs.items()}
    out = compat.selective_state_update(**flat, dt_softplus=softplus)
    torch.testing.assert_close(out.double(), expected[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(flat["state"].double(), new[:, 0], rtol=1e-4, atol=1e-4)


def test_step_on_chosen_rows_of_a_larger_state():
    inputs = {name: tensor.float() for name, tensor in step_inputs(2, 4, 3, 5, 2).items()}
    pool = torch.randn(7, 4, 3, 5)
    rows, before = torch.tensor([5, 1], dtype=torch.int32), pool.clone()
    alone = inputs | {"state": pool[rows.long()].clone()}
    expected = compat.selective_state_update(**alone)
    out = compat.selective_state_update(**(inputs | {"state": pool}), state_batch_indices=rows)
    assert torch.equal(out, expected)
    assert torch.equal(pool[rows.long()], alone["state"])
    untouched = [0, 2, 3, 4, 6]
    assert torch.equal(pool[untouched], before[untouched])


def test_step_has_gradients_although_the_state_is_overwritten():
    inputs = {name: tensor.requires_grad_(name != "state") for name, tensor in step_inputs(2, 2, 3, 4, 1).items()}
    start = inputs["state"].clone()
    out = compat.selective_state_update(**inputs, dt_softplus=True)
    leaves = [tensor for name, tensor in inputs.items() if name != "state"]
    found = torch.autograd.grad(out.square().sum(), leaves)
    expected = step_definition(**(inputs | {"state": start}), dt_softplus=True)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected.square().sum(), leaves))


def test_step_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"found \(2, 4\) and \(2, 4\)"):
        compat.selective_state_update(*[torch.zeros(2, 4)] * 6)
    inputs = step_inputs(2, 4, 3, 5, 1) | {"B": torch.zeros(2, 3, 5), "C": torch.zeros(2, 3, 5)}
    with pytest.raises(ValueError, match="B has 3 groups, which do not divide 4 heads"):
        compat.selective_state_update(**inputs)


def convolution_definition(x, weight, bias, states, silu):
    """Output and last K - 1 inputs, by torch's grouped convolution in float64."""
    padded = torch.cat([states, x], 2)
    out = F.conv1d(padded, weight.unsqueeze(1), bias, groups=x.shape[1])
    return (F.silu(out) if silu else out), padded[:, :, x.shape[2] :]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channel_last", [False, True])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(("width", "length"), [(2, 1), (2, 64), (3, 8), (3, 151), (4, 2), (4, 129), (4, 372)])
def test_convolution_as_their_grid_has_it(width, length, has_bias, silu, channel_last, dtype):
    batch, channels = 2, 64
    rtol, atol = {torch.float32: (3e-4, 1e-3), torch.float16: (3e-3, 5e-3), torch.bfloat16: (1e-2, 5e-2)}[dtype]
    if channel_last:
        x = torch.randn(batch, length, channels + 9)[..., 5:-4].to(dtype).transpose(1, 2).requires_grad_()
    else:
        x = torch.randn(batch, channels + 9, length)[:, 5:-4].to(dtype).requires_grad_()
    weight = torch.randn(channels, width, requires_grad=True)
    bias = torch.randn(channels, requires_grad=True) if has_bias else None
    states = (
        torch.randn(batch, width - 1, channels).to(dtype).transpose(1, 2).requires_grad_() if channel_last else None
    )
    activation = "silu" if silu else None
    out, last = compat.causal_conv1d_fn(
        x, weight, bias, initial_states=states, return_final_states=True, activation=activation
    )
    zeros = torch.zeros(batch, channels, width - 1, dtype=torch.float64)
    before = zeros if states is None else states.double()
    expected, expected_last = convolution_definition(
        x.double(), weight.double(), None if bias is None else bias.double(), before, silu
    )
    assert out.dtype == last.dtype == dtype
    torch.testing.assert_close(out.double(), expected, rtol=rtol, atol=atol)
    assert torch.equal(last.double(), expected_last)
    leaves = [t for t in (x, weight, bias, states) if t is not None]
    outer = torch.randn(out.shape).to(dtype).double()  # the gradient as it arrives: in the dtype of the output
    losses = [
        (o * outer).sum() + torch.sigmoid(s).sum()
        for o, s in ((out.double(), last.double()), (expected, expected_last))
    ]
    found, wanted = (torch.autograd.grad(loss, leaves) for loss in losses)
    for leaf, a, b in zip(leaves, found, wanted, strict=True):
        assert a.dtype == leaf.dtype
        torch.testing.assert_close(a.double(), b.double(), rtol=max(rtol, 1e-3), atol=max(atol, 1e-3))


def test_convolution_of_packed_sequences():
    x = torch.randn(1, 6, 30)
    weight, bias = torch.randn(6, 4), torch.randn(6)
    numbers = torch.tensor([0] * 2 + [1] * 11 + [7] * 1 + [8] * 16, dtype=torch.int32)[None]
    out = compat.causal_conv1d_fn(x, weight, bias, seq_idx=numbers, activation="swish")
    assert isinstance(out, Tensor)
    for n in (0, 1, 7, 8):
        piece = compat.causal_conv1d_fn(x[..., numbers[0] == n], weight, bias, activation="silu")
        torch.testing.assert_close(out[..., numbers[0] == n], piece)
    with pytest.raises(ValueError, match="seq_idx excludes"):
        compat.causal_conv1d_fn(x, weight, seq_idx=numbers, return_final_states=True)
    with pytest.raises(ValueError, match=r"seq_idx must have shape \(1, 30\), found \(1, 29\)"):
        compat.causal_conv1d_fn(x, weight, seq_idx=numbers[:, 1:])


def test_final_states_are_written_where_asked():
    x, weight, kept = torch.randn(2, 5, 9), torch.randn(5, 4), torch.zeros(2, 5, 3)
    _, last = compat.causal_conv1d_fn(x, weight, return_final_states=True, final_states_out=kept)
    assert last is kept
    assert torch.equal(kept, x[:, :, -3:])


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("tokens", [None, 1, 4, 5])
@pytest.mark.parametrize(("width", "extra"), [(2, 0), (3, 9), (4, 0), (4, 2), (1, 3)])
def test_convolution_update_continues_a_sequence(width, extra, tokens, ring):
    """The state is filled from a known past, wherever in the ring it stands; the output continues that past."""
    batch, channels, count = 3, 6, tokens or 1
    kept = width - 1 + extra
    past = torch.randn(batch, channels, kept)
    x = torch.randn(batch, channels, count)
    weight, bias = torch.randn(channels, width), torch.randn(channels)
    whole = torch.cat([past, x], 2)
    positions = torch.tensor([kept, kept + 2, 3 * kept + 1], dtype=torch.int32) if ring else None

    def stored(sequence, end):
        """The last `kept` columns as the state holds them."""
        if not ring:
            return sequence[:, :, -kept:] if kept else sequence[:, :, :0]
        state = torch.empty(batch, channels, kept)
        for b in range(batch):
            for i in range(kept):
                state[b, :, (end[b] - kept + i) % kept] = sequence[b, :, sequence.shape[2] - kept + i]
        return state

    if ring and kept == 0:
        pytest.skip("a ring of no length")
    state = stored(past, positions).clone()
    argument = x if tokens else x[:, :, 0]
    out = compat.causal_conv1d_update(argument, state, weight, bias, "silu", cache_seqlens=positions)
    expected = F.silu(F.conv1d(F.pad(whole, (width - 1, 0)), weight.unsqueeze(1), bias, groups=channels))[:, :, kept:]
    assert out.shape == argument.shape
    torch.testing.assert_close(out.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(state, stored(whole, None if positions is None else positions + count))


def test_convolution_update_of_chosen_rows_leaves_padding_alone():
    pool, weight = torch.randn(9, 5, 4), torch.randn(5, 4)
    rows = torch.tensor([3, -1, 0, -1], dtype=torch.int32)
    before, x = pool.clone(), torch.randn(4, 5, 2)
    out = compat.causal_conv1d_update(x, pool, weight, conv_state_indices=rows)
    alone = before[[3, 0]].clone()
    expected = compat.causal_conv1d_update(x[[0, 2]], alone, weight)
    assert torch.equal(out[[0, 2]], expected)
    assert not out[[1, 3]].any()
    assert torch.equal(pool[[3, 0]], alone)
    assert torch.equal(pool[[1, 2, 4, 5, 6, 7, 8]], before[[1, 2, 4, 5, 6, 7, 8]])


def test_convolution_update_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"conv_state must be \(2, 5, at least 3\), found shape \(2, 5, 2\)"):
        compat.causal_conv1d_update(torch.zeros(2, 5), torch.zeros(2, 5, 2), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="activation must be None or 'silu', found 'tanh'"):
        compat.causal_conv1d_update(torch.zeros(2, 5), torch.zeros(2, 5, 3), torch.zeros(5, 4), activation="tanh")


def test_padding_of_packed_convolutions_gives_zeros():
    x, weight = torch.randn(2, 6, 9), torch.randn(6, 4)
    numbers = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1, -1], [2, 2, 2, 2, 2, 2, 2, 2, -1]], dtype=torch.int32)
    out = compat.causal_conv1d_fn(x, weight, torch.randn(6), seq_idx=numbers, activation="silu")
    assert not out[0, :, 7:].any()
    assert not out[1, :, 8:].any()
    assert bool((out[0, :, :7] != 0).all())


def test_last_inputs_of_packed_sequences():
    x = torch.arange(12.0).view(6, 2)
    states = compat.causal_conv1d_varlen_states(x, torch.tensor([0, 1, 6], dtype=torch.int32), 3)
    assert states.tolist() == [[[0, 0, 0], [0, 0, 1]], [[6, 8, 10], [7, 9, 11]]]
