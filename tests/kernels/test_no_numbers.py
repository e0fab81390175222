"""Empty batches, empty sequences and tensors on the meta device hold no numbers, and get the right shape at once."""

from __future__ import annotations

import time

import pytest
import torch

from mamba_kernels.blocks import Backbone, BackboneConfig, mixer_names

MIXERS = pytest.mark.parametrize("mixer", mixer_names())
DIRECTIONS = pytest.mark.parametrize("bidirectional", ["none", "add"])


@MIXERS
@DIRECTIONS
@pytest.mark.parametrize("shape", [(0, 8, 16), (2, 0, 16), (0, 0, 16)])
def test_nothing_goes_through_every_backbone(mixer: str, bidirectional: str, shape: tuple[int, int, int]) -> None:
    backbone = Backbone(BackboneConfig(d_model=16, layers=[mixer], bidirectional=bidirectional))
    x = torch.randn(shape, requires_grad=True)
    y, _ = backbone(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@MIXERS
def test_nothing_after_something_leaves_the_state_alone(mixer: str) -> None:
    backbone = Backbone(BackboneConfig(d_model=16, layers=[mixer])).eval()
    x = torch.randn(2, 6, 16)
    with torch.no_grad():
        whole, _ = backbone(x)
        first, state = backbone(x[:, :4])
        nothing, state = backbone(x[:, 4:4], state)
        second, _ = backbone(x[:, 4:], state)
    assert nothing.shape == (2, 0, 16)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-5, rtol=1e-5)


@MIXERS
@DIRECTIONS
def test_a_million_tokens_on_the_meta_device(mixer: str, bidirectional: str) -> None:
    with torch.device("meta"):
        backbone = Backbone(BackboneConfig(d_model=16, layers=[mixer], bidirectional=bidirectional))
        x = torch.empty(1, 2**20, 16)
    began = time.process_time()
    y, _ = backbone(x)
    assert y.is_meta
    assert y.shape == x.shape
    assert time.process_time() - began < 20  # a loop over the tokens takes minutes
