"""The blocks of mamba-ssm against statements of their definitions in float64, written here."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from mamba_kernels.compat.mamba_ssm import Mamba, Mamba2
from mamba_kernels.compat.mamba_ssm.modules.mha import MHA
from mamba_kernels.compat.mamba_ssm.utils.generation import InferenceParams


def convolved(x, weight, bias):
    """(B, L, D): each channel with its own taps over the past, then silu."""
    padded = F.pad(x.transpose(1, 2), (weight.shape[-1] - 1, 0))
    return F.silu(F.conv1d(padded, weight, bias, groups=x.shape[2])).transpose(1, 2)


def scanned(x, dt, A, B, C, D, z):
    """h' = exp(dt A) h + dt B x, y = (C h + D x) silu(z), over (B, L, D) and (D, N)."""
    state, rows = x.new_zeros(x.shape[0], *A.shape), []
    for t in range(x.shape[1]):
        step = dt[:, t, :, None]
        state = torch.exp(step * A) * state + step * x[:, t, :, None] * B[:, t, None]
        rows.append((state * C[:, t, None]).sum(-1))
    return (torch.stack(rows, 1) + D * x) * F.silu(z)


def mamba_definition(w, u, rank, states, two_ways="none"):
    """A Mamba block from its weights by name, in Vision Mamba's two-way forms too."""

    def selected(x, name):
        parts = x @ w[f"x_proj{name}.weight"].T
        dt, B, C = parts.split([rank, states, states], dim=-1)
        return F.softplus(dt @ w[f"dt_proj{name}.weight"].T + w[f"dt_proj{name}.bias"]), B, C

    x, z = (u @ w["in_proj.weight"].T).chunk(2, dim=-1)
    there = convolved(x, w["conv1d.weight"], w["conv1d.bias"])
    y = scanned(there, *selected(there, "")[:1], -w["A_log"].exp(), *selected(there, "")[1:], w["D"], z)
    if two_ways != "none":
        name, skip = ("", "D") if two_ways == "v1" else ("_b", "D_b")
        back = there.flip(1) if two_ways == "v1" else convolved(x.flip(1), w["conv1d_b.weight"], w["conv1d_b.bias"])
        dt, B, C = selected(back, name)
        y = y + scanned(back, dt, -w["A_b_log"].exp(), B, C, w[skip], z.flip(1)).flip(1)
    return y @ w["out_proj.weight"].T


def double(module):
    return {name: p.detach().double().requires_grad_() for name, p in module.named_parameters()}


def assert_same(module, u, out, definition):
    """Output to 1e-5, and the gradient of the input and of every parameter."""
    weights = double(module)
    wide = u.detach().double().requires_grad_()
    expected = definition(weights, wide)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    outer = torch.randn(out.shape, dtype=torch.float64)
    parameters = dict(module.named_parameters())
    found = torch.autograd.grad((out.double() * outer).sum(), [u, *parameters.values()])
    wanted = torch.autograd.grad((expected * outer).sum(), [wide, *weights.values()])
    for name, a, b in zip(["u", *parameters], found, wanted, strict=True):
        error = float((a - b).abs().max() / (1 + b.abs().max()))
        assert error < 1e-5, f"gradient of {name}: {error:.1e}"


@pytest.mark.parametrize("two_ways", ["none", "v1", "v2"])
@pytest.mark.parametrize("length", [1, 2, 37])
def test_mamba_is_its_definition(length, two_ways):
    block = Mamba(12, d_state=5, d_conv=3, dt_rank=2, bimamba_type=two_ways)
    u = torch.randn(2, length, 12, requires_grad=True)
    assert_same(block, u, block(u), lambda w, x: mamba_definition(w, x, 2, 5, two_ways))


def test_mamba_has_the_weights_of_the_original():
    shapes = {name: tuple(tensor.shape) for name, tensor in Mamba(32, bias=True).state_dict().items()}
    assert shapes == {
        **{"A_log": (64, 16), "D": (64,), "in_proj.weight": (128, 32), "in_proj.bias": (128,)},
        **{"conv1d.weight": (64, 1, 4), "conv1d.bias": (64,), "x_proj.weight": (34, 64)},
        **{"dt_proj.weight": (64, 2), "dt_proj.bias": (64,), "out_proj.weight": (32, 64), "out_proj.bias": (32,)},
    }
    fresh = Mamba(32, dt_init="constant", dt_scale=3.0)
    assert fresh.dt_proj.weight.unique().tolist() == pytest.approx([3 / 2**0.5])
    steps = F.softplus(fresh.dt_proj.bias.detach())
    assert float(steps.min()) >= 0.001 - 1e-6
    assert float(steps.max()) <= 0.1 + 1e-6


