"""Properties of the backbone, over configurations and inputs that hypothesis draws."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_kernels.blocks import Backbone, BackboneConfig

few = settings(deadline=None, max_examples=12)

shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "d_model": st.integers(1, 6).map(lambda half: 2 * half),
        "layers": st.lists(st.sampled_from(["mamba", "attention"]), min_size=1, max_size=2),
        "d_state": st.integers(1, 5),
        "d_conv": st.integers(1, 5),
        "chunk_size": st.sampled_from([None, 1, 4]),
    }
)


def make(shape, **changes):
    values = {**shape, "n_heads": 1, **changes}
    torch.manual_seed(values.pop("seed"))
    return Backbone(BackboneConfig(**values)).double()


def draw_tokens(backbone, batch, length):
    return torch.randn(batch, length, backbone.config.d_model, dtype=torch.float64)


@few
@given(shapes, st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans())
def test_any_division_into_pieces_is_the_whole(shape, sizes, packed):
    backbone = make(shape)
    x = draw_tokens(backbone, 2, sum(sizes))
    reset = torch.rand(2, sum(sizes)) < 0.2 if packed else None
    state, pieces, at = None, [], 0
    for size in sizes:
        piece = slice(at, at + size)
        y, state = backbone(x[:, piece], state, reset=None if reset is None else reset[:, piece])
        pieces.append(y)
        at += size
    torch.testing.assert_close(torch.cat(pieces, dim=1), backbone(x, reset=reset)[0])


@few
@given(shapes, st.integers(1, 12), st.integers(1, 12))
def test_what_follows_changes_nothing_before(shape, length, more):
    backbone = make(shape)
    x = draw_tokens(backbone, 2, length)
    padded = torch.cat([x, draw_tokens(backbone, 2, more)], dim=1)
    torch.testing.assert_close(backbone(padded)[0][:, :length], backbone(x)[0])


@few
@given(shapes, st.integers(1, 12), st.integers(1, 12))
def test_padding_before_a_document_changes_nothing_in_it(shape, length, more):
    backbone = make(shape)
    x = draw_tokens(backbone, 1, length)
    padded = torch.cat([draw_tokens(backbone, 1, more), x], dim=1)
    reset = torch.arange(more + length)[None] == more
    torch.testing.assert_close(backbone(padded, reset=reset)[0][:, more:], backbone(x)[0])


@few
@given(shapes, st.integers(1, 12), st.permutations(range(4)))
def test_a_batch_in_another_order_gives_its_rows_in_that_order(shape, length, order):
    backbone = make(shape)
    x = draw_tokens(backbone, 4, length)
    torch.testing.assert_close(backbone(x[list(order)])[0], backbone(x)[0][list(order)])


@few
@given(shapes, st.integers(1, 15), st.sampled_from(["none", "add", "concat"]))
def test_reverse_complement_equivariance(shape, length, bidirectional):
    width = 2 * shape["d_model"]
    backbone = make(shape, d_model=width, reverse_complement="equivariant", bidirectional=bidirectional)
    x = draw_tokens(backbone, 1, length)
    torch.testing.assert_close(backbone(x.flip(1, 2))[0].flip(1, 2), backbone(x)[0])
