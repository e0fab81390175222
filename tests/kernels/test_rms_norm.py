"""RMSNorm with and without a residual: every backend against the float64 reference, and the reference against NumPy."""

import numpy as np
import pytest
import torch

from mamba_kernels import rms_norm

BACKENDS = ["torch", "numba"]
SHAPES = [
    (1,),
    (5,),
    (1, 1),
    (3, 7),
    (63, 16),
    (64, 17),
    (65, 31),
    (2, 3, 128),
    (1, 130, 64),
    (2, 65, 33),
    (2, 3, 4, 5),
    (1, 2, 1000),
    (129, 2),
    (1, 257, 256),
]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill what `torch.empty` returns with NaN, so that an element which a kernel forgets to write is seen."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def leaves(shape, residual, dtype=torch.float64):
    shapes = (shape, shape[-1:], shape) if residual else (shape, shape[-1:])
    return [torch.randn(s, dtype=dtype).requires_grad_() for s in shapes]


def run(tensors, backend, eps=1e-5):
    """Outputs and gradients of a loss that weighs every element differently."""
    x, weight, *residual = tensors
    outputs = rms_norm(x, weight, eps, *residual, backend=backend)
    outputs = outputs if residual else (outputs,)
    generator = torch.Generator().manual_seed(1)
    loss = sum((o.double() * torch.randn(o.shape, generator=generator, dtype=torch.float64)).sum() for o in outputs)
    return [*outputs, *torch.autograd.grad(loss, tensors)]


def cast(tensors, dtype):
    return [t.detach().to(dtype).requires_grad_() for t in tensors]


def assert_close(found, expected, tolerance):
    for n, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape
        error = ((a.double() - b.double()).abs().max() / (1 + b.double().abs().max())).item()
        assert error < tolerance, f"output or gradient {n}: {error:.1e}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients_match_the_float64_reference(shape, residual, backend):
    tensors = leaves(shape, residual)
    assert_close(run(cast(tensors, torch.float32), backend), run(tensors, "reference"), 3e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("residual", [False, True])
def test_bfloat16_keeps_the_sum_in_float32(residual, backend):
    rounded = leaves((2, 70, 48), residual, torch.bfloat16)
    expected = run(cast(rounded, torch.float64), "reference")
    found = run(rounded, backend)
    assert found[0].dtype == torch.bfloat16
    assert_close(found, expected, 6e-3)
    if residual:
        assert found[1].dtype == torch.float32
        assert torch.equal(found[1], rounded[0].float() + rounded[2].float())


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_narrow_activations_beside_a_wide_stream(backend):
    x, weight, residual = leaves((4, 9, 6), True, torch.float32)
    x = x.detach().bfloat16().requires_grad_()
    normed, total = rms_norm(x, weight, residual=residual, backend=backend)
    assert (normed.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    grads = torch.autograd.grad((total * 3.0).sum() + normed.float().sum(), [x, weight, residual])
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.float32, torch.float32]
    torch.testing.assert_close(grads[0].float(), grads[2], atol=0.05, rtol=0.01)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_float16_is_taken_where_no_kernel_is_asked_for(backend):
    x, weight = leaves((3, 8), False, torch.float16)
    normed = rms_norm(x, weight, backend=None if backend == "numba" else backend)
    assert normed.dtype == torch.float16
    expected = rms_norm(x.double(), weight.double(), backend="reference")
    torch.testing.assert_close(normed.double(), expected, atol=2e-3, rtol=2e-3)


def test_reference_is_the_definition():
    x, weight, residual = (t.detach().numpy() for t in leaves((5, 7), True))
    total = x + residual
    expected = total / np.sqrt((total**2).mean(1, keepdims=True) + 0.1) * weight
    tensors = [torch.from_numpy(a) for a in (x, weight, residual)]
    found = rms_norm(tensors[0], tensors[1], 0.1, tensors[2], backend="reference")
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-14)
    np.testing.assert_allclose(found[1].numpy(), total, atol=0)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("residual", [False, True])
