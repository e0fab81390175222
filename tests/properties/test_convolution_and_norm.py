"""Properties of the convolution and the norm that hold for every shape, and on every backend."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_kernels import causal_conv1d, causal_conv1d_update, rms_norm

EXAMPLES = settings(max_examples=25, deadline=None)
backends = pytest.mark.parametrize("backend", ["reference", "torch", "numba"])


@st.composite
def convolutions(draw):
    """(x, options of the convolution with a state and resets), lengths and widths small and odd."""
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    channels, taps = draw(st.integers(1, 9)), draw(st.integers(1, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    reset = torch.rand(batch, length, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    options = {
        "weight": normal(channels, taps),
        "bias": normal(channels),
        "activation": draw(st.sampled_from([None, "silu"])),
        "initial_state": normal(batch, channels, taps - 1),
        "reset": reset,
    }
    return normal(batch, length, channels), options


@backends
@EXAMPLES
@given(case=convolutions(), data=st.data())
def test_a_sequence_in_pieces_gives_what_the_whole_gives(backend, case, data):
    x, options = case
    state, reset = options.pop("initial_state"), options.pop("reset")
    whole, final = causal_conv1d(
        x, **options, initial_state=state, reset=reset, return_final_state=True, backend=backend
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, x.shape[1]), max_size=4)))
    pieces = []
    for start, end in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        y, state = causal_conv1d(
            x[:, start:end],
            **options,
            initial_state=state,
            reset=reset[:, start:end],
            return_final_state=True,
            backend=backend,
        )
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)
    assert torch.equal(state, final)


@backends
@EXAMPLES
@given(case=convolutions())
def test_steps_give_what_the_whole_gives(backend, case):
    x, options = case
    state = options.pop("initial_state")
    del options["reset"]
    whole, final = causal_conv1d(x, **options, initial_state=state, return_final_state=True, backend=backend)
    for t in range(x.shape[1]):
        y, state = causal_conv1d_update(x[:, t], state, **options, backend=backend)
        torch.testing.assert_close(y, whole[:, t], atol=1e-5, rtol=1e-5)
    assert torch.equal(state, final)


@backends
@EXAMPLES
@given(case=convolutions(), data=st.data())
def test_the_past_never_sees_the_future_nor_what_a_reset_hides(backend, case, data):
    x, options = case
    t = data.draw(st.integers(0, x.shape[1] - 1))
    before = causal_conv1d(x, **options, backend=backend)
    changed = x.clone()
    changed[:, t:] = torch.nan
    after = causal_conv1d(changed, **options, backend=backend)
    assert torch.equal(after[:, :t], before[:, :t])
    assert after[:, t].isnan().all()
    options["reset"] = options["reset"].clone()
    options["reset"][:, t] = True
    hidden = x.clone()
    hidden[:, :t] = torch.nan
    from_reset = causal_conv1d(hidden, **options, backend=backend)
    assert torch.equal(from_reset[:, t:], causal_conv1d(x, **options, backend=backend)[:, t:])


@backends
@EXAMPLES
@given(case=convolutions())
def test_reversed_is_the_mirror_image(backend, case):
    x, options = case
    reset = options.pop("reset")
    mirrored = causal_conv1d(x.flip(1), **options, reset=reset.flip(1), return_final_state=True, backend=backend)
    found = causal_conv1d(x, **options, reset=reset, reverse=True, return_final_state=True, backend=backend)
    torch.testing.assert_close(found[0], mirrored[0].flip(1), atol=1e-6, rtol=1e-6)
    assert torch.equal(found[1], mirrored[1])


@backends
@EXAMPLES
@given(case=convolutions(), data=st.data())
def test_sequences_of_a_batch_do_not_see_each_other(backend, case, data):
    x, options = case
    n = data.draw(st.integers(0, x.shape[0] - 1))
    whole = causal_conv1d(x, **options, backend=backend)
    alone = options | {name: options[name][n : n + 1] for name in ("initial_state", "reset")}
    found = causal_conv1d(x[n : n + 1], **alone, backend=backend)
    torch.testing.assert_close(found[0], whole[n], atol=1e-6, rtol=1e-6)


@backends
@EXAMPLES
@given(
    rows=st.integers(1, 70),
    channels=st.integers(1, 40),
    scale=st.floats(0.01, 100.0),
    seed=st.integers(0, 2**31),
)
def test_norm_is_unit_scale_free_and_row_by_row(backend, rows, channels, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    x, residual = (torch.randn(rows, channels, generator=generator) for _ in range(2))
    ones = torch.ones(channels)
    normed, total = rms_norm(x, ones, 0.0, residual, backend=backend)
    torch.testing.assert_close(normed.square().mean(1), torch.ones(rows), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(rms_norm(total * scale, ones, 0.0, backend=backend), normed, atol=1e-5, rtol=1e-4)
    order = torch.randperm(rows, generator=generator)
    torch.testing.assert_close(rms_norm(total[order], ones, 0.0, backend=backend), normed[order], atol=1e-6, rtol=1e-5)
