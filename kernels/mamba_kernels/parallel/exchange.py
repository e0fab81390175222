"""What the ranks of a group tell each other when each holds a consecutive part of every sequence.

A diagonal state space model turns the state that enters a part into the state that leaves it by `out = P * in + F`,
where P is the product of the part's decays and F its final state from zero. So each rank publishes P and F (a state's
size, whatever the part's length), and each computes from them the state that enters its own part: an exclusive scan
over the ranks, in rank order, which gives the same bits on each run. The gradient of a state obeys the same recurrence
from the other end, with the same P: the backward pass is the same exchange with the direction turned.

Source: Blelloch 1990, section 1.4 (the operator); Gu and Dao 2023, section 3.3 (that the selective scan is one).
Shapes: `R` ranks, `B` rows; the rest is the tensor's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mamba_kernels.ops.derivatives import differentiable_once

if dist.is_available():
    # Some of its functions have the group that stands when they are first imported as a default argument: imported
    # only later (by torch.utils.checkpoint) they would keep it past its destruction, and a worker thread that is then
    # alive while the interpreter ends aborts the process.
    import torch.distributed.nn


class RankExchange:
    """The exchanges within one group.

    Args:
        group: of which rank r holds the r-th part of every sequence.
        opposite_rows: The last so many rows are read from the other end (the second strand of an equivariant model):
            for them the ranks stand in opposite order.
    """

    def __init__(self, group: dist.ProcessGroup, opposite_rows: int = 0) -> None:
        self.group, self.opposite_rows = group, opposite_rows
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def with_opposite(self, rows: int) -> RankExchange:
        """The same exchange where the last `rows` rows are read from the other end."""
        return RankExchange(self.group, rows)

    def check_lengths(self, length: int, least: int) -> None:
        """Refuses, on every rank at once, a sequence of which some rank has fewer than `least` tokens.

        Raises:
            ValueError: Naming all ranks' lengths.
        """
        here = torch.tensor([length], device=self._device())
        lengths = [int(part) for part in self.gather(here).flatten()]
        if min(lengths) < max(1, least):
            raise ValueError(
                f"a sequence split over {self.size} ranks as {lengths} tokens: each rank needs at least "
                f"{max(1, least)}, what the convolution looks back on; use longer sequences or fewer ranks"
            )

    def gather(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor of this shape: (R, *shape). Not differentiable."""
        sent = tensor.detach().contiguous()
        sent = sent.to(torch.uint8) if sent.dtype == torch.bool else sent
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent, group=self.group)
        return torch.stack(parts).to(tensor.dtype)

    def combine(self, decays: Tensor, finals: Tensor, *, reverse: bool) -> Tensor:
        """The state that enters this rank's part, from all ranks' `decays` and `finals` (R, B, ...): the shape of one.

        With `reverse` the parts are passed from the last rank to the first.
        """
        rows = finals.shape[1]
        given, opposite = slice(0, rows - self.opposite_rows), slice(rows - self.opposite_rows, rows)
        state = torch.zeros_like(finals[0])
        for part, leftwards in ((given, reverse), (opposite, not reverse)):
            for other in self._passed(leftwards):
                state[part] = decays[other, part] * state[part] + finals[other, part]
        return state

    def shift(self, tensor: Tensor, *, reverse: bool) -> Tensor:
        """The tensor (B, ...) of the rank that is passed before this one; zeros on the first. Differentiable."""
        return _Shift.apply(tensor, self, reverse)

    def shifted(self, tensor: Tensor, *, reverse: bool) -> Tensor:
        """`shift`, without a gradient."""
        parts, rows = self.gather(tensor), tensor.shape[0]
        found = torch.zeros_like(tensor)
        given, opposite = slice(0, rows - self.opposite_rows), slice(rows - self.opposite_rows, rows)
        for part, leftwards in ((given, reverse), (opposite, not reverse)):
            before = self._passed(leftwards)
            if before:
                found[part] = parts[before[-1], part]
        return found

    def _passed(self, leftwards: bool) -> list[int]:
        """The ranks before this one, in the order in which they are passed."""
        return list(range(self.size - 1, self.rank, -1)) if leftwards else list(range(self.rank))

    def _device(self) -> torch.device:
        """A device on which the group's backend takes tensors."""
        on_gpu = dist.get_backend(self.group) == "nccl"
        return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


class _Shift(torch.autograd.Function):
    """`apply(tensor, exchange, reverse)`: to the next rank; the gradient goes back the way that the tensor came."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, exchange: RankExchange, reverse: bool) -> Tensor:
        ctx.exchange, ctx.reverse = exchange, reverse
        return exchange.shifted(tensor, reverse=reverse)

    @staticmethod
    @differentiable_once("a sequence that is split over ranks has no second derivative; run it on one rank")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.exchange.shifted(gradients[0], reverse=not ctx.reverse), None, None