def test_gradcheck(residual, backend):
    def function(*tensors):
        return rms_norm(tensors[0], tensors[1], 1e-3, *tensors[2:], backend=backend)

    assert torch.autograd.gradcheck(function, leaves((3, 5), residual))


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs(backend):
    weight = torch.randn(12)[::2]
    views = [
        torch.randn(2, 40, 12)[..., 3:9],
        torch.randn(2, 6, 40).transpose(1, 2),
        torch.randn(40, 2, 6).transpose(0, 1),
        torch.randn(2, 80, 6)[:, ::2],
        torch.randn(2, 1, 6).expand(-1, 40, -1),
    ]
    for x in views:
        residual = x.flip(0).transpose(0, 1).contiguous().transpose(0, 1)
        expected = run(cast([t.contiguous() for t in (x, weight, residual)], torch.float32), backend)
        found = run([t.detach().requires_grad_() for t in (x, weight, residual)], backend)
        assert_close(found, expected, 1e-6)


def test_only_the_sum_is_used():
    tensors = leaves((3, 8), True, torch.float32)
    total = rms_norm(tensors[0], tensors[1], residual=tensors[2], backend="numba")[1]
    grads = torch.autograd.grad(total.sum(), tensors, allow_unused=True, materialize_grads=True)
    assert [g.unique().tolist() for g in grads] == [[1.0], [0.0], [1.0]]


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4)])
def test_no_rows(shape, backend):
    found = run(leaves(shape, True, torch.float32), backend)
    assert [t.shape for t in found] == [shape, shape, shape, (4,), shape]
    assert not found[3].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_that_is_not_finite_stays_alone(backend):
    x, weight = (t.detach() for t in leaves((70, 20), False, torch.float32))
    x[3, 4], x[66, 0] = torch.nan, torch.inf
    bad = ~torch.isfinite(rms_norm(x, weight, backend=backend))
    assert bad[3].all()
    assert bad[66, 0]
    bad[3] = bad[66] = False
    assert not bad.any()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_rows_of_zeros_and_of_tiny_numbers(backend):
    x = torch.tensor([[0.0, 0.0], [1e-20, -1e-20], [1e15, 1e15]]).requires_grad_()
    weight = torch.ones(2)
    normed = rms_norm(x, weight, 1e-6, backend=backend)
    expected = torch.tensor([[0.0, 0.0], [1e-17, -1e-17], [1.0, 1.0]])
    torch.testing.assert_close(normed, expected, atol=0, rtol=1e-5)
    assert torch.isfinite(torch.autograd.grad(normed.sum(), x)[0]).all()


def test_results_do_not_depend_on_the_number_of_threads():
    tensors = leaves((3, 333, 24), True, torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(tensors, "numba"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


BAD = [
    ({"x": torch.tensor(1.0)}, ValueError, r"x must be \(..., channels\), found a scalar"),
    ({"weight": torch.zeros(4)}, ValueError, r"weight must have shape \(3,\), found \(4,\)"),
    ({"residual": torch.zeros(3)}, ValueError, r"residual must have shape \(2, 3\), found \(3,\)"),
    ({"x": torch.zeros(2, 3, dtype=torch.int32)}, TypeError, r"x must be .* floating dtype, found torch.int32"),
    ({"weight": torch.zeros(3, dtype=torch.complex64)}, TypeError, r"weight must be of a real floating dtype"),
    ({"residual": torch.zeros(2, 3, device="meta")}, ValueError, r"residual is on meta, x on cpu"),
    ({"backend": "triton"}, ValueError, r"backend 'triton'.*not"),
    ({"backend": "fast"}, ValueError, r"unknown backend 'fast'.*accepted: reference, torch, numba, triton"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=lambda value: str(value)[:30])
def test_what_a_caller_gets_wrong_is_named(change, error, message):
    with pytest.raises(error, match=message):
        rms_norm(**({"x": torch.zeros(2, 3), "weight": torch.zeros(3)} | change))


def test_operator_is_registered_as_torch_asks():
    import mamba_kernels.ops.rms_norm.numba_op  # noqa: F401  (registers it)

    ops = torch.ops.mamba_kernels
    x, weight, residual = leaves((2, 5, 8), True, torch.float32)
    torch.library.opcheck(ops.rms_norm.default, (x, weight, 1e-5, residual))
    torch.library.opcheck(ops.rms_norm.default, (x, weight, 1e-5, None))
    inputs = [t.detach() for t in (x, residual, x, weight)]
    torch.library.opcheck(ops.rms_norm_backward.default, (*inputs, 1e-5))


def test_a_residual_of_a_dtype_that_no_kernel_reads_goes_to_torch():
    x, weight, residual = leaves((3, 8), True, torch.float32)
    normed, total = rms_norm(x, weight, residual=residual.half())
    torch.testing.assert_close(total, x + residual.half())
    assert normed.dtype == torch.float32
