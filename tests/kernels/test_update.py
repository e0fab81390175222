"""One-token updates: each backend against the float64 reference of the whole-sequence operator, step after step."""

import itertools

import pytest
import torch

from mamba_kernels import causal_conv1d, causal_conv1d_update, selective_scan, selective_state_update

BACKENDS = ["reference", "torch", "numba"]


def scan_inputs(batch, length, channels, states, groups, dtype=torch.float64):
    def normal(*shape):
        return torch.randn(*shape, dtype=dtype)

    inside = (batch, length, groups, states) if groups else (batch, length, states)
    return {
        "x": normal(batch, length, channels),
        "delta": normal(batch, length, channels),
        "A": -torch.rand(channels, states, dtype=dtype) * 4,
        "B": normal(*inside),
        "C": normal(*inside),
        "D": normal(channels),
        "z": normal(batch, length, channels),
        "delta_bias": normal(channels),
    }


def walk(inputs, state, backend, softplus=True):
    """Feed a sequence token by token; returns the outputs and the last state."""
    outputs = []
    for t in range(inputs["x"].shape[1]):
        token = {k: v[:, t] if k in ("x", "delta", "B", "C", "z") else v for k, v in inputs.items()}
        y, state = selective_state_update(state, **token, delta_softplus=softplus, backend=backend)
        outputs.append(y)
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "shape", [(1, 5, 1, 1, 0), (2, 7, 6, 3, 0), (2, 7, 6, 16, 3), (3, 4, 12, 5, 12), (1, 3, 1500, 4, 2)], ids=str
)
def test_steps_make_the_scan(shape, backend):
    inputs = scan_inputs(*shape)
    start = torch.randn(shape[0], shape[2], shape[3], dtype=torch.float64)
    expected = selective_scan(
        **inputs, delta_softplus=True, initial_state=start, return_final_state=True, backend="reference"
    )
    narrow = {name: tensor.float() for name, tensor in inputs.items()}
    found = walk(narrow, start.float(), backend)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("skip", "gate", "bias", "softplus"), list(itertools.product((False, True), repeat=4)))
def test_every_optional_argument_of_the_scan_step(skip, gate, bias, softplus, backend):
    inputs = scan_inputs(2, 3, 6, 4, 2)
    for name, kept in (("D", skip), ("z", gate), ("delta_bias", bias)):
        if not kept:
            del inputs[name]
    start = torch.zeros(2, 6, 4, dtype=torch.float64)
    expected, _ = selective_scan(**inputs, delta_softplus=softplus, return_final_state=True, backend="reference")
    narrow = {name: tensor.float() for name, tensor in inputs.items()}
    found, _ = walk(narrow, start.float(), backend, softplus)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("taps", [1, 2, 4, 7])
