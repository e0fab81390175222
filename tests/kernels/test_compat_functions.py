"""mamba-ssm's norms and the functions that run a whole block, against float64 definitions written here."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from mamba_kernels.compat.causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from mamba_kernels.compat.causal_conv1d import causal_conv1d_interface as convolution
from mamba_kernels.compat.causal_conv1d.cpp_functions import (
    causal_conv1d_bwd_function,
    causal_conv1d_fwd_function,
    causal_conv1d_update_function,
)
from mamba_kernels.compat.mamba_ssm.ops import selective_scan_interface as scans
from mamba_kernels.compat.mamba_ssm.ops.triton import layer_norm, layernorm_gated, ssd_combined
from mamba_kernels.compat.mamba_ssm.ops.triton.selective_state_update import (
    selective_state_update,
    selective_state_update_ref,
)


def assert_close(found, wanted, leaves, wide_leaves, tolerance=1e-5):
    """Values, and the gradients of a random combination of them."""
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * float(1 + b.detach().abs().max()))
    outers = [torch.randn(b.shape, dtype=torch.float64) for b in wanted]
    losses = [sum((t.double() * o).sum() for t, o in zip(ts, outers, strict=True)) for ts in (found, wanted)]
    grads = torch.autograd.grad(losses[0], leaves), torch.autograd.grad(losses[1], wide_leaves)
    for number, (a, b) in enumerate(zip(*grads, strict=True)):
        error = float((a.double() - b).abs().max() / (1 + b.abs().max()))
        assert error < tolerance, f"gradient of leaf {number}: {error:.1e}"


def leaf(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).requires_grad_()


def widened(tensors):
    return {n: None if t is None else t.detach().double().requires_grad_() for n, t in tensors.items()}


def norm_definition(x, weight, bias, eps, rms):
    centred = x if rms else x - x.mean(-1, keepdim=True)
    out = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight
    return out if bias is None else out + bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize(("biased", "residual", "second"), list(itertools.product([False, True], repeat=3)))
def test_norm_of_the_stream(biased, residual, second, rms, dtype):
    t = {
        "x": leaf(2, 5, 24, dtype=dtype),
        "weight": leaf(24),
        "bias": leaf(24) if biased else None,
        "residual": leaf(2, 5, 24) if residual else None,
        "x1": leaf(2, 5, 24, dtype=dtype) if second else None,
        "weight1": leaf(24) if second else None,
    }
    found = layer_norm.layer_norm_fn(**t, eps=1e-3, prenorm=True, residual_in_fp32=True, is_rms_norm=rms)
    w = widened(t)
    total = sum(w[name] for name in ("x", "residual", "x1") if w[name] is not None)
    wanted = [norm_definition(total, w["weight"], w["bias"], 1e-3, rms)]
    if second:
        wanted.append(norm_definition(total, w["weight1"], None, 1e-3, rms))
    assert found[0].dtype == dtype
    assert found[-1].dtype == torch.float32
    leaves = [[s[n] for n in t if s[n] is not None] for s in (t, w)]
    assert_close(found, [*wanted, total], *leaves, tolerance=1e-5 if dtype == torch.float32 else 3e-2)
    reference = layer_norm.rms_norm_ref if rms else layer_norm.layer_norm_ref
    if dtype == torch.float32:
        for a, b in zip(found, reference(**t, eps=1e-3, prenorm=True, upcast=True), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_norm_without_a_residual_and_what_it_returns():
    x, weight = torch.randn(3, 8, dtype=torch.bfloat16), torch.ones(8)
    out = layer_norm.rms_norm_fn(x, weight, None)
    assert out.dtype == torch.bfloat16
    assert layer_norm.rms_norm_fn(x, weight, None, prenorm=True)[1].dtype == torch.bfloat16
    assert layer_norm.rms_norm_fn(x, weight, None, prenorm=True, residual_in_fp32=True)[1].dtype == torch.float32
    out, mask, second = layer_norm.rms_norm_fn(x, weight, None, return_dropout_mask=True)
    assert (mask, second) == (None, None)
    scaled = layer_norm.layer_norm_fn(x.float(), weight, None, rowscale=torch.tensor([1.0, 2.0, 0.0]))
    assert not scaled[2].any()
    for bad in ({"x1": x[:2]}, {"residual": x[:, :4]}, {"rowscale": torch.ones(2)}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must have shape"):
            layer_norm.layer_norm_fn(x, weight, None, **bad)
    with pytest.raises(ValueError, match="x1 excludes rowscale"):
        layer_norm.layer_norm_fn(x, weight, None, x1=x, rowscale=torch.ones(3))


def test_dropout_in_the_norm_is_told_and_repeated_by_the_reference():
    x, x1, residual, weight = torch.randn(4, 64, 3), torch.randn(4, 64, 3), torch.randn(4, 64, 3), torch.randn(3)
    found = layer_norm.rms_norm_fn(
        *(x, weight, None, residual, x1), dropout_p=0.25, prenorm=True, return_dropout_mask=True
    )
    *results, mask, mask1 = found
    assert 0.6 < float(mask.float().mean()) < 0.9
    wanted = layer_norm.rms_norm_ref(
        *(x, weight, None, residual, x1), dropout_p=0.25, prenorm=True, dropout_mask=mask, dropout_mask1=mask1
    )
    for a, b in zip(results, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    norm = layer_norm.RMSNorm(3, dropout_p=0.5)
    assert torch.equal(norm.eval()(x), layer_norm.rms_norm_fn(x, norm.weight, None, eps=1e-5))
    assert (norm.train()(x) == 0).float().mean() > 0.3


def test_norm_then_projection():
    x, residual, weight, matrix, bias = leaf(2, 6), leaf(2, 6), leaf(6), leaf(4, 6), leaf(4)
    out, stream = layer_norm.layer_norm_linear_fn(
        x, weight, None, matrix, bias, residual, prenorm=True, is_rms_norm=True
    )
    total = x + residual
    expected = norm_definition(total, weight, None, 1e-6, True) @ matrix.T + bias
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stream, total)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("group", "gated", "biased"), list(itertools.product([None, 6, 24], [False, True], [False, True]))
)
def test_gated_norm(group, gated, biased, before, rms):
    t = {"x": leaf(2, 5, 24), "weight": leaf(24), "bias": leaf(24) if biased else None}
    t |= {"z": leaf(2, 5, 24) if gated else None}
    out = layernorm_gated.layernorm_fn(**t, eps=1e-3, group_size=group, norm_before_gate=before, is_rms_norm=rms)
    w = widened(t)
    total = w["x"] * F.silu(w["z"]) if gated and not before else w["x"]
    parts = total.unflatten(-1, (-1, group or 24))
    wanted = norm_definition(parts, 1.0, None, 1e-3, rms).flatten(-2) * w["weight"]
    wanted = wanted if w["bias"] is None else wanted + w["bias"]
    wanted = wanted * F.silu(w["z"]) if gated and before else wanted
    assert_close([out], [wanted], *[[s[n] for n in t if s[n] is not None] for s in (t, w)])
    if rms:
        reference = layernorm_gated.rms_norm_ref(**t, eps=1e-3, group_size=group, norm_before_gate=before)
        torch.testing.assert_close(out, reference, rtol=1e-5, atol=1e-5)


def test_gated_norms_as_modules_and_their_errors():
    plain, rms = layernorm_gated.LayerNorm(8, group_size=4), layernorm_gated.RMSNorm(8, norm_before_gate=False)
    assert (sorted(plain.state_dict()), sorted(rms.state_dict())) == (["bias", "weight"], ["weight"])
    x, z = torch.randn(2, 8), torch.randn(2, 8)
    torch.testing.assert_close(plain(x), layernorm_gated.layernorm_fn(x, torch.ones(8), None, eps=1e-5, group_size=4))
    wanted = layernorm_gated.rmsnorm_fn(x, torch.ones(8), None, z, eps=1e-5, norm_before_gate=False)
    torch.testing.assert_close(rms(x, z), wanted)
    with pytest.raises(ValueError, match="groups of 3 channels do not divide 8 channels"):
        layernorm_gated.rmsnorm_fn(x, torch.ones(8), None, group_size=3)
    with pytest.raises(ValueError, match=r"z must have shape \(2, 8\), found \(1, 8\)"):
        layernorm_gated.rmsnorm_fn(x, torch.ones(8), None, z[:1])


def inner_inputs(kind="real", constant=(), norms=False, biases=False, width=6, rank=2, states=4, length=15):
    wide = 2 * states if kind == "complex" else states
    selected = wide * (2 - len(constant))

    def rates():
        real = -torch.rand(width, states)
        return (torch.complex(real, torch.randn(width, states)) if kind == "complex" else real).requires_grad_()

    def fixed():
        return torch.randn(width, states, dtype=torch.cfloat if kind == "complex" else torch.float).requires_grad_()

    t = {
        "xz": leaf(2, 2 * width, length),
        "conv1d_weight": leaf(width, 1, 3),
        "conv1d_bias": leaf(width),
        "x_proj_weight": leaf(rank + selected, width),
        "delta_proj_weight": leaf(width, rank),
        "A": rates(),
        "D": leaf(width),
        "delta_bias": leaf(width),
    }
    t |= {name: fixed() for name in constant}
    if biases:
        t |= {"B_proj_bias": leaf(wide), "C_proj_bias": leaf(wide)}
    if norms:
        t |= {"b_rms_weight": leaf(states), "c_rms_weight": leaf(states), "dt_rms_weight": leaf(width)}
    return t


def inner_definition(w, from_right=None):
    """What lies between a block's first and last projection, (B, D, L), in double precision."""
    x, z = w["xz"].chunk(2, dim=1)
    taps = w["conv1d_weight"].shape[-1]
    x = F.silu(F.conv1d(F.pad(x, (taps - 1, 0)), w["conv1d_weight"], w["conv1d_bias"], groups=x.shape[1]))
    A = w["A"]
    rank, states = w["delta_proj_weight"].shape[1], A.shape[1] * (2 if A.is_complex() else 1)
    projected = torch.einsum("bdl,rd->blr", x, w["x_proj_weight"])

    def norm(t, weight):
        return t if w.get(weight) is None else norm_definition(t, w[weight], None, 1e-6, True)

    def parameter(name, part):
        if w.get(name) is not None:
            return w[name][None, None]  # (1, 1, D, N)
        if w.get(f"{name}_proj_bias") is not None:
            part = part + w[f"{name}_proj_bias"]
        part = norm(part, f"{name.lower()}_rms_weight")
        return (torch.view_as_complex(part.unflatten(-1, (-1, 2)).contiguous()) if A.is_complex() else part)[:, :, None]

    dt = norm(projected[..., :rank] @ w["delta_proj_weight"].T, "dt_rms_weight")
    dt = F.softplus(dt + w["delta_bias"])
    B, C = parameter("B", projected[..., rank : rank + states]), parameter("C", projected[..., -states:])
    x, z = x.transpose(1, 2), z.transpose(1, 2)

    def scan(rates, order):
        state, rows = 0, {}
        for t in order:
            b, c = (p[:, t] if p.shape[1] > 1 else p[:, 0] for p in (B, C))
            state = torch.exp(dt[:, t, :, None] * rates) * state + (dt[:, t] * x[:, t])[..., None] * b
            y = (state * c).sum(-1)
            rows[t] = 2 * y.real if y.is_complex() else y
        y = torch.stack([rows[t] for t in range(x.shape[1])], 1)
        return (y + w["D"] * x) * F.silu(z)

    y = scan(A, range(x.shape[1]))
    if from_right is not None:
        y = y + scan(from_right, range(x.shape[1] - 1, -1, -1))
    return y.transpose(1, 2)


