"""Residual blocks run over the sequence in chunks, recomputed chunk by chunk backward.

Forward, each branch of a mixer walks the sequence in its own direction and carries its state from chunk to chunk;
only the block's input and the state at each chunk's beginning are kept. Backward, the chunks are visited in the
opposite order: a chunk is computed again with its graph, differentiated, and the gradient of the state it began with
is handed to the chunk before. That is the chain rule in full, so the gradient is exact.

Where all blocks walk forwards, a chunk goes through the whole stack before the next one begins: then the stack's input
and the states are all that is kept, however many blocks there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mamba_kernels.blocks.registry import Branch, LayerState, Mixer, Piece, computing_dtype
from mamba_kernels.blocks.replay import Tape
from mamba_kernels.ops.derivatives import differentiable_once
from mamba_kernels.parallel.exchange import RankExchange

Chunk = tuple[int, int]


@torch.compiler.disable()  # its backward pass runs autograd itself, which a compiler cannot trace
def run_in_chunks(
    residual: Tensor,
    norm: nn.Module,
    branches: Sequence[Branch],
    resets: Sequence[Tensor | None],
    state: LayerState | None,
    chunk_size: int,
    parameters: Sequence[nn.Parameter],
    exchange: RankExchange | None = None,
) -> tuple[Tensor, LayerState]:
    """`residual + sum of the branches of norm(residual)`, keeping no more than `residual` and the chunks' first states.

    Args:
        residual: (B, L, d_model), the block's input.
        norm: Applied to each chunk before the branches.
        branches: The mixer's directed passes.
        resets: One (B, L) a branch, counted in the branch's direction, or None.
        state: What the first branch begins with; None is the state before the first token.
        chunk_size: Tokens a chunk; a branch that is not divisible takes the sequence in one.
        parameters: Every parameter that norm and branches use.
        exchange: Where `residual` is this rank's part of a sequence that is split over ranks.

    Returns:
        The block's output and the first branch's final state, or `()` where there are two branches.
    """
    dtype = computing_dtype(residual.device.type, parameters)
    starts = [branch.initial_state(residual.shape[0], residual.device, dtype) for branch in branches]
    if state is not None:
        starts[0] = state
    if exchange is not None:
        starts = [
            _enter(residual, norm, branch, reset, start, exchange)
            for branch, reset, start in zip(branches, resets, starts, strict=True)
        ]
    sizes = [len(start) for start in starts]
    plan = _Plan(norm, branches, resets, chunk_size, sizes, len(parameters), exchange)
    outputs = _InChunks.apply(plan, residual, *(tensor for start in starts for tensor in start), *parameters)
    return outputs[0], outputs[1:]


@torch.compiler.disable()
def run_stack_in_chunks(
    x: Tensor,
    blocks: Sequence[Residual],
    norm: nn.Module,
    reset: Tensor | None,
    state: Sequence[LayerState] | None,
    chunk_size: int,
) -> tuple[Tensor, tuple[LayerState, ...]]:
    """All blocks of a stack that looks back only and the norm at its end, keeping `x` and the chunks' first states.

    Args:
        x: (B, L, d_model), the first block's input.
        blocks: Each adds its mixer's only branch, which is divisible, to its input.
        norm: Applied to what the last block gives.
        reset: (B, L), or None.
        state: What each block begins with; None is the state before the first token.
        chunk_size: Tokens a chunk.

    Returns:
        The norm's output, and each block's final state.
    """
    branches = [branch for block in blocks for branch in block.mixer.branches()]
    parameters = [parameter for module in (*blocks, norm) for parameter in module.parameters()]
    dtype = computing_dtype(x.device.type, parameters)
    starts = state or [branch.initial_state(x.shape[0], x.device, dtype) for branch in branches]
    sizes = [len(start) for start in starts]

    def run(piece_x: Tensor, before: LayerState, piece: Piece) -> tuple[Tensor, LayerState]:
        after: list[Tensor] = []
        for block, branch, first in zip(blocks, branches, _grouped(before, sizes), strict=True):
            y, final = branch.run(block.norm(piece_x), first, Piece(piece.reset))
            piece_x = piece_x + y
            after.extend(final)
        return norm(piece_x), tuple(after)

    flat = [tensor for start in starts for tensor in start]
    whole = Branch(run, lambda *_: tuple(flat))
    plan = _Plan(nn.Identity(), [whole], [reset], chunk_size, [len(flat)], len(parameters), None, residual=False)
    outputs = _InChunks.apply(plan, x, *flat, *parameters)
    return outputs[0], tuple(_grouped(outputs[1:], sizes))


class Residual(Protocol):
    """A block as the stack runs it: `x + mixer(norm(x))`."""

    @property
    def norm(self) -> nn.Module:
        """Applied first."""
        ...

    @property
    def mixer(self) -> Mixer:
        """Applied to what the norm gives."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter of norm and mixer."""
        ...


