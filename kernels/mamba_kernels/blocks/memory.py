"""What a backbone remembers: the step size of every token and the decay of every state, layer by layer.

A selective state space layer (Gu and Dao 2023, arXiv 2312.00752, section 3) holds

    h_t = exp(-s_t r) h_{t-1} + s_t B_t x_t,

with a step s_t > 0 that the token chooses. A large step opens the state for the token and forgets what came before;
where steps are small, what is held stays: after 1 / (s r) tokens of such steps a fraction 1/e of it is left.

Shapes: `B` batch, `L` length, `C` inner channels (or heads), `N` states a channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mamba_kernels.blocks.two_way import TwoWayMixer


@dataclass(frozen=True, eq=False)
class LayerMemory:
    """Steps and rates of one layer.

    Attributes:
        layer: its number, from 0.
        steps: (B, L, C) float32, of the pass to the right.
        rates: (C, N) float32, above zero.
    """

    layer: int
    steps: Tensor
    rates: Tensor

    def tokens(self, step: Tensor) -> Tensor:
        """Tokens after which 1/e is left of what each state holds, (..., C, N), where all steps are `step` (..., C)."""
        return 1 / (step[..., None] * self.rates)


@torch.no_grad()
def record_memory(layers: Sequence[nn.Module], run: Callable[[], Any]) -> list[LayerMemory]:
    """Steps and rates of a backbone's layers while something runs through them.

    Args:
        layers: modules that hold one mixer each, such as `backbone.layers`.
        run: calls the backbone once. Where it takes a sequence in pieces these are joined; with strands side by side
            in the batch, as in an equivariant backbone, both are recorded.

    Returns:
        One entry for each layer that selects (`mamba` and `mamba2`), in their order.
    """
    entered: dict[int, list[Tensor]] = {}
    mixers: dict[int, TwoWayMixer] = {}
    hooks = []
    for number, layer in enumerate(layers):
        for mixer in layer.modules():
            if isinstance(mixer, TwoWayMixer):
                mixers[number] = mixer

                def keep(module: nn.Module, given: Any, out: Tensor, number: int = number) -> None:
                    entered.setdefault(number, []).append(out.detach())

                hooks.append(mixer.in_proj.register_forward_hook(keep))
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for number, pieces in sorted(entered.items()):
        steps, rates = mixers[number].ssm.steps_and_rates(torch.cat(pieces, dim=1))
        found.append(LayerMemory(number, steps, rates))
    return found
