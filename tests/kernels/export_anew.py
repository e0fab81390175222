"""Export a backbone and compare the programs with it at other lengths: `python export_anew.py PART,... MIXER...`.

A program of its own, since no tracer follows the run-time type checker of the tests.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.utils._pytree import tree_leaves

from mamba_kernels.blocks import Backbone, BackboneConfig

ANY = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
TRACED, SHAPES = (2, 40), ((1, 1), (3, 64), (1, 257))


class Run(nn.Module):
    """A backbone with its arguments by position."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """Hands the arguments on."""
        return self.backbone(x, reset=reset)


def make(mixers: Sequence[str], **how: Any) -> Run:
    """A backbone with large steps among others, so strong damping."""
    torch.manual_seed(0)
    config = BackboneConfig(d_model=8, layers=mixers, d_state=4, chunk_size=16, dt_max=9, **how)
    return Run(Backbone(config).eval())


def inputs(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Numbers, and where documents begin."""
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, 8, generator=generator), torch.rand(batch, length, generator=generator) < 0.05


def agree(found: Any, expected: Any) -> None:
    """Outputs and states alike."""
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def without_resets(mixers: Sequence[str]) -> None:
    """The causal form: outputs, states, and a gradient."""
    run = make(mixers)
    program = export(run, inputs(*TRACED)[:1], dynamic_shapes=(ANY,))
    assert "mamba_kernels" not in str(program.graph), "the program needs this package"
    for shape in SHAPES:
        x = inputs(*shape)[0]
        agree(program.module()(x), run(x))
    x = inputs(2, 100)[0].requires_grad_()
    (found,), (expected,) = (torch.autograd.grad(one(x)[0].square().sum(), x) for one in (program.module(), run))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def with_resets(mixers: Sequence[str]) -> None:
    """Both directions and both strands, documents side by side in a row."""
    run = make(mixers, bidirectional="concat", tie_directions=False, reverse_complement="equivariant")
    for strict in (False, True):
        program = export(run, inputs(*TRACED), dynamic_shapes=(ANY, ANY), strict=strict)
        for shape in SHAPES:
            agree(program.module()(*inputs(*shape)), run(*inputs(*shape)))


@torch.no_grad()
def one_token(mixers: Sequence[str]) -> None:
    """A step, from the state that a piece leaves, in batches of any size."""
    backbone = make(mixers).backbone
    state = backbone(inputs(2, 9)[0])[1]
    growing = {"hyena": (None, 1), "attention": (2, 2, 1)}  # the places of what went in before in their states
    shapes = tuple(
        tuple(
            {0: Dim.DYNAMIC} | ({} if place is None else {place: Dim.DYNAMIC})
            for place in growing.get(mixer, [None] * len(layer))
        )
        for mixer, layer in zip(mixers, state, strict=True)
    )

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, x: Tensor, state: Any) -> Any:
            return self.backbone.step(x, state)

    program = export(Step(), (inputs(2, 1)[0][:, 0], state), dynamic_shapes=({0: Dim.DYNAMIC}, shapes))
    for batch, length in ((1, 4), (3, 20)):
        before, x = backbone(inputs(batch, length)[0])[1], inputs(batch, 1)[0][:, 0]
        agree(program.module()(x, before), backbone.step(x, before))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # torch's own
    for part in sys.argv[1].split(","):
        {"plain": without_resets, "resets": with_resets, "step": one_token}[part](sys.argv[2:])
    print("the same")
