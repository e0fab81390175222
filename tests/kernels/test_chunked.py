"""Working in chunks changes memory, not numbers: outputs, final state and every gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mamba_kernels.blocks import Backbone, BackboneConfig, Piece
from mamba_kernels.blocks.backbone import Chunking, chunking
from mamba_kernels.blocks.replay import Tape

KINDS = {
    "causal": {"layers": ["mamba", "mamba"]},
    "hybrid": {"layers": ["mamba", "attention"]},
    "biases": {"layers": ["mamba"], "proj_bias": True, "d_conv": 6},
    "mamba2": {"layers": ["mamba2", "mamba"], "head_width": 4, "n_groups": 2},
    "mamba2 concat": {"layers": ["mamba2"], "bidirectional": "concat", "proj_bias": True},
    "s4d": {"layers": ["s4d", "mamba"]},
    "s4d concat": {"layers": ["s4d"], "bidirectional": "concat"},
    "hyena": {"layers": ["hyena", "mamba"]},
    "hyena add": {"layers": ["hyena"], "bidirectional": "add"},
    "add": {"layers": ["mamba", "mamba"], "bidirectional": "add"},
    "add untied": {"layers": ["mamba"], "bidirectional": "add", "tie_directions": False, "proj_bias": True},
    "concat": {"layers": ["mamba"], "bidirectional": "concat", "proj_bias": True},
    "concat untied": {"layers": ["mamba"], "bidirectional": "concat", "tie_directions": False},
    "equivariant": {"layers": ["mamba"], "reverse_complement": "equivariant", "bidirectional": "add"},
    "hybrid add": {"layers": ["mamba", "attention"], "bidirectional": "add"},
}


def pair(chunk_size, dtype=torch.float64, **changes):
    """The same backbone twice: whole, and in chunks."""
    values = {"d_model": 12, "d_state": 4, "n_heads": 2, "chunk_size": None, **changes}
    whole = Backbone(BackboneConfig(**values)).to(dtype)
    chunked = Backbone(dataclasses.replace(whole.config, chunk_size=chunk_size)).to(dtype)
    chunked.load_state_dict(whole.state_dict())
    return whole, chunked


def differentiate(backbone, x, state=None, reset=None):
    """Output, final state, and the gradients of input, initial state and parameters for a fixed linear loss."""
    x = x.detach().requires_grad_()
    if state is not None:
        state = tuple(tuple(t.detach().requires_grad_(t.is_floating_point()) for t in layer) for layer in state)
    y, after = backbone(x, state, reset=reset)
    outputs = [y, *(t for layer in after or () for t in layer if t.is_floating_point())]
    weights = torch.Generator().manual_seed(7)
    loss = sum((t * torch.randn(t.shape, generator=weights, dtype=t.dtype)).sum() for t in outputs)
    inputs = [x, *(t for layer in state or () for t in layer if t.requires_grad), *backbone.parameters()]
    return outputs, torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("batch", "length", "chunk_size"), [(1, 23, 5), (3, 8, 8), (2, 9, 8), (2, 7, 1)])
def test_chunks_give_what_the_whole_gives(kind, batch, length, chunk_size):
    whole, chunked = pair(chunk_size, **kind)
    x = torch.randn(batch, length, 12, dtype=torch.float64)
    torch.testing.assert_close(differentiate(chunked, x), differentiate(whole, x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_with_documents(kind):
    whole, chunked = pair(6, **kind)
    x = torch.randn(2, 31, 12, dtype=torch.float64)
    reset = torch.rand(2, 31) < 0.2
    expected = differentiate(whole, x, reset=reset)
    torch.testing.assert_close(differentiate(chunked, x, reset=reset), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["causal", "hybrid", "biases", "mamba2", "s4d", "hyena"])
def test_with_an_initial_state(kind):
    whole, chunked = pair(4, **KINDS[kind])
    with torch.no_grad():
        _, state = whole(torch.randn(2, 5, 12, dtype=torch.float64))
    x = torch.randn(2, 11, 12, dtype=torch.float64)
    expected = differentiate(whole, x, state)
    torch.testing.assert_close(differentiate(chunked, x, state), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["causal", "add", "concat", "mamba2"])
def test_in_float32(kind):
    whole, chunked = pair(100, torch.float32, **KINDS[kind])
    x = torch.randn(1, 777, 12)
    torch.testing.assert_close(differentiate(chunked, x), differentiate(whole, x), rtol=1e-4, atol=2e-4)


def test_gradients_reach_across_the_chunks_from_the_last_to_the_first():
    _, chunked = pair(3, layers=["mamba"])
    x = torch.randn(1, 30, 12, dtype=torch.float64, requires_grad=True)
    chunked(x)[0][:, -1].sum().backward()
    assert x.grad is not None
    assert bool((x.grad[0].abs().sum(dim=-1) > 0).all())


def test_frozen_parameters_and_inputs_without_gradient():
    whole, chunked = pair(4, layers=["mamba", "mamba"])
    x = torch.randn(1, 10, 12, dtype=torch.float64)
    for backbone in (whole, chunked):
        backbone.blocks[0].requires_grad_(False)
        backbone.blocks[1].mixer.ssm.A_log.requires_grad_(False)
        backbone(x)[0].square().sum().backward()
    for expected, found in zip(whole.parameters(), chunked.parameters(), strict=True):
        assert (expected.grad is None) == (found.grad is None)
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad)


def test_without_gradients_nothing_is_recorded():
    whole, chunked = pair(4, layers=["mamba", "attention"])
    x = torch.randn(2, 10, 12, dtype=torch.float64)
    with torch.no_grad():
        y, _ = chunked(x)
    assert not y.requires_grad
    torch.testing.assert_close(y, whole(x)[0].detach())


LOOK_BACK = ["causal", "biases", "mamba2", "s4d"]


@pytest.fixture
def through_stack(monkeypatch):
    """However short a sequence is, its chunks go through all layers before the next one begins."""
    monkeypatch.setattr("mamba_kernels.blocks.backbone.AUTO_STREAM_BYTES", 0)


@pytest.mark.parametrize("kind", LOOK_BACK)
@pytest.mark.parametrize(("batch", "length", "chunk_size"), [(1, 23, 5), (3, 8, 3), (2, 9, 8), (2, 7, 1)])
def test_chunks_through_the_whole_stack_give_what_the_whole_gives(kind, batch, length, chunk_size, through_stack):
    whole, chunked = pair(chunk_size, **KINDS[kind])
    assert chunked._chunking(torch.zeros(batch, length, 12), None).through_stack
    x, reset = torch.randn(batch, length, 12, dtype=torch.float64), torch.rand(batch, length) < 0.2
    with torch.no_grad():
        _, state = whole(torch.randn(batch, 5, 12, dtype=torch.float64))
    for given in ((None, None), (state, None), (None, reset), (state, reset)):
        expected = differentiate(whole, x, *given)
        torch.testing.assert_close(differentiate(chunked, x, *given), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["causal", "mamba2"])
def test_chunks_through_the_whole_stack_in_float32(kind, through_stack):
    whole, chunked = pair(100, torch.float32, **KINDS[kind])
    x = torch.randn(1, 777, 12)
    torch.testing.assert_close(differentiate(chunked, x), differentiate(whole, x), rtol=1e-4, atol=2e-4)


def test_both_strands_go_through_the_whole_stack(through_stack):
    whole, chunked = pair(4, layers=["mamba", "mamba"], reverse_complement="equivariant")
    x = torch.randn(2, 11, 12, dtype=torch.float64)
    torch.testing.assert_close(differentiate(chunked, x), differentiate(whole, x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["hybrid", "hyena", "add", "concat", "equivariant"])
def test_a_chunk_waits_for_its_layer_where_one_looks_both_ways_or_at_everything(kind, through_stack):
    _, chunked = pair(4, **KINDS[kind])
    assert not chunked._chunking(torch.zeros(1, 8, 12), None).through_stack


def test_a_block_that_something_waits_for_is_called(through_stack):
    whole, chunked = pair(4, layers=["mamba", "mamba"])
    x, seen = torch.randn(1, 10, 12, dtype=torch.float64), []
    handle = chunked.blocks[1].register_forward_hook(lambda block, given, found: seen.append(found[0].shape))
    torch.testing.assert_close(differentiate(chunked, x), differentiate(whole, x), rtol=1e-9, atol=1e-11)
    assert seen == [(1, 10, 12)]
    handle.remove()
    assert chunked._chunking(x, None).through_stack
    chunked.blocks[0].__class__ = type("Wrapped", (type(chunked.blocks[0]),), {})
    assert not chunked._chunking(x, None).through_stack


def test_with_frozen_layers_through_the_whole_stack(through_stack):
    whole, chunked = pair(4, layers=["mamba", "mamba"])
    for backbone in (whole, chunked):
        backbone.blocks[0].requires_grad_(False)
        backbone(torch.linspace(-1, 1, 120, dtype=torch.float64).reshape(1, 10, 12))[0].square().sum().backward()
    for expected, found in zip(whole.parameters(), chunked.parameters(), strict=True):
        assert (expected.grad is None) == (found.grad is None)
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad)


def test_long_sequences_go_through_the_whole_stack_where_the_layers_inputs_are_large():
    config = BackboneConfig(d_model=128, layers=["mamba"] * 12)
    assert chunking(config, 1, 4096) == Chunking(None)
    assert chunking(config, 1, 2**17) == Chunking(16_384)
    tokens, through = chunking(config, 1, 2**18)
    assert through
    assert tokens == 2**28 // (6 * 4 * 256 * 12)
    assert chunking(config, 4, 2**16) == Chunking(tokens // 4, through_stack=True)
    assert chunking(config, 1, 2**18, through_stack=False) == Chunking(16_384)
    assert chunking(dataclasses.replace(config, chunk_size=1024), 1, 2**18) == Chunking(1024, through_stack=True)
    assert chunking(dataclasses.replace(config, chunk_size=None), 1, 2**18) == Chunking(None)


def test_through_the_whole_stack_no_layer_keeps_its_input(through_stack):
    def kept(layers, length):
        backbone, total = pair(64, layers=["mamba"] * layers)[1], []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: total.append(t) or t, lambda t: t):
            backbone(torch.randn(1, length, 12, dtype=torch.float64, requires_grad=True))
        return sum(t.numel() for t in total if t.shape[:2] == (1, length))

    assert kept(2, 512) == kept(6, 512) == 512 * 12


def test_activations_kept_are_the_residual_stream():
    def kept(backbone, length):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel() if tensor.shape[:1] == (1,) else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            backbone(torch.randn(1, length, 12, dtype=torch.float64, requires_grad=True))
        return total

    whole, chunked = pair(64, layers=["mamba"] * 3)
    stream = 12 * (kept_layers := 3 + 1)
    growth = (kept(chunked, 1024) - kept(chunked, 512)) / 512
    states = 3 * (24 * 3 + 24 * 4) / 64
    assert kept_layers * 12 <= growth <= stream + states + 3 * 24
    assert (kept(whole, 1024) - kept(whole, 512)) / 512 > 4 * growth


@pytest.mark.parametrize("kind", ["causal", "biases", "add", "concat untied"])
@pytest.mark.parametrize(("batch", "length", "chunk_size"), [(2, 301, 100), (1, 130, 129), (3, 7, 1)])
def test_the_replayed_scan_gives_the_gradients_of_a_second_one(kind, batch, length, chunk_size):
    # float32 on the CPU: here a recomputed chunk does not run its scan forward again.
    whole, chunked = pair(chunk_size, torch.float32, **KINDS[kind])
    x, reset = torch.randn(batch, length, 12), torch.rand(batch, length) < 0.02
    state = None
    if whole.config.causal:
        with torch.no_grad():
            _, state = whole(torch.randn(batch, 5, 12))
    expected = differentiate(whole, x, state, reset)
    torch.testing.assert_close(differentiate(chunked, x, state, reset), expected, rtol=1e-4, atol=2e-4)


def test_a_chunk_leaves_its_scan_states_and_nothing_wide():
    mixer = pair(4, torch.float32, layers=["mamba"])[1].blocks[0].mixer
    (branch,) = mixer.branches()
    state, x = branch.initial_state(1, torch.device("cpu"), torch.float32), torch.randn(1, 512, 12)
    tape = Tape()
    with torch.no_grad():
        y, _ = branch.run(x, state, Piece(None, tape))
    assert y.abs().sum() > 0
    assert 0 < sum(t.numel() for t in tape.tensors) <= 64 * 4 * 512 / 64
    replayed, _ = branch.run(x.requires_grad_(), state, Piece(None, Tape(tape.tensors)))
    assert replayed.requires_grad
    assert not replayed.any()


def test_auto_keeps_what_is_small_and_recomputes_what_is_large(monkeypatch):
    whole, auto = pair("auto", layers=["mamba"])
    monkeypatch.setattr("mamba_kernels.blocks.backbone.AUTO_KEPT_BYTES", 6 * 8 * 24 * 3 * 10)
    calls = []
    run = torch.autograd.graph.saved_tensors_hooks
    for rows, length in [(3, 10), (3, 11), (1, 31)]:
        sizes = []
        with run(lambda t, sizes=sizes: sizes.append(t.shape) or t, lambda t: t):
            y, _ = auto(x := torch.randn(rows, length, 12, dtype=torch.float64, requires_grad=True))
        calls.append((rows, length, 24) in [tuple(size) for size in sizes])
        torch.testing.assert_close(torch.autograd.grad(y.sum(), x), torch.autograd.grad(whole(x)[0].sum(), x))
    assert calls == [True, False, False]
