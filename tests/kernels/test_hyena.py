"""The Hyena block: its long convolution against the definition, its filter, and what its state keeps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mamba_kernels.blocks import Backbone, BackboneConfig, build_mixer
from mamba_kernels.blocks import long_convolution as operator
from mamba_kernels.blocks.long_convolution import long_convolution


def direct(x, kernel, reset=None):
    """The sum as it is defined, token by token."""
    y = torch.zeros_like(x)
    for b in range(x.shape[0]):
        first = 0
        for t in range(x.shape[1]):
            if reset is not None and reset[b, t]:
                first = t
            for s in range(first, t + 1):
                y[b, t] += kernel[t - s] * x[b, s]
    return y


def numbers(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def mixer(**changes):
    config = BackboneConfig(**{"d_model": 6, "layers": ["hyena"], "d_conv": 3, "dt_max": 0.5, **changes})
    return build_mixer("hyena", config).double()


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 31, 101])
@pytest.mark.parametrize("group", [1, 1 << 21])
def test_the_convolution_is_its_definition(monkeypatch, length, group):
    monkeypatch.setattr(operator, "GROUP_NUMBERS", group)
    x, kernel = numbers(2, length, 3), numbers(length, 3)
    torch.testing.assert_close(long_convolution(x, kernel), direct(x, kernel))
    reset = torch.rand(2, length) < 0.2
    torch.testing.assert_close(long_convolution(x, kernel, reset), direct(x, kernel, reset))
    narrow = long_convolution(x.float(), kernel.float())
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), direct(x, kernel), rtol=1e-4, atol=1e-4)


def test_the_convolutions_gradients_first_and_second():
    x, kernel = numbers(2, 5, 2).requires_grad_(), numbers(5, 2).requires_grad_()
    reset = torch.tensor([[False, False, True, False, False], [False, True, False, True, False]])
    for marks in (None, reset):
        assert torch.autograd.gradcheck(lambda a, b, m=marks: long_convolution(a, b, m), (x, kernel))
    assert torch.autograd.gradgradcheck(long_convolution, (x, kernel))


@pytest.mark.parametrize("length", [1, 6, 13])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_mixer_is_two_gates_around_a_convolution(length, reverse):
    one = mixer(bidirectional="add" if reverse else "none")
    x = numbers(2, length, 6)

    def directed(model, u):
        short = F.conv1d(F.pad(u.transpose(1, 2), (2, 0)), model.conv_weight[:, None], model.conv_bias, groups=36)
        after, before, value = short.transpose(1, 2).chunk(3, dim=-1)
        gated = before * value
        return after * (direct(gated, model.filter(length)) + model.D * gated)

    u = one.in_proj(x)
    y = directed(one.ssm, u)
    if reverse:
        y = y + directed(one.ssm_reverse, u.flip(1)).flip(1)
    torch.testing.assert_close(one.mix(x, None, None)[0], F.linear(y, one.out_proj.weight))


def test_the_filter_is_a_function_of_the_distance_alone_and_dies_away():
    kernel = mixer(dt_min=1e-2, dt_max=1e-1).ssm.filter
    long = kernel(4000)
    torch.testing.assert_close(kernel(100), long[:100])
    assert long[:10].abs().max() > 1e-3
    assert long[3000:].abs().max() < 1e-8
    rate = kernel.log_rate.detach().exp()
    assert bool((rate > 1e-2 * 0.999).all())
    assert bool((rate < 1e-1 * 1.001).all())


def test_the_filter_tells_neighbouring_distances_apart_far_away():
    kernel = mixer(dt_min=1e-9, dt_max=2e-9).ssm.filter(70_001)
    assert (kernel[70_000] - kernel[69_999]).abs().max() > 1e-2 * kernel.abs().max()


def test_autocast_leaves_the_filter_alone():
    kernel = mixer().float().ssm.filter
    expected = kernel(50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(kernel(50), expected)


def test_the_state_keeps_what_went_in_and_forgets_ended_documents():
    one = mixer()
    x = numbers(2, 9, 6)
    _, (_, past) = one.mix(x, None, torch.arange(9).expand(2, 9) == 4)
    assert past.shape == (2, 9, 12)
    assert bool((past[:, :4] == 0).all())
    assert bool((past[:, 4:] != 0).all())


def test_what_a_growing_state_cannot_do_is_said():
    backbone = Backbone(BackboneConfig(d_model=8, layers=["mamba", "hyena"], bidirectional="add"))
    with pytest.raises(ValueError, match=r"layers\[1\] is 'hyena', which looks at the whole sequence at once"):
        list(backbone.stream([torch.randn(1, 5, 8)]))
    branches = Backbone(BackboneConfig(d_model=8, layers=["hyena"])).blocks[0].mixer.branches()
    assert not any(branch.divisible or branch.transfer for branch in branches)


def test_it_learns_to_copy_over_a_distance():
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(d_model=16, layers=["hyena"], dt_min=1e-2))
    readout = torch.nn.Linear(16, 16)
    optimizer = torch.optim.Adam([*backbone.parameters(), *readout.parameters()], lr=1e-2)
    losses = []
    for _ in range(60):
        x = torch.randn(8, 40, 16)
        loss = F.mse_loss(readout(backbone(x)[0])[:, 3:], x[:, :-3])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.6 * losses[0]