def test_the_factors_of_vision_mamba():
    block = Mamba(8, bimamba_type="v2", if_divide_out=True, init_layer_scale=0.5)
    u = torch.randn(1, 9, 8)
    out = block(u)
    block.if_divide_out = False
    block.gamma.data.fill_(1.0)
    torch.testing.assert_close(block(u) / 4, out)
    for call in (lambda: block.step(u[:, :1], u, u), lambda: block(u, inference_params=InferenceParams(9, 1))):
        with pytest.raises(ValueError, match="goes from left to right; bimamba_type is 'v2'"):
            call()


OPTIONS = [
    {},
    {"ngroups": 2},
    {"rmsnorm": False},
    {"norm_before_gate": True, "ngroups": 2},
    {"d_ssm": 16, "D_has_hdim": True},
    {"dt_limit": (0.01, 0.02), "conv_bias": False},
]


def mamba2_definition(block, w, u):
    """A Mamba-2 block from its weights by name."""
    heads, width, groups, states = block.nheads, block.headdim, block.ngroups, block.d_state
    mlp = block.d_inner - block.d_ssm
    shared = groups * states
    sizes = [mlp, mlp, block.d_ssm, block.d_ssm + 2 * shared, heads]
    gate0, x0, z, mixed, dt = (u @ w["in_proj.weight"].T).split(sizes, dim=-1)
    x, B, C = convolved(mixed, w["conv1d.weight"], w.get("conv1d.bias")).split([block.d_ssm, shared, shared], dim=-1)
    dt = F.softplus(dt + w["dt_bias"]).clamp(*block.dt_limit)
    B, C = (
        t.unflatten(-1, (groups, states)).repeat_interleave(block.d_ssm // groups, dim=2).transpose(2, 3)
        for t in (B, C)
    )
    A = -w["A_log"].exp().repeat_interleave(width)
    D = w["D"] if block.D_has_hdim else w["D"].repeat_interleave(width)
    state, rows = u.new_zeros(u.shape[0], states, block.d_ssm), []
    for t in range(u.shape[1]):
        step = dt[:, t].repeat_interleave(width, dim=-1)
        state = torch.exp(step * A)[:, None] * state + (step * x[:, t])[:, None] * B[:, t]
        rows.append((state * C[:, t]).sum(1))
    y = torch.stack(rows, 1) + D * x

    def normed(y):
        parts = y.unflatten(-1, (groups, -1))
        return (parts / (parts.square().mean(-1, keepdim=True) + 1e-5).sqrt()).flatten(-2) * w["norm.weight"]

    if not block.rmsnorm:
        y = y * F.silu(z)
    else:
        y = normed(y) * F.silu(z) if block.norm_before_gate else normed(y * F.silu(z))
    return torch.cat([F.silu(gate0) * x0, y], -1) @ w["out_proj.weight"].T


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_mamba2_is_its_definition(options):
    block = Mamba2(12, d_state=6, headdim=4, chunk_size=8, **options)
    u = torch.randn(2, 21, 12, requires_grad=True)
    assert_same(block, u, block(u), lambda w, x: mamba2_definition(block, w, x))


def test_mamba2_has_the_weights_of_the_original():
    shapes = {name: tuple(tensor.shape) for name, tensor in Mamba2(64, ngroups=2, d_state=16).state_dict().items()}
    assert shapes == {
        **{"dt_bias": (2,), "A_log": (2,), "D": (2,), "in_proj.weight": (322, 64), "conv1d.weight": (192, 1, 4)},
        **{"conv1d.bias": (192,), "norm.weight": (128,), "out_proj.weight": (64, 128)},
    }


def test_mamba2_takes_rows_laid_out_flat():
    block = Mamba2(8, d_state=4, headdim=4)
    u = torch.randn(3, 10, 8)
    assert torch.equal(block(u.flatten(0, 1), seqlen=10), block(u).flatten(0, 1))


def mixers(**more):
    yield Mamba(16, d_state=4, layer_idx=0, **more)
    for options in ({}, {"ngroups": 2, "rmsnorm": False}, {"d_ssm": 16, "D_has_hdim": True, "dt_limit": (0.01, 0.02)}):
        yield Mamba2(16, d_state=4, headdim=4, layer_idx=0, **options, **more)
    yield MHA(16, 4, num_heads_kv=2, causal=True, rotary_emb_dim=4, d_conv=3, mlp_dim=256, layer_idx=0, **more)
    yield MHA(16, 4, head_dim=8, causal=True, rotary_emb_dim=6, rotary_emb_interleaved=True, layer_idx=0, **more)


@pytest.mark.parametrize("pieces", [[1] * 12, [7, 1, 1, 1, 1, 1], [2, 3, 1, 6]], ids=str)
def test_pieces_are_the_whole(pieces):
    for mixer in mixers(dtype=torch.float64):
        u = torch.randn(2, 12, 16, dtype=torch.float64)
        params, outs, start = InferenceParams(max_seqlen=12, max_batch_size=2), [], 0
        with torch.no_grad():
            for count in pieces:
                outs.append(mixer(u[:, start : start + count], inference_params=params))
                start += count
                params.seqlen_offset = start
            torch.testing.assert_close(torch.cat(outs, 1), mixer(u), rtol=1e-9, atol=1e-9)


def test_a_prompt_shorter_than_the_convolution_then_single_tokens():
    for mixer in (Mamba(8, layer_idx=3), Mamba2(8, d_state=4, headdim=4, layer_idx=3)):
        u = torch.randn(2, 8, 8)
        conv_state, ssm_state = mixer.allocate_inference_cache(2, 8)
        outs = []
        with torch.no_grad():
            for t in range(8):
                out, same_conv, same_ssm = mixer.step(u[:, t : t + 1], conv_state, ssm_state)
                assert same_conv is conv_state
                assert same_ssm is ssm_state
                outs.append(out)
            torch.testing.assert_close(torch.cat(outs, 1), mixer(u), rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match="must hold one token, found 8"):
            mixer.step(u, conv_state, ssm_state)


@pytest.mark.parametrize("told", ["seq_idx", "cu_seqlens"])
def test_packed_sequences_are_each_alone(told):
    bounds, numbers = [0, 5, 6, 20], [0] * 5 + [1] + [2] * 14
    packed = {told: torch.tensor(bounds) if told == "cu_seqlens" else torch.tensor([numbers])}
    for mixer in mixers():
        u = torch.randn(1, 20, 16)
        with torch.no_grad():
            alone = [mixer(u[:, a:b]) for a, b in itertools.pairwise(bounds)]
            torch.testing.assert_close(mixer(u, **packed), torch.cat(alone, 1), rtol=1e-5, atol=1e-5)
    for way in ("v1", "v2"):
        both = Mamba(16, d_state=4, bimamba_type=way)
        with torch.no_grad():
            alone = [both(u[:, a:b]) for a, b in itertools.pairwise(bounds)]
            torch.testing.assert_close(both(u, **packed), torch.cat(alone, 1), rtol=1e-5, atol=1e-5)


def test_packed_prompts_each_get_their_state():
    """Three prompts in one row, one of them empty; then a token of each, as rows of a batch."""
    bounds = [0, 5, 5, 12]
    for mixer in (Mamba(8, layer_idx=0), Mamba2(8, d_state=4, headdim=4, layer_idx=0)):
        u, token = torch.randn(1, 14, 8), torch.randn(3, 1, 8)
        params = InferenceParams(max_seqlen=20, max_batch_size=3)
        with torch.no_grad():
            out = mixer(u, inference_params=params, cu_seqlens=torch.tensor(bounds))
            assert not out[:, 12:].any()
            params.seqlen_offset = 1
            after = mixer(token, inference_params=params)
            for row, (start, end) in enumerate(itertools.pairwise(bounds)):
                whole = mixer(torch.cat([u[:, start:end], token[row : row + 1]], 1))
                torch.testing.assert_close(out[:, start:end], whole[:, :-1], rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(after[row : row + 1], whole[:, -1:], rtol=1e-5, atol=1e-6)


def attention_definition(w, u, heads, groups):
    """Causal softmax attention whose heads share keys and values."""
    width = u.shape[-1] // heads
    q, k, v = (u @ w["in_proj.weight"].T + w["in_proj.bias"]).split([heads * width, groups * width, groups * width], -1)
    q = q.unflatten(-1, (heads, -1))
    k, v = (t.unflatten(-1, (groups, -1)).repeat_interleave(heads // groups, 2) for t in (k, v))
    products = torch.einsum("bihe,bjhe->bhij", q, k) / width**0.5
    future = torch.ones(u.shape[1], u.shape[1], dtype=torch.bool).triu(1)
    mixed = torch.einsum("bhij,bjhe->bihe", products.masked_fill(future, -torch.inf).softmax(-1), v)
    return mixed.flatten(2) @ w["out_proj.weight"].T + w["out_proj.bias"]


def test_attention_is_its_definition():
    mixer = MHA(12, 6, num_heads_kv=2, causal=True)
    u = torch.randn(2, 9, 12, requires_grad=True)
    assert_same(mixer, u, mixer(u), lambda w, x: attention_definition(w, x, 6, 2))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_positions_matter_by_their_difference_alone(interleaved):
    from mamba_kernels.compat.mamba_ssm.modules.mha import rotate

    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def product(i, j):
        turned = (rotate(x, torch.tensor([at]), 6, 100.0, interleaved) for x, at in ((q, i), (k, j)))
        return float(torch.mul(*turned).sum())

    assert product(7, 3) == pytest.approx(product(104, 100))
    assert product(7, 3) != pytest.approx(product(7, 4))
    turned = rotate(q, torch.tensor([1]), 6, 100.0, interleaved)
    assert torch.equal(turned[..., 6:], q[..., 6:])
    if not interleaved:  # the first pair is (0, 3) of six, turned by 1 radian
        one, two = q[0, 0, 0, 0], q[0, 0, 0, 3]
        angle = torch.tensor(1.0, dtype=torch.float64)
        assert float(turned[0, 0, 0, 0]) == pytest.approx(float(one * angle.cos() - two * angle.sin()))


WRONG = [
    (lambda: Mamba(8, bimamba_type="v3"), ValueError, r"must be one of none, v1, v2, found 'v3'"),
    (lambda: Mamba(8, dt_init="zeros"), NotImplementedError, r"'random' or 'constant', found 'zeros'"),
    (lambda: Mamba2(8, headdim=5), ValueError, r"headdim 5 must divide 16 scanned channels"),
    (lambda: Mamba2(8, headdim=4, process_group=object()), NotImplementedError, r"train over ranks with DDP or FSDP"),
    (lambda: Mamba2(8, headdim=4, A_init_range=(0, 1)), ValueError, r"two positive numbers in order, found \(0, 1\)"),
    (lambda: MHA(10, 4), ValueError, r"divide embed_dim; found 4, 4 and 10"),
    (
        lambda: Mamba(8)(torch.zeros(1, 2, 8), inference_params=InferenceParams(4, 1)),
        ValueError,
        r"Mamba: generation needs layer_idx",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=lambda value: getattr(value, "__name__", value))
def test_what_a_caller_gets_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_states_of_another_batch_are_refused():
    mixer, params = Mamba(8, layer_idx=0), InferenceParams(9, 2)
    mixer(torch.zeros(2, 3, 8), inference_params=params)
    with pytest.raises(ValueError, match="states kept for layer 0 are of 2 rows, the input has 3"):
        mixer(torch.zeros(3, 3, 8), inference_params=params)


def test_attention_without_room_says_so():
    mixer, params = MHA(8, 2, causal=True, layer_idx=0), InferenceParams(4, 1)
    with pytest.raises(ValueError, match=r"there is room for 1 rows of 4 positions, found 1 of 5"):
        mixer(torch.zeros(1, 5, 8), inference_params=params)


def test_double_precision_stays_double():
    for mixer in mixers(dtype=torch.float64):
        u = torch.randn(1, 6, 16, dtype=torch.float64)
        rounded = mixer.float()(u.float()).double()
        exact = mixer.double()(u)
        assert exact.dtype == torch.float64
        torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=1e-4)
        assert not torch.equal(rounded, exact)