def test_steps_make_the_convolution(taps, activation, backend):
    x = torch.randn(2, 9, 5, dtype=torch.float64)
    weight, bias = torch.randn(5, taps, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    start = torch.randn(2, 5, taps - 1, dtype=torch.float64)
    options = {"initial_state": start, "return_final_state": True, "backend": "reference"}
    expected = causal_conv1d(x, weight, bias, activation, **options)
    state, outputs = start.float(), []
    for t in range(9):
        y, state = causal_conv1d_update(x[:, t].float(), state, weight.float(), bias.float(), activation, backend)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1).double(), expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.double(), expected[1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_left_alone_and_outputs_share_nothing_with_them(backend):
    inputs = {
        name: tensor[:, 0] for name, tensor in scan_inputs(2, 1, 6, 4, 2, torch.float32).items() if tensor.dim() > 2
    }
    state, conv_state, weight = torch.randn(2, 6, 4), torch.randn(2, 6, 3), torch.randn(6, 4)
    kept = state.clone(), conv_state.clone()
    y, new = selective_state_update(state, A=-torch.rand(6, 4), **inputs, backend=backend)
    other, new_conv = causal_conv1d_update(inputs["x"], conv_state, weight, backend=backend)
    for tensor in (y, new, other, new_conv):
        tensor.fill_(7.0)
    assert torch.equal(state, kept[0])
    assert torch.equal(conv_state, kept[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_tokens_keep_their_dtype_and_states_theirs(backend):
    inputs = {k: v[:, 0] if v.dim() > 2 else v for k, v in scan_inputs(2, 1, 6, 4, 2, torch.float32).items()}
    narrow = {k: v if k in ("A", "D", "delta_bias") else v.bfloat16() for k, v in inputs.items()}
    state = torch.randn(2, 6, 4)
    y, new = selective_state_update(state, **narrow, delta_softplus=True, backend=backend)
    assert (y.dtype, new.dtype) == (torch.bfloat16, torch.float32)
    exact = {k: v.double() for k, v in narrow.items()}
    expected, expected_state = selective_state_update(state.double(), **exact, delta_softplus=True, backend="reference")
    torch.testing.assert_close(y.double(), expected, atol=0.05, rtol=8e-3)
    torch.testing.assert_close(new.double(), expected_state, atol=1e-5, rtol=1e-5)
    conv_state = torch.randn(2, 6, 3).bfloat16()
    y, new = causal_conv1d_update(narrow["x"], conv_state, torch.randn(6, 4), backend=backend)
    assert (y.dtype, new.dtype) == (torch.bfloat16, torch.bfloat16)
    assert torch.equal(new, torch.cat([conv_state[:, :, 1:], narrow["x"].unsqueeze(2)], 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_flow_through_many_steps_whatever_the_backend(backend):
    inputs = scan_inputs(2, 4, 6, 3, 2, torch.float32)
    leaves = [tensor.requires_grad_() for tensor in inputs.values()]
    start = torch.randn(2, 6, 3, requires_grad=True)
    y, state = walk(inputs, start, backend)
    found = torch.autograd.grad(y.square().sum() + state.sum(), [*leaves, start])
    wide = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    begin = start.detach().double().requires_grad_()
    options = {"delta_softplus": True, "initial_state": begin, "return_final_state": True, "backend": "reference"}
    y, state = selective_scan(**wide, **options)
    expected = torch.autograd.grad(y.square().sum() + state.sum(), [*wide.values(), begin])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-3, rtol=1e-4)


def test_convolution_step_has_gradients():
    def function(x, state, weight, bias):
        return causal_conv1d_update(x, state, weight, bias, "silu")

    shapes = (2, 3), (2, 3, 3), (3, 4), (3,)
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_batch_and_strided_state(backend):
    y, new = causal_conv1d_update(torch.zeros(0, 3), torch.zeros(0, 3, 3), torch.zeros(3, 4), backend=backend)
    assert (y.shape, new.shape) == ((0, 3), (0, 3, 3))
    state = torch.randn(3, 5, 2).permute(2, 1, 0)
    x = torch.randn(2, 10)[:, ::2]
    weight = torch.randn(4, 5).t()
    found = causal_conv1d_update(x, state, weight, backend=backend)
    expected = causal_conv1d_update(x.contiguous(), state.contiguous(), weight.contiguous(), backend="reference")
    torch.testing.assert_close(found, expected)


def scan_arguments(**changes):
    zeros = torch.zeros
    arguments = {"state": zeros(2, 6, 4), "x": zeros(2, 6), "delta": zeros(2, 6), "A": zeros(6, 4)}
    return arguments | {"B": zeros(2, 4), "C": zeros(2, 4)} | changes


BAD_SCAN = [
    ({"state": torch.zeros(2, 6)}, r"state must be \(batch, channels, states\), found shape \(2, 6\)"),
    ({"x": torch.zeros(2, 5)}, r"x must have shape \(2, 6\), found \(2, 5\)"),
    ({"A": torch.zeros(6, 5)}, r"A must have shape \(6, 4\), found \(6, 5\)"),
    ({"B": torch.zeros(2, 4, 4)}, r"B has 4 groups, which do not divide 6 channels"),
    ({"C": torch.zeros(2, 1, 4)}, r"C must have shape \(2, 4\), found \(2, 1, 4\)"),
    ({"D": torch.zeros(1)}, r"D must have shape \(6,\), found \(1,\)"),
    ({"backend": "none"}, r"unknown backend 'none'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SCAN)
def test_what_a_caller_of_the_scan_step_gets_wrong_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        selective_state_update(**scan_arguments(**change))


BAD_CONVOLUTION = [
    ({"x": torch.zeros(2, 1, 3)}, r"x must be \(batch, channels\), found shape \(2, 1, 3\)"),
    ({"conv_state": torch.zeros(2, 3, 4)}, r"conv_state must have shape \(2, 3, 3\), found \(2, 3, 4\)"),
    ({"weight": torch.zeros(3, 1, 4)}, r"weight must be \(3, taps\).*squeeze"),
    ({"activation": "relu"}, r"activation must be None or 'silu', found 'relu'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_CONVOLUTION)
def test_what_a_caller_of_the_convolution_step_gets_wrong_is_named(change, message):
    arguments = {"x": torch.zeros(2, 3), "conv_state": torch.zeros(2, 3, 3), "weight": torch.zeros(3, 4)}
    with pytest.raises(ValueError, match=message):
        causal_conv1d_update(**(arguments | change))