def widened_any(t):
    return {
        n: v.detach().to(torch.complex128 if v.is_complex() else torch.float64).requires_grad_() for n, v in t.items()
    }


CASES = [
    {},
    {"norms": True},
    {"constant": ("B",)},
    {"constant": ("B", "C"), "kind": "complex"},
    {"kind": "complex", "biases": True},
    {"biases": True, "norms": True},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_whole_block_in_one_call(case):
    t = inner_inputs(**case)
    w = widened_any(t)
    gated = scans.mamba_inner_fn_no_out_proj(**t)
    wanted = inner_definition(w)
    real = [n for n in t if not t[n].is_complex()]
    assert_close([gated], [wanted], [t[n] for n in real], [w[n] for n in real])
    matrix, bias = torch.randn(5, 6), torch.randn(5)
    norms = {n: t.pop(n) for n in list(t) if "rms" in n}
    out = scans.mamba_inner_fn(**t, out_proj_weight=matrix, out_proj_bias=bias, **norms)
    torch.testing.assert_close(out.double(), wanted.transpose(1, 2) @ matrix.double().T + bias, rtol=1e-5, atol=1e-4)
    if not norms:
        again = scans.mamba_inner_ref(**t, out_proj_weight=matrix, out_proj_bias=bias)
        torch.testing.assert_close(again, out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [{}, {"kind": "complex"}, {"constant": ("C",)}], ids=str)
def test_a_block_scanned_both_ways(case):
    t = inner_inputs(**case)
    back = (t["A"].detach() * 0.5).requires_grad_()
    w = widened_any(t)
    out = scans.bimamba_inner_fn(**t, A_b=back, out_proj_weight=torch.eye(6), out_proj_bias=None).transpose(1, 2)
    wide_back = back.detach().to(torch.complex128 if back.is_complex() else torch.float64)
    real = [n for n in t if not t[n].is_complex()]
    assert_close([out], [inner_definition(w, wide_back)], [t[n] for n in real], [w[n] for n in real])


@pytest.mark.parametrize(
    "case",
    [{}, {"rms": False}, {"mlp": 3}, {"per_channel": True}, {"before": True, "groups": 2}, {"limit": (0.3, 0.6)}],
    ids=str,
)
def test_a_whole_mamba2_block_in_one_call(case):
    heads, width, groups, states, mlp = 4, 3, case.get("groups", 1), 5, case.get("mlp", 0)
    inner, mixed = heads * width, heads * width + 2 * groups * states
    t = {
        "zxbcdt": leaf(2, 13, 2 * mlp + inner + mixed + heads),
        "conv1d_weight": leaf(mixed, 4),
        "conv1d_bias": leaf(mixed),
        "dt_bias": leaf(heads),
        "A": (-torch.rand(heads)).requires_grad_(),
        "D": leaf(heads, width) if case.get("per_channel") else leaf(heads),
        "rmsnorm_weight": leaf(inner) if case.get("rms", True) else None,
        "outproj_weight": leaf(7, inner + mlp),
        "outproj_bias": leaf(7),
    }
    options = {"chunk_size": 8, "headdim": width, "ngroups": groups, "rmsnorm_eps": 1e-3}
    options |= {"norm_before_gate": case.get("before", False), "dt_limit": case.get("limit", (0.0, float("inf")))}
    start = leaf(2, heads, width, states)
    out, final = ssd_combined.mamba_split_conv1d_scan_combined(
        **t, **options, initial_states=start, return_final_states=True
    )
    w, wide_start = widened(t), start.detach().double().requires_grad_()
    gate0, x0, z, xbc, dt = w["zxbcdt"].split([mlp, mlp, inner, mixed, heads], -1)
    xbc = F.conv1d(F.pad(xbc.transpose(1, 2), (3, 0)), w["conv1d_weight"][:, None], w["conv1d_bias"], groups=mixed)
    x, B, C = F.silu(xbc).transpose(1, 2).split([inner, groups * states, groups * states], -1)
    x = x.unflatten(-1, (heads, width))
    B, C = (v.unflatten(-1, (groups, states)).repeat_interleave(heads // groups, 2) for v in (B, C))
    dt = F.softplus(dt + w["dt_bias"]).clamp(*options["dt_limit"])
    state, rows = wide_start, []
    for i in range(13):
        fresh = torch.einsum("bh,bhp,bhn->bhpn", dt[:, i], x[:, i], B[:, i])
        state = torch.exp(dt[:, i] * w["A"])[..., None, None] * state + fresh
        rows.append(torch.einsum("bhpn,bhn->bhp", state, C[:, i]))
    D = w["D"] if w["D"].dim() == 2 else w["D"][:, None]
    y = (torch.stack(rows, 1) + D * x).flatten(2)
    if w["rmsnorm_weight"] is None:
        y = y * F.silu(z)
    else:
        y = y if options["norm_before_gate"] else y * F.silu(z)
        y = norm_definition(y.unflatten(-1, (groups, -1)), 1.0, None, 1e-3, True).flatten(-2) * w["rmsnorm_weight"]
        y = y * F.silu(z) if options["norm_before_gate"] else y
    wanted = torch.cat([F.silu(gate0) * x0, y], -1) @ w["outproj_weight"].T + w["outproj_bias"]
    leaves = [[*(s[n] for n in t if s[n] is not None), i] for s, i in ((t, start), (w, wide_start))]
    assert_close([out, final], [wanted, state], *leaves, tolerance=2e-5)
    fresh = ssd_combined.mamba_split_conv1d_scan_combined(**t, **options)
    again = ssd_combined.mamba_split_conv1d_scan_ref(**t, **options)
    torch.testing.assert_close(again, fresh, rtol=1e-4, atol=1e-4)


def test_parts_of_a_mamba2_block_that_do_not_add_up_are_named():
    arguments = (torch.zeros(1, 4, 30), torch.zeros(18, 4), None, torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="headdim is needed where D is"):
        ssd_combined.mamba_split_conv1d_scan_combined(*arguments, torch.zeros(2), 8)
    with pytest.raises(ValueError, match="30 projected channels are not 8 gates, 18 convolved channels and 2 step"):
        ssd_combined.mamba_split_conv1d_scan_combined(*arguments, torch.zeros(2), 8, headdim=4, ngroups=2)


def test_padding_in_a_packed_mamba2_block_leaves_no_trace():
    block = (torch.randn(18, 4), torch.randn(18), torch.randn(2), -torch.rand(2), torch.randn(2))
    z = torch.randn(1, 10, 28)
    numbers = torch.tensor([[0, 0, 0, -1, -1, 1, 1, 1, 1, 1]], dtype=torch.int32)
    out = ssd_combined.mamba_split_conv1d_scan_combined(z, *block, 4, seq_idx=numbers, headdim=4)
    for part in (slice(0, 3), slice(5, 10)):
        alone = ssd_combined.mamba_split_conv1d_scan_combined(z[:, part], *block, 4, headdim=4)
        torch.testing.assert_close(out[:, part], alone, rtol=1e-5, atol=1e-5)
    told = torch.tensor([0, 3, 10])
    by_lengths = ssd_combined.mamba_split_conv1d_scan_combined(z, *block, 4, cu_seqlens=told, headdim=4)
    torch.testing.assert_close(by_lengths[:, :3], out[:, :3])


@pytest.mark.parametrize("limit", [(0.0, float("inf")), (0.2, 0.5)])
def test_mamba2_by_the_scan_of_mamba(limit):
    x, dt, A = torch.randn(2, 11, 4, 3), torch.randn(2, 11, 4), -torch.rand(4)
    B, C, D, z, bias = (
        torch.randn(2, 11, 2, 5),
        torch.randn(2, 11, 2, 5),
        torch.randn(4),
        torch.randn(2, 11, 4, 3),
        torch.randn(4),
    )
    one = ssd_combined.ssd_selective_scan(x, dt, A, B, C, D, z, bias, True, limit)
    two = ssd_combined.mamba_chunk_scan_combined(x, dt, A, B, C, 8, D, z, bias, dt_softplus=True, dt_limit=limit)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    if limit[1] == float("inf"):
        for same in (ssd_combined.mamba_chunk_scan, ssd_combined.ssd_chunk_scan_combined_ref):
            torch.testing.assert_close(same(x, dt, A, B, C, 8, D, z, bias, True), two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["channels", "groups", "heads", "alike"])
def test_one_token_by_the_reference(form):
    """`alike`: one rate and one step size a head, expanded, as Mamba-2's block calls it."""
    heads = () if form in ("channels", "groups") else (4,)
    groups = () if form == "channels" else (2,)
    width, states = 6, 5
    A = -torch.rand(*heads, width, states)
    dt, bias = torch.randn(2, *heads, width), torch.randn(*heads, width)
    if form == "alike":
        A = -torch.rand(4)[:, None, None].expand(4, width, states)
        dt, bias = torch.randn(2, 4, 1).expand(2, 4, width), torch.randn(4, 1).expand(4, width)
    others = (torch.randn(2, *groups, states), torch.randn(2, *groups, states), torch.randn(*heads, width))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        state = torch.randn(2, *heads, width, states).to(dtype)
        x, z = torch.randn(2, *heads, width).to(dtype), torch.randn(2, *heads, width).to(dtype)
        same = state.clone().float()
        out = selective_state_update(state, x, dt, A, *others, z, bias, dt_softplus=True)
        wanted = selective_state_update_ref(same, x.float(), dt, A, *others, z.float(), bias, dt_softplus=True)
        torch.testing.assert_close(out.float(), wanted, rtol=tolerance, atol=5 * tolerance)
        torch.testing.assert_close(state.float(), same, rtol=tolerance, atol=tolerance)


def test_convolution_by_its_references():
    x, weight, bias, start = torch.randn(2, 6, 11), torch.randn(6, 4), torch.randn(6), torch.randn(2, 6, 3)
    for options in ({}, {"initial_states": start, "return_final_states": True}):
        found, wanted = (
            f(x, weight, bias, activation="silu", **options) for f in (causal_conv1d_fn, convolution.causal_conv1d_ref)
        )
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for ring in (None, torch.tensor([2, 7])):
        states = start.clone(), start.clone()
        out = causal_conv1d_update(x[..., :2], states[0], weight, bias, "silu", ring)
        wanted = convolution.causal_conv1d_update_ref(x[..., :2], states[1], weight, bias, "silu", ring)
        torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(*states)


def test_the_functions_that_mamba_ssm_takes_from_causal_conv1d():
    x, weight, bias, start = leaf(2, 6, 11), leaf(6, 4), leaf(6), leaf(2, 6, 3)
    final, dout, dfinal = torch.zeros(2, 6, 3), torch.randn(2, 6, 11), torch.randn(2, 6, 3)
    out = causal_conv1d_fwd_function(x, weight, bias, None, start, final, True)
    expected, last = causal_conv1d_fn(x, weight, bias, None, start, True, activation="silu")
    assert torch.equal(out, expected)
    assert torch.equal(final, last)
    room = torch.zeros(2, 6, 11)
    found = causal_conv1d_bwd_function(x, weight, bias, dout, None, start, dfinal, room, True, True)
    wanted = torch.autograd.grad((expected, last), (x, weight, bias, start), (dout, dfinal))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert found[0] is room
    packed = causal_conv1d_bwd_function(
        x, weight, None, dout, torch.tensor([[0] * 4 + [1] * 7] * 2), None, None, None, False, False
    )
    assert packed[2:] == (None, None)
    states = start.detach().clone(), start.detach().clone()
    with torch.no_grad():
        one = causal_conv1d_update_function(x[..., :1], states[0], weight, bias, True, None, None)
        assert torch.equal(one, causal_conv1d_update(x[..., :1], states[1], weight, bias, "silu"))
