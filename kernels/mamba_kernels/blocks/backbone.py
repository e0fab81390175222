"""The residual stack of mixers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.mamba import reset_from_right
from mamba_kernels.blocks.norm import RMSNorm
from mamba_kernels.blocks.registry import LayerState, build_mixer
from mamba_kernels.blocks.strands import merge_strands, split_strands
from mamba_kernels.blocks.streaming import StreamPiece, stream
from mamba_kernels.parallel.exchange import RankExchange

BackboneState = tuple[LayerState, ...]
"""One state a layer: what a causal backbone carries from piece to piece."""

AUTO_CHUNK_TOKENS, AUTO_CHUNK_LEAST = 16_384, 128
AUTO_KEPT_BYTES = 2**30
"""What `chunk_size = "auto"` allows the activations of a whole stack to take before it works in chunks."""
AUTO_STREAM_BYTES = 2**30
"""What the layers' inputs may take before a chunk goes through the whole stack at once, so that they are not kept."""
AUTO_STACK_BYTES = 2**28
"""What `chunk_size = "auto"` then allows the activations of a chunk to take in all layers."""


class Chunking(NamedTuple):
    """How a stack works on a sequence.

    Attributes:
        tokens: of each row that are worked on at a time, or None for all.
        through_stack: a chunk goes through all layers before the next one, and the layers' inputs are not kept.
    """

    tokens: int | None
    through_stack: bool = False


