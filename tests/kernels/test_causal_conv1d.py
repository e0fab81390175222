"""The causal convolution: every backend against the float64 reference, and the reference against its definition."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from mamba_kernels import causal_conv1d

BACKENDS = ["torch", "numba"]
NAMES = ("y", "final state", "x", "weight", "bias", "initial state")


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill what `torch.empty` returns with NaN, so that an element which a kernel forgets to write is seen."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def definition(x, weight, bias, silu, state, reset, reverse):
    """The operator as its documentation reads, in NumPy loops; returns y and the final state."""
    if reverse:
        y, final = definition(x[:, ::-1], weight, bias, silu, state, None if reset is None else reset[:, ::-1], False)
        return y[:, ::-1], final
    batch, length, channels = x.shape
    taps = weight.shape[1]
    padded = np.concatenate([state.transpose(0, 2, 1), x], axis=1)
    y = np.zeros((batch, length, channels))
    final = np.zeros((batch, channels, taps - 1))
    for b in range(batch):
        for t in range(length + 1):  # at t = length: the window that a next position would see
            start = max((s for s in range(min(t, length - 1) + 1) if reset is not None and reset[b, s]), default=-taps)
            for k in range(taps):
                source = t - (taps - 1) + k
                if source < start or source == length:
                    continue
                if t < length:
                    y[b, t] += weight[:, k] * padded[b, source + taps - 1]
                else:
                    final[b, :, k] = padded[b, source + taps - 1]
    if bias is not None:
        y = y + bias
    return (y / (1 + np.exp(-y)) if silu else y), final


def make_inputs(batch, length, channels, taps, *, bias=True, state=True, resets=0.0):
    """Float64 leaves (x, weight, bias, state) and resets."""

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64).requires_grad_()

    tensors = [leaf(batch, length, channels), leaf(channels, taps)]
    tensors += [leaf(channels) if bias else None, leaf(batch, channels, taps - 1) if state else None]
    return tensors, (torch.rand(batch, length) < resets if resets else None)


def run(tensors, activation, reset, reverse, backend, seed_dtype):
    """Outputs and gradients of a loss that weighs every element of both outputs differently."""
    x, weight, bias, state = tensors
    y, final = causal_conv1d(
        x,
        weight,
        bias,
        activation,
        initial_state=state,
        reset=reset,
        reverse=reverse,
        return_final_state=True,
        backend=backend,
    )
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(seed_dtype) for t in (y, final)]
    loss = (y * weights[0]).sum() + (final * weights[1]).sum()
    leaves = [t for t in tensors if t is not None]
    found = iter(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))
    return [y, final, *(None if t is None else next(found) for t in tensors)]


def assert_close(found, expected, tolerance):
    for name, a, b in zip(NAMES, found, expected, strict=True):
        if b is None or b.numel() == 0:
            continue
        assert a.shape == b.shape, name
        error = ((a.double() - b.double()).abs().max() / (1 + b.double().abs().max())).item()
        assert error < tolerance, f"{name}: {error:.1e}"  # a NaN fails too


def cast(tensors, dtype):
    return [None if t is None else t.detach().to(dtype).requires_grad_() for t in tensors]


SHAPES = [
    # batch, length, channels, taps: lengths 1, primes, shorter than the state, around the tiles of 32 and 256 rows
    *[(2, length, 5, 4) for length in (1, 2, 3, 4, 5, 31, 32, 33, 37)],
    *[(1, length, 3, 4) for length in (255, 256, 257, 521)],
    *[(2, 13, 7, taps) for taps in range(1, 9)],
    *[(1, 2, 3, taps) for taps in (1, 2, 5, 8)],
    *[(1, 35, channels, 4) for channels in (1, 15, 16, 17, 255, 256, 257, 300)],
    (3, 70, 33, 3),
    (5, 64, 8, 2),
    (1, 300, 2, 40),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_outputs_and_gradients_match_the_float64_reference(shape, backend):
    """Activation, bias, state, resets and direction go through their combinations as the shapes go by."""
    n = SHAPES.index(shape)
    activation, reverse = (None, "silu")[n % 2], bool(n // 2 % 2)
    tensors, reset = make_inputs(*shape, bias=n % 3 > 0, state=n % 5 > 0, resets=0.1 if n % 4 > 1 else 0.0)
    expected = run(tensors, activation, reset, reverse, "reference", torch.float64)
    assert_close(run(cast(tensors, torch.float32), activation, reset, reverse, backend, torch.float32), expected, 1e-5)


FLAGS = list(itertools.product((None, "silu"), (False, True), (False, True), (0.0, 0.15), (False, True)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("activation", "bias", "state", "resets", "reverse"), FLAGS)
def test_every_combination_of_options(activation, bias, state, resets, reverse, backend):
    tensors, reset = make_inputs(2, 41, 6, 4, bias=bias, state=state, resets=resets)
    expected = run(tensors, activation, reset, reverse, "reference", torch.float64)
    assert_close(run(cast(tensors, torch.float32), activation, reset, reverse, backend, torch.float32), expected, 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(2, 40, 19, 4), (1, 3, 8, 6), (2, 33, 256, 2)])
def test_bfloat16_is_computed_in_float32(shape, backend):
    tensors, reset = make_inputs(*shape, resets=0.1)
    rounded = cast(tensors, torch.bfloat16)
    expected = run(cast(rounded, torch.float64), "silu", reset, False, "reference", torch.float64)
    found = run(rounded, "silu", reset, False, backend, torch.bfloat16)
    assert all(t.dtype == torch.bfloat16 for t in found)
    assert_close(found, expected, 6e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_mixed_precision_parameters_in_float32_activations_in_bfloat16(backend):
    tensors, _ = make_inputs(2, 20, 6, 4)
    x, weight, bias, state = cast(tensors, torch.float32)
    x = x.detach().bfloat16().requires_grad_()
    y, final = causal_conv1d(x, weight, bias, initial_state=state, return_final_state=True, backend=backend)
    assert y.dtype == final.dtype == torch.bfloat16
    grads = torch.autograd.grad(y.float().sum(), [x, weight, bias, state])
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.float32, torch.float32, torch.float32]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("length", "taps"), [(1, 1), (1, 4), (2, 5), (7, 3), (12, 4)])
def test_reference_is_the_definition(length, taps, reverse):
    (x, weight, bias, state), reset = make_inputs(2, length, 3, taps, resets=0.25)
    arrays = [t.detach().numpy() for t in (x, weight, bias)]
    y, final = definition(*arrays, True, state.detach().numpy(), reset.numpy(), reverse)
    options = {"initial_state": state, "reset": reset, "reverse": reverse, "return_final_state": True}
    found = causal_conv1d(x, weight, bias, "silu", backend="reference", **options)
    np.testing.assert_allclose(found[0].detach().numpy(), y, atol=1e-12)
    np.testing.assert_allclose(found[1].detach().numpy(), final, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_gradcheck(backend):
    tensors, reset = make_inputs(1, 6, 2, 3, resets=0.3)

    def function(*leaves):
        return causal_conv1d(
            *leaves[:3], "silu", initial_state=leaves[3], reset=reset, return_final_state=True, backend=backend
        )

    assert torch.autograd.gradcheck(function, tensors)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs_give_the_numbers_of_contiguous_ones(backend):
    wide = torch.randn(2, 40, 3, 12)
    views = {
        "half of a wider tensor": wide[:, :, 1, 3:9],
        "channels not neighbours": torch.randn(2, 6, 40).transpose(1, 2),
        "every other position": torch.randn(2, 80, 6)[:, ::2],
        "one sequence for the whole batch": torch.randn(1, 40, 6).expand(2, -1, -1),
        "one position for the whole length": torch.randn(2, 1, 6).expand(-1, 40, -1),
        "batch and length swapped": torch.randn(40, 2, 6).transpose(0, 1),
    }
    weight, bias = torch.randn(4, 6).t(), torch.randn(12)[::2]
    state = torch.randn(3, 6, 2).permute(2, 1, 0)
    for x in views.values():
        for reverse in (False, True):
            plain = cast([x.contiguous(), weight.contiguous(), bias.contiguous(), state.contiguous()], torch.float32)
            strided = [t.detach().requires_grad_() for t in (x, weight, bias, state)]
            expected = run(plain, "silu", None, reverse, backend, torch.float32)
            found = run(strided, "silu", None, reverse, backend, torch.float32)
            assert_close(found, expected, 1e-6)


def test_strided_gradients_of_the_output():
    (x, weight, bias, _), _ = make_inputs(2, 40, 6, 4, state=False)
    x, weight, bias = cast([x, weight, bias], torch.float32)
    outer = torch.randn(40, 12, 2).permute(2, 0, 1)[:, :, ::2]
    y = causal_conv1d(x, weight, bias, "silu", backend="numba")
    found = torch.autograd.grad(y, [x, weight, bias], outer, retain_graph=True)
    expected = torch.autograd.grad(y, [x, weight, bias], outer.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    y = causal_conv1d(x, weight, bias, "silu", backend="numba")
    broadcast = torch.autograd.grad(y.sum(), [x, weight, bias])  # a gradient of strides (0, 0, 0)
    y = causal_conv1d(x, weight, bias, "silu", backend="torch")
    torch.testing.assert_close(broadcast, torch.autograd.grad(y.sum(), [x, weight, bias]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("shape", [(0, 5, 3, 4), (2, 0, 3, 4), (2, 5, 0, 4)], ids=["batch", "length", "channels"])
def test_empty_dimensions(shape, backend):
    tensors, reset = make_inputs(*shape, resets=0.5)
    y, final, *grads = run(cast(tensors, torch.float32), "silu", reset, False, backend, torch.float32)
    assert y.shape == shape[:3]
    assert final.shape == (shape[0], shape[2], 3)
    assert all(torch.isfinite(g).all() for g in grads)
    if shape[1] == 0:
        assert torch.equal(final, tensors[3].float())
        assert grads[3].abs().min() > 0


def test_results_do_not_depend_on_the_number_of_threads():
    tensors, reset = make_inputs(2, 1100, 40, 4, resets=0.01)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(cast(tensors, torch.float32), "silu", reset, False, "numba", torch.float32))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_not_finite_inputs_reach_the_outputs_that_see_them_and_no_others(backend):
    (x, weight, bias, _), _ = make_inputs(1, 80, 4, 4, state=False)
    x, weight, bias = cast([x, weight, bias], torch.float32)
    with torch.no_grad():
        x[0, 20, 0], x[0, 40, 1], x[0, 50, 2] = torch.nan, torch.inf, 1e30
        y = causal_conv1d(x, weight, bias, "silu", backend=backend)
        reset = torch.zeros(1, 80, dtype=torch.bool)
        reset[0, 21] = reset[0, 41] = True
        cut = causal_conv1d(x, weight, bias, None, reset=reset, backend=backend)
    bad = ~torch.isfinite(y[0])
    assert bad[20:24, 0].all()
    assert bad[40:44, 1].any()
    bad[20:24, 0] = bad[40:44, 1] = False
    assert not bad.any()
    assert torch.isfinite(cut[0, 21:40]).all()
    assert torch.isfinite(cut[0, 41:]).all()


def test_extreme_sums_before_the_activation():
    x = torch.tensor([-1e30, -200.0, -104.0, -88.0, -1.0, 0.0, 1.0, 88.0, 200.0, 1e30]).view(1, -1, 1).requires_grad_()
    weight = torch.ones(1, 1)
    y = causal_conv1d(x, weight, None, "silu", backend="numba")
    (slope,) = torch.autograd.grad(y.sum(), x)
    expected = torch.nn.functional.silu(x.detach().double())
    torch.testing.assert_close(y.double(), expected, atol=1e-30, rtol=1e-6)
    assert slope[0, 0, 0].abs() < 1e-3
    assert slope[0, -1, 0] == 1


def test_only_the_final_state_is_used():
    (x, weight, bias, state), _ = make_inputs(2, 5, 3, 8)
    x, weight, bias, state = cast([x, weight, bias, state], torch.float32)
    final = causal_conv1d(x, weight, bias, initial_state=state, return_final_state=True, backend="numba")[1]
    grads = torch.autograd.grad(final.sum(), [x, state, weight], allow_unused=True, materialize_grads=True)
    assert torch.equal(grads[0], torch.ones_like(x))
    assert torch.equal(grads[1], torch.tensor([0.0] * 5 + [1.0] * 2).expand(2, 3, 7))
    assert not grads[2].any()


def test_outputs_are_no_views_of_inputs():
    (x, weight, _, state), _ = make_inputs(1, 3, 2, 4)
    x, weight, state = (t.detach().float() for t in (x, weight, state))
    for backend in BACKENDS:
        kept, before = x.clone(), state.clone()
        y, final = causal_conv1d(x, weight, initial_state=state, return_final_state=True, backend=backend)
        y.fill_(7.0)
        final.fill_(7.0)
        assert torch.equal(x, kept)
        assert torch.equal(state, before)


BAD = [
    (
        lambda a: a | {"x": torch.zeros(4, 3)},
        ValueError,
        r"x must be \(batch, length, channels\), found shape \(4, 3\)",
    ),
    (lambda a: a | {"weight": torch.zeros(4, 4)}, ValueError, r"weight must be \(3, taps\), found shape \(4, 4\)"),
    (lambda a: a | {"weight": torch.zeros(3, 0)}, ValueError, r"weight must be \(3, taps\), found shape \(3, 0\)"),
    (
        lambda a: a | {"weight": torch.zeros(3, 1, 4)},
        ValueError,
        r"found shape \(3, 1, 4\); drop .* weight.squeeze\(1\)",
    ),
    (lambda a: a | {"bias": torch.zeros(4)}, ValueError, r"bias must have shape \(3,\), found \(4,\)"),
    (
        lambda a: a | {"initial_state": torch.zeros(2, 3, 4)},
        ValueError,
        r"initial_state .* \(2, 3, 3\), found \(2, 3, 4\)",
    ),
    (
        lambda a: a | {"reset": torch.zeros(2, 6, dtype=torch.bool)},
        ValueError,
        r"reset must have shape \(2, 5\), found",
    ),
    (lambda a: a | {"reset": torch.zeros(2, 5)}, TypeError, r"reset must be bool, found torch.float32"),
    (
        lambda a: a | {"x": torch.zeros(2, 5, 3, dtype=torch.long)},
        TypeError,
        r"x must be .* floating dtype, found torch.int64",
    ),
    (lambda a: a | {"bias": torch.zeros(3, device="meta")}, ValueError, r"bias is on meta, x on cpu"),
    (lambda a: a | {"activation": "gelu"}, ValueError, r"activation must be None or 'silu', found 'gelu'"),
    (
        lambda a: a | {"backend": "cuda"},
        ValueError,
        r"unknown backend 'cuda'.*accepted: reference, torch, numba, triton",
    ),
    (
        lambda a: a | {"x": torch.zeros(2, 5, 3).double(), "backend": "numba"},
        ValueError,
        r"float32 and bfloat16, not torch.float64",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_what_a_caller_gets_wrong_is_named(change, error, message):
    arguments = {"x": torch.zeros(2, 5, 3), "weight": torch.zeros(3, 4)}
    with pytest.raises(error, match=message):
        causal_conv1d(**change(arguments))


def test_operator_is_registered_as_torch_asks():
    import mamba_kernels.ops.causal_conv1d.numba_op  # noqa: F401  (registers it)

    ops = torch.ops.mamba_kernels
    for n, (state, resets, final) in enumerate(itertools.product((False, True), (0.0, 0.3), (False, True))):
        (x, weight, bias, initial), reset = make_inputs(2, 9, 6, 4, bias=n % 2 > 0, state=state, resets=resets)
        x, weight, bias, initial = cast([x, weight, bias, initial], torch.float32)
        torch.library.opcheck(ops.causal_conv1d.default, (x, weight, bias, initial, reset, True, n % 3 > 0, final))
        inputs = [None if t is None else t.detach() for t in (x, weight, bias, initial)]
        grads = torch.randn(2, 9, 6), torch.randn(2, 6, 3) if final else None
        torch.library.opcheck(ops.causal_conv1d_backward.default, (*grads, *inputs, reset, True, False))
