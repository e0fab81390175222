"""`s4d_update`: one token of `s4d`, in constant time and memory.

Legend: B batch, D channels, N complex states a channel.
"""

from torch import Tensor

from mamba_kernels.arguments import compute_dtype
from mamba_kernels.ops.s4d.interface import check_arguments
from mamba_kernels.ops.s4d.pairs import discretise_pairs, read, step


def s4d_update(
    state: Tensor, x: Tensor, delta: Tensor, A: Tensor, C: Tensor, D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Advance `s4d` by one token; the state passed in is left alone.

    Args:
        state: (B, D, N, 2), as `s4d` returns it.
        x: (B, D), one token.
        delta: (D,).
        A: (D, N, 2).
        C: (D, N, 2).
        D: (D,).

    Returns:
        y (B, D) in x's dtype, and the new state in the state's dtype.

    Raises:
        ValueError: A shape or a device does not fit.
        TypeError: A dtype does not fit.
    """
    if x.dim() != 2:
        raise ValueError(f"s4d_update: x must be (batch, channels), found shape {tuple(x.shape)}")
    check_arguments("s4d_update", x, delta, A, C, D, ("state", state))
    dtype = compute_dtype(state, x, delta, A, C, D)
    log_decay, drive = discretise_pairs(delta, A, dtype)
    u = x.to(dtype)
    new_state = step(log_decay, drive, state.to(dtype), u)
    y = read(C.to(dtype), new_state)
    y = y if D is None else y + D.to(dtype) * u
    return y.to(x.dtype), new_state.to(state.dtype)