def chunking(
    config: BackboneConfig, rows: int, length: int, element_size: int = 4, *, through_stack: bool = True
) -> Chunking:
    """How a backbone works on `rows` rows of `length` tokens.

    Args:
        config: of the backbone.
        rows: of the batch, both strands counted.
        length: tokens of each row.
        element_size: bytes of a number.
        through_stack: False where every layer has to be finished before the next one: the layers look both ways or
            need the whole sequence, or the sequence is split over ranks.
    """
    size, layers = config.chunk_size, len(config.layers)
    of_token = 6 * element_size * config.d_inner * layers
    stream = element_size * config.strand_width * rows * length * layers
    through_stack = through_stack and stream > AUTO_STREAM_BYTES
    if isinstance(size, str):
        if of_token * rows * length <= AUTO_KEPT_BYTES:
            return Chunking(None)
        together = min(AUTO_CHUNK_TOKENS, AUTO_STACK_BYTES // of_token) if through_stack else AUTO_CHUNK_TOKENS
        return Chunking(max(AUTO_CHUNK_LEAST, together // rows), through_stack)
    return Chunking(None) if size is None or size >= length else Chunking(size, through_stack)


class Block(nn.Module):
    """`x + mixer(norm(x))`, the residual stream being kept in at least float32."""

    def __init__(self, name: str, config: BackboneConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.strand_width, config.norm_eps)
        self.mixer = build_mixer(name, config)

    def forward(
        self,
        x: Tensor,
        state: LayerState | None,
        reset: Tensor | None,
        chunk_size: int | None,
        exchange: RankExchange | None = None,
    ) -> tuple[Tensor, LayerState]:
        """`x` (B, L, d_model), `reset` (B, L) True at each document's first token; with `exchange` this rank's part."""
        if chunk_size is None and exchange is None:
            y, state = self.mixer.mix(self.norm(x), state, reset)
            return x + y, state
        branches = self.mixer.branches()
        following = None
        if reset is not None and exchange is not None:
            following = exchange.shifted(reset[:, :1], reverse=True)
        resets = [
            reset_from_right(reset, following) if reset is not None and branch.reverse else reset for branch in branches
        ]
        from mamba_kernels.blocks.chunked import (
            run_in_chunks,
        )  # brings torch's compiler, seconds for whoever needs none

        size = chunk_size or max(1, x.shape[1])
        return run_in_chunks(x, self.norm, branches, resets, state, size, list(self.parameters()), exchange)

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Takes one token of each sequence, (B, d_model)."""
        y, state = self.mixer.step(self.norm(x), state)
        return x + y, state


def _may_be_left_out(block: nn.Module) -> bool:
    """Whether a chunk can go through a block without a call of the block itself.

    It looks back only, in pieces, and nobody waits for its call: neither a hook nor a class around it, as FSDP has.
    """
    if type(block) is not Block or block._forward_pre_hooks or block._forward_hooks:
        return False
    branches = block.mixer.branches()
    return len(branches) == 1 and branches[0].divisible and not branches[0].reverse


class Backbone(nn.Module):
    """Pre-norm residual stack of mixers, with a norm at its end.

    A causal backbone carries a state: feeding a sequence in pieces gives what feeding it whole gives.

    Example:
        >>> backbone = Backbone(BackboneConfig(d_model=128, layers=["mamba"] * 12))
        >>> y, state = backbone(torch.randn(1, 100, 128))
        >>> y_next, state = backbone.step(torch.randn(1, 128), state)
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(name, config) for name in config.layers)
        self.norm = RMSNorm(config.strand_width, config.norm_eps)
        self._group: dist.ProcessGroup | None = None

    def split_over(self, group: dist.ProcessGroup | None) -> None:
        """From now on every sequence is split over the ranks of `group`, in rank order; None ends that.

        `forward` then takes and gives this rank's consecutive part; parts may differ in length. The outputs are those
        of the whole sequence, and the gradient of the sum of all ranks' losses is the sum of the ranks' gradients.
        No state is taken or given. A part is always recomputed backward, in chunks as `chunk_size` says.

        Raises:
            ValueError: A layer needs the whole sequence on one rank, as attention does.
        """
        for index, block in enumerate(self.blocks):
            branches = block.mixer.branches()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            if group is not None and any(branch.transfer is None for branch in branches):
                raise ValueError(
                    f"layers[{index}] is {self.config.layers[index]!r}, which needs the whole sequence on one rank; "
                    "only state space mixers can share a sequence between ranks"
                )
        self._group = group

    def forward(
        self, x: Tensor, state: BackboneState | None = None, *, reset: Tensor | None = None
    ) -> tuple[Tensor, BackboneState | None]:
        """Runs a sequence, or the next piece of one.

        Args:
            x: (B, L, d_model).
            state: What the piece before returned; None is the state before the first token. Causal backbones only.
            reset: (B, L) bool, True at the first token of each document packed into a row: nothing is remembered
                across it, in either direction.

        Returns:
            (B, L, d_model) in x's dtype, and the state after the last token (None unless the backbone is causal).

        Raises:
            ValueError: A shape does not fit, or a state is given to a backbone that looks both ways.
        """
        self.check(x, state, reset)
        dtype = x.dtype
        hidden = x.to(torch.promote_types(dtype, torch.float32))
        exchange = None if self._group is None else self._join(self._group, x, state)
        if self.config.reverse_complement == "equivariant":
            together = exchange is not None and reset is not None
            following = exchange.shifted(reset[:, :1], reverse=True) if together else None  # pyright: ignore
            hidden, reset = split_strands(hidden, reset, following)
            exchange = None if exchange is None else exchange.with_opposite(x.shape[0])
        chunk_size, through_stack = self._chunking(hidden, exchange)
        if chunk_size is not None and through_stack:
            from mamba_kernels.blocks.chunked import run_stack_in_chunks

            blocks = [block for block in self.blocks if isinstance(block, Block)]
            y, states = run_stack_in_chunks(hidden, blocks, self.norm, reset, state, chunk_size)
        else:
            states = ()
            for index, block in enumerate(self.blocks):
                hidden, after = block(hidden, None if state is None else state[index], reset, chunk_size, exchange)
                states = (*states, after)
            y = self.norm(hidden)
        y = y.to(dtype)
        if not self.config.causal or exchange is not None:
            return (merge_strands(y) if self.config.reverse_complement == "equivariant" else y), None
        return y, states

    def step(self, x: Tensor, state: BackboneState) -> tuple[Tensor, BackboneState]:
        """One token `x` (B, d_model): the piece of length one, in constant time for state space mixers.

        Raises:
            ValueError: A shape does not fit, or the backbone looks both ways.
        """
        self.check(x[:, None] if x.ndim == 2 else x, state, None)
        hidden = x.to(torch.promote_types(x.dtype, torch.float32))
        states: list[LayerState] = []
        for block, before in zip(self.blocks, state, strict=True):
            hidden, after = block.step(hidden, before)  # pyright: ignore[reportCallIssue]
            states.append(after)
        return self.norm(hidden).to(x.dtype), tuple(states)

    def stream(self, pieces: Iterable[StreamPiece], *, scratch: str | Path | None = None) -> Iterator[Tensor]:
        """Runs a sequence that is given piece by piece in memory that does not grow with its length, without gradients.

        The outputs are those of `forward` on the whole sequence. A causal backbone gives each piece's output at once.
        One that looks both ways takes all pieces in first, then works layer by layer with the residual stream in
        temporary files, which take `8 * d_model` bytes a token of each row on the disk.

        Args:
            pieces: Consecutive pieces `x` (B, L, d_model), or `(x, reset)` with `reset` as in `forward`. A piece is
                worked on at once: 16,384 tokens are a good size.
            scratch: Folder of the temporary files; None is the system's.

        Yields:
            (B, L, d_model) for each piece with a token, in its dtype.

        Raises:
            ValueError: A shape does not fit, or the backbone has attention and looks both ways.
        """
        return stream(self, pieces, scratch)

    def initial_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> BackboneState:
        """The state before the first token, on the parameters' device and in their dtype unless told.

        Raises:
            ValueError: The backbone looks both ways.
        """
        self._check_causal()
        like = self.norm.weight
        device = like.device if device is None else torch.device(device)
        dtype = like.dtype if dtype is None else dtype
        return tuple(block.mixer.initial_state(batch_size, device, dtype) for block in self.blocks)  # pyright: ignore

    def _join(self, group: dist.ProcessGroup, x: Tensor, state: BackboneState | None) -> RankExchange:
        """The exchange with the other ranks, once all have parts that are long enough."""
        if state is not None:
            raise ValueError("a sequence that is split over ranks begins without a state: leave state out")
        exchange = RankExchange(group)
        branches = [branch for block in self.blocks for branch in block.mixer.branches()]  # pyright: ignore
        exchange.check_lengths(x.shape[1], max(branch.halo for branch in branches))
        return exchange

    def _chunking(self, hidden: Tensor, exchange: RankExchange | None) -> Chunking:
        # A block in chunks runs autograd itself, which can be neither exported nor transformed.
        if torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active():
            return Chunking(None)
        through_stack = exchange is None and all(map(_may_be_left_out, self.blocks))
        rows, length = hidden.shape[:2]
        return chunking(self.config, rows, length, hidden.element_size(), through_stack=through_stack)

    def _check_causal(self) -> None:
        if not self.config.causal:
            raise ValueError(
                "a backbone that looks both ways has no state to carry: this one has "
                f"bidirectional = {self.config.bidirectional!r} and "
                f"reverse_complement = {self.config.reverse_complement!r}; give it the whole sequence, without state"
            )

    def check(self, x: Tensor, state: Sequence[LayerState] | None, reset: Tensor | None) -> None:
        """Refuses an input that `forward` does not take.

        Raises:
            ValueError: A shape or a dtype does not fit, or a state is given to a backbone that looks both ways.
        """
        if x.ndim != 3 or x.shape[-1] != self.config.d_model or not x.is_floating_point():
            raise ValueError(
                f"x has shape {tuple(x.shape)} and dtype {x.dtype}; accepted: (batch, length, {self.config.d_model}) "
                f"of floating point"
            )
        if state is not None:
            self._check_causal()
            if len(state) != len(self.blocks):
                raise ValueError(f"the state holds {len(state)} layers, the backbone has {len(self.blocks)}")
        if reset is not None and (reset.shape != x.shape[:2] or reset.dtype != torch.bool):
            raise ValueError(
                f"reset has shape {tuple(reset.shape)} and dtype {reset.dtype}; accepted: {tuple(x.shape[:2])} of bool"
            )