def _enter(
    residual: Tensor, norm: nn.Module, branch: Branch, reset: Tensor | None, start: LayerState, exchange: RankExchange
) -> LayerState:
    """The state a branch begins with on this rank, all but its last tensor, from the last tokens of the rank before."""
    assert branch.transfer is not None  # the backbone has refused others
    if len(start) == 1:
        return start
    length = residual.shape[1]
    edge = slice(0, branch.halo) if branch.reverse else slice(length - branch.halo, length)
    piece = Piece(None if reset is None else reset[:, edge])
    _, after = branch.transfer(norm(residual[:, edge]), start, piece)
    return (*(exchange.shift(tensor, reverse=branch.reverse) for tensor in after[:-1]), start[-1])


class _Plan:
    """What is done in chunks, apart from its tensors."""

    def __init__(
        self,
        norm: nn.Module,
        branches: Sequence[Branch],
        resets: Sequence[Tensor | None],
        chunk_size: int,
        state_sizes: list[int],
        parameter_count: int,
        exchange: RankExchange | None,
        *,
        residual: bool = True,
    ) -> None:
        self.residual = residual  # what the branches give is added to their input
        self.norm, self.branches, self.resets = norm, branches, resets
        self.chunk_size, self.state_sizes, self.parameter_count = chunk_size, state_sizes, parameter_count
        self.exchange = exchange

    def chunks(self, branch: Branch, length: int) -> list[Chunk]:
        """The chunks' borders in the order in which the branch meets them."""
        size = self.chunk_size if branch.divisible else max(1, length)
        if branch.reverse:
            return [(max(stop - size, 0), stop) for stop in range(length, 0, -size)]
        return [(start, min(start + size, length)) for start in range(0, length, size)]

    def run(self, index: int, x: Tensor, state: LayerState, chunk: Chunk, tape: Tape) -> tuple[Tensor, LayerState]:
        """One chunk of one branch, from a piece `x` of the residual stream."""
        return self.branches[index].run(self.norm(x), state, self._piece(index, chunk, tape))

    def first_state(self, index: int, residual: Tensor, state: LayerState) -> tuple[LayerState, Tensor]:
        """What the ranks before leave to a branch, and the product of each rank's decays (R, B, ...).

        All but the state's last tensor is there already; that is found by a run from zero.
        """
        branch, exchange = self.branches[index], self.exchange
        assert exchange is not None
        assert branch.transfer is not None
        product, after = torch.ones((), dtype=state[-1].dtype, device=residual.device), state
        for chunk in self.chunks(branch, residual.shape[1]):
            x = self.norm(residual[:, slice(*chunk)])
            decay, after = branch.transfer(x, after, self._piece(index, chunk, None))
            product = product * decay
        decays = exchange.gather(product)
        first = exchange.combine(decays, exchange.gather(after[-1]), reverse=branch.reverse)
        return (*state[:-1], first), decays

    def _piece(self, index: int, chunk: Chunk, tape: Tape | None) -> Piece:
        reset = self.resets[index]
        return Piece(None if reset is None else reset[:, slice(*chunk)], tape)

    def split_states(self, tensors: Sequence[Tensor]) -> list[LayerState]:
        """The flat list of all branches' states, as one tuple a branch."""
        states, at = [], 0
        for size in self.state_sizes:
            states.append(tuple(tensors[at : at + size]))
            at += size
        return states


