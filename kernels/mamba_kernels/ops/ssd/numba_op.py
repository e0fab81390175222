"""SSD on the CPU as PyTorch operators, `mamba_kernels::ssd` and its backward: torch's products, Numba in between.

Forward and backward walk over pieces of a few chunks, so that a piece's matrices stay in cache; only the state before
each piece is kept. Legend: B batch, L length, H heads, P channels a head, G groups, N states, Q positions in a chunk,
K chunks of all rows of a piece. A derivation is in the README beside this file.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mamba_kernels.arguments import without_autocast
from mamba_kernels.cpu.numba_runtime import parallel_for
from mamba_kernels.ops.derivatives import gradient_through, refuse_second_derivative, to_be_differentiated
from mamba_kernels.ops.ssd.decays import boundary_decays, documents, running_sum, sum_of_later
from mamba_kernels.ops.ssd.numba_kernels import mix_matrices, mix_matrices_backward
from mamba_kernels.ops.ssd.torch import chunk_states, in_chunks, ssd_torch

PIECE_NUMBERS = 2**19
"""Numbers in the largest temporary of a piece: 2 MB, the second cache and what lies behind it."""

_INPUTS = (
    "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? initial_state, Tensor? reset, bool reverse, "
    "int chunk_size"
)
_library = torch.library.Library("mamba_kernels", "FRAGMENT")
_library.define(f"ssd({_INPUTS}) -> (Tensor y, Tensor final_state, Tensor checkpoints)")
_library.define(f"ssd_backward(Tensor? grad_y, Tensor? grad_final_state, {_INPUTS}, Tensor checkpoints) -> Tensor[]")


class _Sizes(NamedTuple):
    batch: int
    length: int
    heads: int
    width: int
    groups: int
    states: int
    chunk: int

    @property
    def piece(self) -> int | torch.SymInt:
        """Positions of a row in a piece, a multiple of the chunk's; symbolic while a compiler traces."""
        numbers = self.batch * self.heads * max(self.chunk * self.chunk, self.width * self.states)
        return max(1, PIECE_NUMBERS // numbers) * self.chunk

    def pieces(self, reverse: bool) -> list[slice]:
        """The pieces in the order of time."""
        step = int(self.piece)
        found = [slice(i, min(i + step, self.length)) for i in range(0, self.length, step)]
        return found[::-1] if reverse else found


def _sizes(x: Tensor, B: Tensor, chunk_size: int) -> _Sizes:
    batch, length, heads, width = x.shape
    return _Sizes(batch, length, heads, width, B.shape[2], B.shape[3], min(chunk_size, length))


class _Piece:
    """The chunks of a piece, and all that its forward and backward pass both need."""

    def __init__(
        self, tensors: tuple[Tensor, ...], reset: Tensor | None, part: slice, reverse: bool, sizes: _Sizes
    ) -> None:
        x, dt, A, B, C = tensors
        self.sizes, self.reverse, self.length = sizes, reverse, part.stop - part.start
        self.x = in_chunks(x[:, part], sizes.chunk, torch.float32)
        self.dt = in_chunks(dt[:, part], sizes.chunk).transpose(1, 2).contiguous()
        self.b = self.by_group(in_chunks(B[:, part], sizes.chunk, torch.float32))
        self.c = self.by_group(in_chunks(C[:, part], sizes.chunk, torch.float32))
        self.resets = None if reset is None else in_chunks(reset[:, part], sizes.chunk).contiguous()
        self.log_decay = self.dt * A[:, None]
        self.entering, leaving = boundary_decays(self.log_decay, documents(self.resets, reverse), reverse)
        self.leaving = leaving
        self.shared = torch.bmm(self.c, self.b.transpose(1, 2))

    def by_group(self, tensor: Tensor) -> Tensor:
        """(K, Q, heads or groups, M) to (K * G, Q, each * M)."""
        grouped = tensor.unflatten(2, (self.sizes.groups, -1)).transpose(1, 2)
        return grouped.reshape(-1, self.sizes.chunk, grouped.shape[3] * grouped.shape[4])

    def from_groups(self, tensor: Tensor) -> Tensor:
        """(K * G, Q, each * P) to (K, Q, H, P)."""
        found = tensor.view(-1, self.sizes.groups, self.sizes.chunk, tensor.shape[-1]).transpose(1, 2)
        return found.reshape(-1, self.sizes.chunk, self.sizes.heads, self.sizes.width)

    @staticmethod
    def by_head(tensor: Tensor) -> Tensor:
        """(K, Q, H, P) to (K * H, Q, P)."""
        return tensor.transpose(1, 2).flatten(0, 1)

    def from_heads(self, tensor: Tensor) -> Tensor:
        """(K * H, Q, P) to (K, Q, H, P), a view."""
        return tensor.view(-1, self.sizes.heads, self.sizes.chunk, self.sizes.width).transpose(1, 2)

    @staticmethod
    def over_channels(tensor: Tensor) -> Tensor:
        """(K, H, Q) to (K, Q, H, 1)."""
        return tensor.transpose(1, 2).unsqueeze(-1)

    def rows(self, chunks: Tensor) -> Tensor:
        """(K, Q, ...) to (B, T, ...)."""
        return chunks.reshape(self.sizes.batch, -1, *chunks.shape[2:])[:, : self.length]

    def kernel_arguments(self) -> tuple[Any, ...]:
        """What `mix_matrices` and its backward take first."""
        chunks, heads, size = self.dt.shape
        reset = np.empty((chunks, 0), np.bool_) if self.resets is None else self.resets.numpy()
        flat = (chunks * heads, size)
        logs, steps = self.log_decay.view(flat).numpy(), self.dt.view(flat).numpy()
        return self.shared.view(-1).numpy(), logs, steps, reset, self.reverse, heads, self.sizes.groups

    @property
    def carried(self) -> Tensor:
        """(B, chunks, H), what is left of the entering state at the chunk's end."""
        return self.entering[:, :, 0 if self.reverse else -1].view(self.sizes.batch, -1, self.sizes.heads)

    def states(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The states before each chunk (B, chunks, H, P, N), and the state after the piece."""
        sizes = self.sizes
        weighted = self.by_group(self.x * self.over_channels(self.leaving * self.dt))
        own = torch.bmm(weighted.transpose(1, 2), self.b).view(sizes.batch, -1, sizes.heads, sizes.width, sizes.states)
        resets = None if self.resets is None else self.resets.view(sizes.batch, -1, sizes.chunk)
        *before, after = chunk_states(own, self.carried, state, resets, self.reverse)
        return torch.stack(before, dim=1), after

    def mix(self) -> Tensor:
        """(K * H, Q, Q), from the inputs of a chunk to its outputs."""
        matrices = self.x.new_empty(self.dt.shape[0] * self.sizes.heads, self.sizes.chunk, self.sizes.chunk)
        arguments = self.kernel_arguments()
        parallel_for(mix_matrices, matrices.shape[0], *arguments, matrices.view(-1).numpy())
        return matrices

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The output (B, T, H, P) of the piece and the state after it."""
        before, after = self.states(state)
        read = torch.bmm(self.c, before.view(self.c.shape[0], -1, self.sizes.states).transpose(1, 2))
        inner = torch.bmm(self.mix(), self.by_head(self.x))
        y = torch.addcmul(self.from_heads(inner), self.from_groups(read), self.over_channels(self.entering))
        return self.rows(y), after


class _Gradients(NamedTuple):
    """The gradients of a piece's x, dt, A, B and C, and of the state before it."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    state: Tensor


def _state_gradients(piece: _Piece, direct: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Walk back over the chunks: the gradients of the states after each (B, chunks, H, P, N), and before the first.

    Args:
        piece: The piece.
        direct: (B, chunks, H, P, N), what the chunks' outputs want of the states before them.
        grad: (B, H, P, N), the gradient of the state after the piece.
    """
    count = direct.shape[1]
    after = [grad] * count
    resets = None if piece.resets is None else piece.resets.view(piece.sizes.batch, count, -1)
    carried = piece.carried
    for c in range(count) if piece.reverse else range(count - 1, -1, -1):
        after[c] = grad
        grad = carried[:, c, :, None, None] * grad + direct[:, c]
        if resets is not None:
            grad = torch.where(resets[:, c].any(1)[:, None, None, None], direct[:, c], grad)
            cut = resets[:, c, -1 if piece.reverse else 0]
            grad = torch.where(cut[:, None, None, None], 0.0, grad)
    return torch.stack(after, dim=1), grad


def _differentiate_piece(
    piece: _Piece, A: Tensor, state: Tensor, grad_y: Tensor | None, grad_state: Tensor
) -> _Gradients:
    """Differentiate a piece, given the state before it and the gradients of its output and of the state after it."""
    sizes, over = piece.sizes, piece.over_channels
    chunks, each = piece.dt.shape[0], sizes.heads // sizes.groups
    grad_y = torch.zeros_like(piece.x) if grad_y is None else in_chunks(grad_y, sizes.chunk, torch.float32)
    before, _ = piece.states(state)
    entered = grad_y * over(piece.entering)
    direct = torch.bmm(piece.by_group(entered).transpose(1, 2), piece.c).view_as(before)
    after_grad, state_grad = _state_gradients(piece, direct, grad_state)

    by_heads = chunks * sizes.heads, sizes.width, sizes.states
    heads_x, heads_grad = piece.by_head(piece.x), piece.by_head(grad_y)
    read = torch.bmm(piece.by_head(entered), before.reshape(by_heads))  # per head, what its output wants of C
    stored = torch.bmm(heads_x, after_grad.reshape(by_heads))  # per head, what the leaving state wants of B
    stored *= piece.leaving.reshape(-1, sizes.chunk, 1)
    split = chunks * sizes.groups, each, sizes.chunk, sizes.states
    through_entering = (read.view(split) * piece.c.unsqueeze(1)).sum(-1).view_as(piece.dt)
    by_step = (stored.view(split) * piece.b.unsqueeze(1)).sum(-1).view_as(piece.dt)
    stored *= piece.dt.reshape(-1, sizes.chunk, 1)

    mixed = torch.bmm(heads_grad, heads_x.transpose(1, 2))
    by_product, by_log, by_dt = torch.zeros_like(piece.shared), torch.empty_like(piece.dt), torch.zeros_like(piece.dt)
    flat = by_log.view(-1, sizes.chunk).numpy(), by_dt.view(-1, sizes.chunk).numpy()
    written = mixed.view(-1).numpy(), by_product.view(-1).numpy(), *flat
    parallel_for(mix_matrices_backward, chunks * sizes.groups, *piece.kernel_arguments(), *written)

    carried = (before * after_grad).sum((-1, -2)).view(chunks, sizes.heads, 1) * piece.carried.reshape(chunks, -1, 1)
    by_log += sum_of_later(through_entering, piece.reverse) + through_entering + carried
    through_leaving = by_step * piece.dt
    by_log += running_sum(through_leaving, piece.reverse) - through_leaving
    grad_c = torch.baddbmm(read.view(split).sum(1), by_product, piece.b)
    grad_b = torch.baddbmm(stored.view(split).sum(1), by_product.transpose(1, 2), piece.c)
    wanted = torch.bmm(piece.b, after_grad.view(piece.b.shape[0], -1, sizes.states).transpose(1, 2))
    inner = torch.bmm(mixed.transpose(1, 2), heads_grad)
    grad_x = torch.addcmul(piece.from_heads(inner), piece.from_groups(wanted), over(piece.leaving * piece.dt))
    grouped = chunks, sizes.groups, sizes.chunk, sizes.states
    return _Gradients(
        piece.rows(grad_x),
        piece.rows((by_dt + by_step + by_log * A[:, None]).transpose(1, 2)),
        (by_log * piece.dt).sum((0, 2)),
        piece.rows(grad_b.view(grouped).transpose(1, 2)),
        piece.rows(grad_c.view(grouped).transpose(1, 2)),
        state_grad,
    )


def _finite(*tensors: Tensor) -> bool:
    return all(bool(tensor.sum().isfinite()) for tensor in tensors)


def _forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = _sizes(x, B, chunk_size)
    shape = sizes.batch, sizes.heads, sizes.width, sizes.states
    state = x.new_zeros(shape, dtype=torch.float32) if initial_state is None else initial_state.to(torch.float32)
    y = torch.empty(x.shape, dtype=torch.float32)
    pieces = sizes.pieces(reverse)
    checkpoints = torch.empty((len(pieces), *shape), dtype=torch.float32)
    for kept, part in zip(checkpoints, pieces, strict=True):
        kept.copy_(state)
        y[:, part], state = _Piece((x, dt, A, B, C), reset, part, reverse, sizes).forward(state)
    if chunk_size > 1 and not _finite(y, state):
        # In a product a NaN meets zeros too, and spreads to positions that must not see it. One by one, none do.
        y, state, _ = _forward(x, dt, A, B, C, initial_state, reset, reverse, 1)
    return y, state.clone(), checkpoints


def _backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    chunk_size: int,
    checkpoints: Tensor,
) -> list[Tensor]:
    sizes = _sizes(x, B, chunk_size)
    shape = sizes.batch, sizes.heads, sizes.width, sizes.states
    state_grad = x.new_zeros(shape, dtype=torch.float32) if grad_final_state is None else grad_final_state
    found = [torch.empty(tensor.shape, dtype=torch.float32) for tensor in (x, dt, B, C)]
    rates = torch.zeros(sizes.heads, dtype=torch.float32)
    for kept, part in reversed(list(zip(checkpoints, sizes.pieces(reverse), strict=True))):
        piece = _Piece((x, dt, A, B, C), reset, part, reverse, sizes)
        grads = _differentiate_piece(piece, A, kept, None if grad_y is None else grad_y[:, part], state_grad)
        for whole, own in zip(found, (grads.x, grads.dt, grads.B, grads.C), strict=True):
            whole[:, part] = own
        rates += grads.A
        state_grad = grads.state
    if chunk_size > 1 and not _finite(*found, rates):
        saved = _forward(x, dt, A, B, C, initial_state, reset, reverse, 1)[2]
        rest = x, dt, A, B, C, initial_state, reset, reverse, 1, saved
        return _backward(grad_y, grad_final_state, *rest)
    steps, b, c = found[1:]
    return [found[0].to(x.dtype), steps, rates, b.to(B.dtype), c.to(C.dtype), state_grad.clone()]


def _forward_shapes(x: Tensor, dt: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    B, chunk_size = arguments[1], arguments[-1]
    sizes = _sizes(x, B, chunk_size)
    shape = sizes.batch, sizes.heads, sizes.width, sizes.states
    pieces = (sizes.length + sizes.piece - 1) // sizes.piece
    return dt.new_empty(x.shape), dt.new_empty(shape), dt.new_empty((pieces, *shape))


def _backward_shapes(grad_y: Tensor | None, grad_final_state: Tensor | None, *arguments: Any) -> list[Tensor]:
    x, dt, A, B, C = arguments[:5]
    state = dt.new_empty((x.shape[0], *x.shape[2:], B.shape[3]))
    return [*(tensor.new_empty(tensor.shape) for tensor in (x, dt, A, B, C)), state]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.reverse, ctx.chunk_size = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None, _: object) -> tuple[Any, ...]:
    *tensors, checkpoints = ctx.saved_tensors
    if grad_y is None and grad_final_state is None:
        return (None,) * 9
    if to_be_differentiated(grad_y, grad_final_state):
        return gradient_through(ssd_torch, (*tensors, ctx.reverse, ctx.chunk_size), (grad_y, grad_final_state))
    with without_autocast(checkpoints.device):  # it is on where `backward` is called inside of it
        *found, state = torch.ops.mamba_kernels.ssd_backward(
            grad_y, grad_final_state, *tensors, ctx.reverse, ctx.chunk_size, checkpoints
        )
    initial_state = tensors[5]
    return (*found, None if initial_state is None else state.to(initial_state.dtype), None, None, None)


_library.impl("ssd", _forward, "CPU")
_library.impl("ssd_backward", _backward, "CPU")
torch.library.register_fake("mamba_kernels::ssd", _forward_shapes, lib=_library)
torch.library.register_fake("mamba_kernels::ssd_backward", _backward_shapes, lib=_library)
torch.library.register_autograd("mamba_kernels::ssd", _differentiate, setup_context=_setup, lib=_library)
refuse_second_derivative("mamba_kernels::ssd_backward", _library)


def ssd_numba(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Run on the CPU; arguments and result as in `ssd_reference`, float32 and bfloat16 only."""
    y, state, _ = torch.ops.mamba_kernels.ssd(x, dt, A, B, C, initial_state, reset, reverse, chunk_size)
    return y, state
