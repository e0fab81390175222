"""What the operators are under `torch.export`: plain torch, in a graph that serves sequences of every length.

Tracing unrolls a Python loop over a sequence into as many turns as the example has. So that loop is handed to torch's
own operator `scan` here, which exporters keep as a loop: it goes over chunks of fixed size, with the state from
chunk to chunk, and memory is that of one chunk. Nothing is asked of the length, not even whether it is one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

ChunkFunction = Callable[..., tuple[Tensor, Tensor]]
"""`(state, inside, *chunks, *constants)` to y and state; `inside` () int64 counts the chunk's true positions."""


def over_chunks(
    run: ChunkFunction,
    state: Tensor,
    sequences: Sequence[Tensor],
    constants: Sequence[Tensor],
    *,
    size: int,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Run over sequences of one length chunk by chunk.

    Args:
        run: One chunk, read to the right, and of nothing but its arguments. What lies behind a sequence's end is
            filled up with zeros.
        state: Before the first position.
        sequences: Each (B, L, ...), of which it gets chunks (B, size, ...).
        constants: What it needs besides.
        size: Positions that are worked on at a time.
        reverse: The rightmost position is the first.

    Returns:
        y (B, L, ...) and the state after the last position.
    """
    batch, length = sequences[0].shape[:2]
    # One chunk more than needed: a number of chunks that may be one is taken for a constant.
    count = (length + 2 * size - 1) // size
    within = (length - size * torch.arange(count, device=state.device)).clamp(0, size)

    def in_chunks(tensor: Tensor) -> Tensor:
        turned = tensor.flip(1) if reverse else tensor
        filled = F.pad(turned, (0, 0) * (tensor.dim() - 2) + (0, count * size - length))
        return filled.reshape(batch, count, size, *tensor.shape[2:]).transpose(0, 1)

    state, y = loop(run, state, (within, *map(in_chunks, sequences)), constants)
    place = torch.arange(length, device=state.device)  # a slice would ask how the length compares with the chunks'
    y = y.transpose(0, 1).flatten(1, 2).index_select(1, length - 1 - place if reverse else place)
    return y, state


def loop(
    run: Callable[..., tuple[Tensor, Tensor]], state: Tensor, inputs: Sequence[Tensor], constants: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Run over the first dimension of the inputs: `(state, *slices, *constants)` to y and state.

    Returns:
        The state after the last turn, and all y, one behind the other.
    """

    def turn(*given: Tensor) -> tuple[Tensor, Tensor]:
        y, after = run(*given)
        return after, y

    if torch.compiler.is_dynamo_compiling():  # strict=True, which knows the loop by another name only
        from torch._higher_order_ops import scan

        return scan(lambda state, given: turn(state, *given, *constants), state, list(inputs))
    if torch.onnx.is_in_onnx_export():  # it would derive the loop's gradient, and fail where sizes are not known
        state, *inputs = (tensor.detach() for tensor in (state, *inputs))
        constants = [tensor.detach() for tensor in constants]
    after, y = torch.ops.higher_order.scan(turn, [state], list(inputs), tuple(constants))
    return after, y