class _Shelf:
    """One block of memory for what all chunks keep.

    Kept among the chunks' large temporaries, the small tensors would break the heap into pieces too small to be used
    again, and the process would grow by several times what it keeps.
    """

    def __init__(self, chunks: int) -> None:
        self.chunks, self.used = chunks, 0
        self.rows: list[Tensor] = []

    def put(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Copies of a chunk's tensors; the first chunk's are the largest of their kind."""
        if not self.rows:
            self.rows = [tensor.new_empty(self.chunks, tensor.numel()) for tensor in tensors]
        found = [row[self.used, : t.numel()].view(t.shape) for row, t in zip(self.rows, tensors, strict=True)]
        for target, tensor in zip(found, tensors, strict=True):
            target.copy_(tensor)
        self.used += 1
        return found


class _InChunks(torch.autograd.Function):
    """`apply(plan, residual, *initial states of all branches, *parameters) -> (output, *final state)`."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, residual: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        states = plan.split_states(rest)
        parameters = rest[sum(plan.state_sizes) :]
        output = torch.empty_like(residual)
        kept: list[Tensor] = []
        ctx.kept_sizes, ctx.decays = [], []
        final: LayerState = ()
        for index, (branch, state) in enumerate(zip(plan.branches, states, strict=True)):
            chunks = plan.chunks(branch, residual.shape[1])
            if plan.exchange is not None:
                state, decays = plan.first_state(index, residual, state)
                ctx.decays.append(decays)
            shelf = _Shelf(len(chunks))
            for chunk in chunks:
                tape, first = Tape(), state
                y, state = plan.run(index, residual[:, slice(*chunk)], first, chunk, tape)
                before = residual if index == 0 else output
                piece = slice(*chunk)
                if plan.residual:
                    torch.add(before[:, piece], y, out=output[:, piece])
                else:
                    output[:, piece] = y
                kept.extend(shelf.put((*first, *tape.tensors)))
                ctx.kept_sizes.append(len(first) + len(tape.tensors))
            if len(plan.branches) == 1:
                final = state
        ctx.plan, ctx.autocast = plan, _current_autocast(residual.device.type)
        ctx.save_for_backward(residual, *parameters, *kept)
        return (output, *(tensor.clone() for tensor in final))

    @staticmethod
    @differentiable_once(
        "a block that runs in chunks has no second derivative; build the backbone with chunk_size=None"
    )
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        residual, *saved = ctx.saved_tensors
        parameters, kept = saved[: plan.parameter_count], _grouped(saved[plan.parameter_count :], ctx.kept_sizes)
        grad_residual = torch.empty_like(residual)
        grad_parameters: list[Tensor | None] = [None] * len(parameters)
        grad_states: list[Tensor | None] = []
        for index, branch in enumerate(plan.branches):
            chunks = plan.chunks(branch, residual.shape[1])
            size = plan.state_sizes[index]
            carried: Sequence[Tensor | None] = gradients[1:] if len(plan.branches) == 1 else [None] * size
            if plan.exchange is not None:
                through = _gradient_of_first_state(ctx, index, chunks, kept, gradients[0], residual)
                left = plan.exchange.gather(through)
                handed = plan.exchange.combine(ctx.decays[index], left, reverse=not branch.reverse)
                carried = [*[None] * (size - 1), handed]
            for number in reversed(range(len(chunks))):
                piece, (first, taped) = slice(*chunks[number]), (kept[number][:size], kept[number][size:])
                inputs = [residual[:, piece].detach().requires_grad_(), *(_leaf(tensor) for tensor in first)]
                with torch.enable_grad(), ctx.autocast():
                    y, state = plan.run(index, inputs[0], tuple(inputs[1:]), chunks[number], Tape(taped))
                grads = _differentiate(y, state, gradients[0][:, piece], carried, [*inputs, *parameters])
                before = gradients[0] if index == 0 else grad_residual
                through = 0.0 if grads[0] is None else grads[0]
                if plan.residual:
                    torch.add(before[:, piece], through, out=grad_residual[:, piece])
                else:
                    grad_residual[:, piece] = through
                carried = grads[1 : 1 + size]
                grad_parameters = [_sum(a, b) for a, b in zip(grad_parameters, grads[1 + size :], strict=True)]
            kept = kept[len(chunks) :]
            grad_states.extend(carried)
        return (None, grad_residual, *grad_states, *grad_parameters)


def _gradient_of_first_state(
    ctx: Any, index: int, chunks: list[Chunk], kept: list[tuple[Tensor, ...]], grad_output: Tensor, residual: Tensor
) -> Tensor:
    """What this rank's outputs ask of the last tensor of the state that enters it."""
    plan: _Plan = ctx.plan
    size = plan.state_sizes[index]
    grad: Tensor | None = None
    for number in reversed(range(len(chunks))):
        piece, (first, taped) = slice(*chunks[number]), (kept[number][:size], kept[number][size:])
        state = (*first[:-1], _leaf(first[-1]))
        with torch.enable_grad(), ctx.autocast():
            y, after = plan.run(index, residual[:, piece], state, chunks[number], Tape(taped))
        (grad,) = _differentiate(y, after, grad_output[:, piece], [*[None] * (size - 1), grad], [state[-1]])
    assert grad is not None  # a part has at least one token
    return grad


def _grouped(tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Consecutive groups of the given sizes."""
    rest = iter(tensors)
    return [tuple(islice(rest, size)) for size in sizes]


def _differentiate(
    y: Tensor, state: LayerState, grad_y: Tensor, grad_state: Sequence[Tensor | None], inputs: list[Tensor]
) -> list[Tensor | None]:
    """Gradients of `inputs`, None where nothing depends on them or they have none to ask for."""
    outputs, given = [y], [grad_y.to(y.dtype)]
    for tensor, grad in zip(state, grad_state, strict=True):
        if grad is not None and tensor.requires_grad:
            outputs.append(tensor)
            given.append(grad.to(tensor.dtype))
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(outputs, wanted, given, allow_unused=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_() if tensor.is_floating_point() else tensor


def _sum(total: Tensor | None, term: Tensor | None) -> Tensor | None:
    if total is None or term is None:
        return term if total is None else total
    return total + term


def _current_autocast(kind: str) -> Callable[[], AbstractContextManager[Any]]:
    """Makes the autocast that is on now, so that the recomputation runs under the same."""
    if not torch.amp.is_autocast_available(kind):
        return nullcontext
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return lambda: torch.autocast(kind, dtype=dtype, enabled=enabled)
