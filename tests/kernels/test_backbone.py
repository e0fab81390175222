"""The backbone's contract: shapes, dtypes, state, step, errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mamba_kernels.blocks import Backbone, BackboneConfig

PATTERNS = {
    "mamba": {"layers": ["mamba", "mamba"]},
    "hybrid": {"layers": ["mamba", "attention"]},
    "wide taps": {"layers": ["mamba"], "d_conv": 7, "d_state": 3, "dt_rank": 5},
    "mamba2": {"layers": ["mamba2", "mamba2"], "head_width": 8},
    "mamba2 in groups": {"layers": ["mamba2"], "head_width": 4, "n_groups": 3, "conv_bias": False, "proj_bias": True},
    "s4d": {"layers": ["s4d", "s4d"]},
    "hyena": {"layers": ["hyena", "hyena"]},
    "hyena hybrid": {"layers": ["hyena", "mamba"], "conv_bias": False, "proj_bias": True, "d_conv": 1},
    "one tap": {"layers": ["mamba"], "d_conv": 1, "conv_bias": False, "proj_bias": True},
}
TWO_SIDED = {
    "add": {"bidirectional": "add"},
    "add untied": {"bidirectional": "add", "tie_directions": False},
    "concat": {"bidirectional": "concat"},
    "concat untied": {"bidirectional": "concat", "tie_directions": False},
    "mamba2 add": {"layers": ["mamba2", "attention"], "bidirectional": "add"},
    "mamba2 concat untied": {"layers": ["mamba2", "attention"], "bidirectional": "concat", "tie_directions": False},
    "s4d add": {"layers": ["s4d", "attention"], "bidirectional": "add"},
    "hyena add": {"layers": ["hyena"], "bidirectional": "add"},
    "hyena concat untied": {"layers": ["hyena"], "bidirectional": "concat", "tie_directions": False},
    "equivariant": {"reverse_complement": "equivariant", "n_heads": 1},
    "equivariant add": {"reverse_complement": "equivariant", "bidirectional": "add", "n_heads": 1},
}

ALONE = {"hybrid": PATTERNS["hybrid"], "hyena": PATTERNS["hyena"], **TWO_SIDED}


def make(dtype=torch.float64, **changes):
    values = {"d_model": 12, "d_state": 4, "n_heads": 2, "layers": ["mamba"], "chunk_size": None, **changes}
    return Backbone(BackboneConfig(**values)).to(dtype)


def tokens(length, batch=2, dtype=torch.float64, width=12):
    return torch.randn(batch, length, width, dtype=dtype)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_feeding_in_pieces_is_feeding_whole(pattern):
    backbone, x = make(**pattern), tokens(23)
    reset = torch.rand(2, 23) < 0.15
    whole, final = backbone(x, reset=reset)
    state, pieces = None, []
    for start, stop in [(0, 1), (1, 3), (3, 16), (16, 23)]:
        y, state = backbone(x[:, start:stop], state, reset=reset[:, start:stop])
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_a_step_is_the_piece_of_one_token(pattern, dtype):
    backbone, x = make(dtype, **pattern), tokens(13, dtype=dtype)
    whole, _ = backbone(x)
    state, steps = backbone.initial_state(2), []
    for t in range(13):
        y, state = backbone.step(x[:, t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, dim=1), whole)


def test_the_state_of_a_state_space_layer_does_not_grow():
    backbone = make(layers=["mamba"])
    _, short = backbone(tokens(3))
    _, long = backbone(tokens(300))
    assert [t.shape for t in long[0]] == [t.shape for t in short[0]] == [(2, 24, 3), (2, 24, 4)]


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_no_output_depends_on_a_later_token(pattern):
    backbone, x = make(**pattern), tokens(17)
    other = x.clone()
    other[:, 9:] = torch.randn_like(other[:, 9:])
    torch.testing.assert_close(backbone(other)[0][:, :9], backbone(x)[0][:, :9])


@pytest.mark.parametrize("changes", TWO_SIDED.values(), ids=TWO_SIDED)
def test_every_output_of_a_two_sided_backbone_depends_on_both_ends(changes):
    backbone = make(**{"layers": ["mamba"], **changes})
    x = tokens(11).requires_grad_()
    backbone(x)[0][:, 5].sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(dim=-1) > 0)[:, [0, 10]].all())


@pytest.mark.parametrize("changes", ALONE.values(), ids=ALONE)
def test_packed_documents_do_not_see_each_other(changes):
    backbone = make(**{"layers": ["mamba", "attention"], **changes})
    first, second = tokens(9, batch=1), tokens(6, batch=1)
    packed = torch.cat([first, second], dim=1)
    y, _ = backbone(packed, reset=torch.arange(15)[None] == 9)
    torch.testing.assert_close(y, torch.cat([backbone(first)[0], backbone(second)[0]], dim=1))


@pytest.mark.parametrize("changes", ALONE.values(), ids=ALONE)
def test_rows_of_a_batch_do_not_see_each_other(changes):
    backbone, x = make(**{"layers": ["mamba", "attention"], **changes}), tokens(9, batch=3)
    alone = torch.cat([backbone(x[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(backbone(x)[0], alone)


def test_two_passes_swap_when_the_sequence_is_turned_round():
    backbone = make(bidirectional="add", layers=["mamba"])
    mixer = backbone.blocks[0].mixer
    swapped = make(bidirectional="add", layers=["mamba"])
    swapped.load_state_dict(backbone.state_dict())
    other = swapped.blocks[0].mixer
    other.ssm, other.ssm_reverse = mixer.ssm_reverse, mixer.ssm
    x = tokens(10)
    torch.testing.assert_close(swapped(x.flip(1))[0].flip(1), backbone(x)[0])


@pytest.mark.parametrize("bidirectional", ["none", "add", "concat"])
def test_reverse_complement_of_the_input_flips_the_output(bidirectional):
    changes = {"reverse_complement": "equivariant", "bidirectional": bidirectional, "n_heads": 1}
    backbone = make(layers=["mamba", "attention"], **changes)
    x = tokens(13)
    y, _ = backbone(x)
    torch.testing.assert_close(backbone(x.flip(1, 2))[0], y.flip(1, 2))
    assert not torch.allclose(y, y.flip(1, 2))


def test_augment_is_the_data_sides_affair():
    plain = make()
    same = make(reverse_complement="augment")
    same.load_state_dict(plain.state_dict())
    x = tokens(5)
    assert torch.equal(same(x)[0], plain(x)[0])
    assert same(x)[1] is not None


def test_length_one_and_a_single_row():
    y, state = make(layers=["mamba", "attention"])(tokens(1, batch=1))
    assert y.shape == (1, 1, 12)
    assert state is not None


@pytest.mark.parametrize("changes", TWO_SIDED.values(), ids=TWO_SIDED)
def test_a_two_sided_backbone_refuses_a_state(changes):
    backbone = make(**changes)
    for call in (lambda: backbone.initial_state(2), lambda: backbone.step(tokens(1)[:, 0], ((),))):
        with pytest.raises(ValueError, match="looks both ways has no state to carry"):
            call()
    with pytest.raises(ValueError, match="give it the whole sequence"):
        backbone(tokens(4), ((),))
    assert backbone(tokens(4))[1] is None


@pytest.mark.parametrize(
    ("x", "reset", "message"),
    [
        (torch.zeros(2, 5, 11), None, r"x has shape \(2, 5, 11\).*accepted: \(batch, length, 12\)"),
        (torch.zeros(5, 12), None, r"x has shape \(5, 12\)"),
        (torch.zeros(2, 5, 12, dtype=torch.long), None, "int64; accepted: .* of floating point"),
        (torch.zeros(2, 5, 12), torch.zeros(2, 4, dtype=torch.bool), r"reset has shape \(2, 4\).*\(2, 5\) of bool"),
        (torch.zeros(2, 5, 12), torch.zeros(2, 5), "float32; accepted"),
    ],
)
def test_a_wrong_shape_is_shown_with_the_right_one(x, reset, message):
    with pytest.raises(ValueError, match=message):
        make(torch.float32)(x, reset=reset)


def test_a_state_of_another_depth_is_refused():
    state = make(layers=["mamba"] * 3).initial_state(2)
    with pytest.raises(ValueError, match="the state holds 3 layers, the backbone has 1"):
        make()(tokens(4), state)


def test_bfloat16_module_keeps_a_float32_stream_and_gives_bfloat16():
    backbone = make(torch.float32, layers=["mamba"] * 3)
    x = tokens(31, dtype=torch.float32)
    expected, _ = backbone(x)
    backbone.to(torch.bfloat16)
    y, state = backbone(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert state is not None
    assert state[0][1].dtype == torch.float32
    assert (y.float() - expected).abs().max() < 0.15
    step, _ = backbone.step(x[:, 0].bfloat16(), backbone.initial_state(2))
    torch.testing.assert_close(step, y[:, 0], atol=0.05, rtol=0.05)


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_autocast_runs_forward_and_backward(chunk_size):
    backbone = make(torch.float32, layers=["mamba", "attention"], chunk_size=chunk_size)
    x = tokens(20, dtype=torch.float32)
    expected, _ = backbone(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = backbone(x)
    y.float().square().mean().backward()
    assert (y.float() - expected).abs().max() < 0.15
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in backbone.parameters())


def test_gradients_of_a_tiny_backbone_against_finite_differences():
    backbone = make(d_model=4, d_state=2, layers=["mamba", "attention"])
    names = [name for name, _ in backbone.named_parameters()]
    state = tuple(
        tuple(t.detach().requires_grad_() if t.is_floating_point() else t for t in layer)
        for layer in backbone(tokens(2, batch=1, width=4))[1]
    )
    leaves = [t for layer in state for t in layer if t.is_floating_point()]

    def run(x, *rest):
        given = iter(rest[: len(leaves)])
        before = tuple(tuple(next(given) if t.is_floating_point() else t for t in layer) for layer in state)
        values = dict(zip(names, rest[len(leaves) :], strict=True))
        y, after = torch.func.functional_call(backbone, values, (x, before))
        return (y, *(t for layer in after for t in layer if t.is_floating_point()))

    x = tokens(3, batch=1, width=4).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *leaves, *backbone.parameters()), fast_mode=True)


def test_compiles_whole_without_a_graph_break_and_in_chunks_with_them():
    # In a process of its own: the runtime type checker of this one is not for the compiler to trace.
    program = """
import torch
from mamba_kernels.blocks import Backbone, BackboneConfig
torch.manual_seed(0)
backbone = Backbone(BackboneConfig(d_model=12, d_state=4, n_heads=2, layers=["mamba", "attention"]))
x = torch.randn(2, 9, 12)
compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)
torch.testing.assert_close(compiled(x)[0], backbone(x)[0])
expected = torch.autograd.grad(backbone(x)[0].sum(), list(backbone.parameters()))
torch.testing.assert_close(torch.autograd.grad(compiled(x)[0].sum(), list(backbone.parameters())), expected)

chunked = Backbone(BackboneConfig(**{**backbone.config.to_dict(), "chunk_size": 4}))
chunked.load_state_dict(backbone.state_dict())
found = torch.compile(chunked, backend="aot_eager")(x)[0]
torch.testing.assert_close(torch.autograd.grad(found.sum(), list(chunked.parameters())), expected)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_published_size():
    backbone = Backbone(BackboneConfig(d_model=128, layers=["mamba"] * 12))
    assert sum(p.numel() for p in backbone.parameters()) == 12 * 116_608 + 128
