"""A sequence fed in pieces gives what the whole gives, in either direction, without growing with its length."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_kernels.blocks import Backbone, BackboneConfig

KINDS = {
    "causal": {"layers": ["mamba", "mamba"]},
    "mamba2": {"layers": ["mamba2", "mamba"], "bidirectional": "add"},
    "causal with attention": {"layers": ["mamba", "attention"]},
    "add": {"layers": ["mamba"] * 3, "bidirectional": "add"},
    "add untied": {"layers": ["mamba", "mamba"], "bidirectional": "add", "tie_directions": False, "proj_bias": True},
    "concat": {"layers": ["mamba", "mamba"], "bidirectional": "concat", "d_conv": 6},
    "equivariant": {"layers": ["mamba", "mamba"], "reverse_complement": "equivariant"},
    "equivariant add": {"layers": ["mamba", "mamba"], "reverse_complement": "equivariant", "bidirectional": "add"},
}


def make(dtype=torch.float64, **changes):
    return Backbone(BackboneConfig(**{"d_model": 12, "d_state": 4, "n_heads": 2, **changes})).to(dtype)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@settings(max_examples=12, deadline=None)
@given(borders=st.lists(st.integers(1, 17), min_size=1, max_size=6), with_reset=st.booleans(), seed=st.integers(0, 99))
def test_pieces_give_what_the_whole_gives(kind, borders, with_reset, seed):
    torch.manual_seed(seed)
    backbone, length = make(**kind), sum(borders)
    x = torch.randn(2, length, 12, dtype=torch.float64)
    reset = torch.rand(2, length) < 0.15 if with_reset else None
    with torch.no_grad():
        whole, _ = backbone(x, reset=reset)
    pieces = x.split(borders, dim=1)
    given_pieces = pieces if reset is None else zip(pieces, reset.split(borders, dim=1), strict=True)
    found = list(backbone.stream(given_pieces))
    assert [y.shape[1] for y in found] == borders
    torch.testing.assert_close(torch.cat(found, dim=1), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["causal", "add", "concat", "equivariant add"])
@pytest.mark.parametrize("length", [1, 4097, 10_007])
def test_float32_stays_within_a_hundred_thousandth(kind, length):
    backbone = make(torch.float32, **KINDS[kind])
    x = torch.randn(1, length, 12)
    reset = torch.rand(1, length) < 1e-3
    with torch.no_grad():
        whole, _ = backbone(x, reset=reset)
    pieces = zip(x.split(1000, dim=1), reset.split(1000, dim=1), strict=True)
    found = torch.cat(list(backbone.stream(pieces)), dim=1)
    assert (found - whole).abs().max() < 1e-5
    assert not found.requires_grad


def test_only_some_pieces_need_say_where_documents_begin(tmp_path):
    backbone = make(**KINDS["add"])
    x = torch.randn(1, 30, 12, dtype=torch.float64)
    reset = torch.zeros(1, 30, dtype=torch.bool)
    reset[0, 10] = True
    with torch.no_grad():
        whole, _ = backbone(x, reset=reset)
    first, second, third = x.split(10, dim=1)
    found = backbone.stream([first, x[:, :0], (second, reset[:, 10:20]), third], scratch=tmp_path)
    torch.testing.assert_close(torch.cat(list(found), dim=1), whole)
    assert not any(tmp_path.iterdir())


def test_no_pieces_give_no_output():
    assert list(make(**KINDS["add"]).stream([])) == []
    assert list(make(**KINDS["causal"]).stream([])) == []


def test_the_input_is_read_lazily_by_a_causal_backbone():
    taken = []

    def pieces():
        for number in range(5):
            taken.append(number)
            yield torch.randn(1, 3, 12, dtype=torch.float64)

    output = make(**KINDS["causal"]).stream(pieces())
    next(output)
    assert taken == [0]


def test_what_cannot_be_streamed_is_refused_by_name():
    backbone = make(layers=["mamba", "attention"], bidirectional="add")
    with pytest.raises(ValueError, match=r"layers\[1\] is 'attention'"):
        list(backbone.stream([torch.randn(1, 3, 12, dtype=torch.float64)]))
    with pytest.raises(ValueError, match=r"x has shape \(1, 3, 11\)"):
        list(make(**KINDS["add"]).stream([torch.randn(1, 3, 11)]))


MEASURE = """
import sys, torch
from pathlib import Path
from mamba_kernels.blocks import Backbone, BackboneConfig
torch.set_num_threads(1)
direction, pieces = sys.argv[1], int(sys.argv[2])
backbone = Backbone(BackboneConfig(d_model=32, layers=["mamba"] * 2, bidirectional=direction))
for y in backbone.stream(torch.randn(1, 4096, 32) for _ in range(pieces)):
    pass
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize("direction", ["none", "add"])
def test_memory_does_not_grow_with_the_length(direction):
    peaks = []
    for pieces in (8, 128):
        command = [sys.executable, "-c", MEASURE, direction, str(pieces)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    stream_kib = 120 * 4096 * 32 * 4 / 1024
    assert peaks[1] - peaks[0] < stream_kib / 4
