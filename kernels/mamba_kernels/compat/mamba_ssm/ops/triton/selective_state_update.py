"""One token of a scan, the state overwritten, as mamba-ssm's function does it.

Legend: B batch, D channels, H heads, P channels in a head, N state size, G groups.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels import selective_state_update as functional_state_update
from mamba_kernels import ssd_update


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """Advance a scan by one token and overwrite `state`, as mamba-ssm's function of this name does.

    Args:
        state: (B, D, N) or (B, H, P, N), changed in place.
        x: (B, D) or (B, H, P).
        dt: As x.
        A: (D, N) or (H, P, N).
        B: (B, N) or (B, G, N), with G that divides the heads.
        C: As B.
        D: (D,) or (H, P).
        z: As x.
        dt_bias: (D,) or (H, P).
        dt_softplus: Whether to apply softplus to dt + dt_bias.
        state_batch_indices: (B,), the rows of a larger `state` that belong to the batch.

    Returns:
        out, of x's shape and dtype.

    Raises:
        ValueError: A shape does not fit; the message says what is accepted.
        TypeError: A dtype does not fit.
    """
    heads = state.dim() == 4
    if state.dim() not in (3, 4) or x.dim() != state.dim() - 1 or (heads and B.dim() not in (2, 3)):
        raise ValueError(
            "selective_state_update: state must be (batch, channels, states) with x (batch, channels), or"
            " (batch, heads, channels, states) with x (batch, heads, channels),"
            f" found {tuple(state.shape)} and {tuple(x.shape)}"
        )
    if heads and B.dim() == 3 and (B.shape[1] == 0 or state.shape[1] % B.shape[1]):
        raise ValueError(
            f"selective_state_update: B has {B.shape[1]} groups, which do not divide {state.shape[1]} heads"
        )
    current = state if state_batch_indices is None else state[state_batch_indices.long()]
    if heads and _alike_within_heads(A, dt, dt_bias):
        y, new = _step_of_heads(current, x, dt, A, B, C, D, z, dt_bias, dt_softplus)
    else:
        y, new = _step_of_channels(current, x, dt, A, B, C, D, z, dt_bias, dt_softplus)
    if state_batch_indices is None:
        state.copy_(new)
    else:
        state[state_batch_indices.long()] = new
    return y


def _alike_within_heads(A: Tensor, dt: Tensor, dt_bias: Tensor | None) -> bool:
    """Say whether all channels and states of a head decay alike, as Mamba-2's do: one number, expanded."""
    expanded = A.dim() == 3 and A.stride(1) == A.stride(2) == 0 and dt.stride(2) == 0
    return expanded and (dt_bias is None or dt_bias.stride(1) == 0)


def _step_of_heads(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Advance Mamba-2's scan; returns out (B, H, P) and the new state (B, H, P, N)."""
    b, c = (tensor if tensor.dim() == 3 else tensor.unsqueeze(1) for tensor in (B, C))
    bias = None if dt_bias is None else dt_bias[:, 0]
    y, new = ssd_update(state.clone(), x, dt[..., 0], A[:, 0, 0], b, c, D, z, bias, dt_softplus)
    if new.dtype in (torch.bfloat16, torch.float16):
        nothing = torch.zeros_like(dt[..., 0])
        y, _ = ssd_update(new, x, nothing, A[:, 0, 0], b, c, D, z)
    return y, new


def _step_of_channels(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Advance a scan whose channels each have their own rates; returns out and the new state, shaped as they came."""
    heads = state.dim() == 4
    flat = (tensor if tensor is None or not heads else tensor.flatten(1, 2) for tensor in (state, x, dt, z))
    old, token, step, gate = flat
    rates, skip, bias = (tensor if tensor is None or not heads else tensor.flatten(0, 1) for tensor in (A, D, dt_bias))
    if old is None or token is None or step is None or rates is None:
        raise TypeError("selective_state_update: state, x, dt and A are needed")
    y, new = functional_state_update(old.clone(), token, step, rates, B, C, skip, gate, bias, dt_softplus)
    if new.dtype in (torch.bfloat16, torch.float16):
        # A narrow state is read as it was rounded, as mamba-ssm defines it: a step of size zero only reads.
        y, _ = functional_state_update(new, token, torch.zeros_like(step), rates, B, C, skip, gate)
    return y.view(x.shape), new.view(state.shape)


def selective_state_update_ref(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """Advance a scan in plain torch, each operation in the dtype of its arguments: what the update is judged by.

    Arguments, results and errors are those of `selective_state_update`.
    """
    heads = state.dim() == 4
    step = dt if dt_bias is None else dt + dt_bias
    step = (F.softplus(step) if dt_softplus else step).unsqueeze(-1)
    b, c = (tensor.unsqueeze(1) if tensor.dim() == 2 and heads else tensor for tensor in (B, C))
    if b.dim() == 3:
        b, c = (tensor.repeat_interleave(x.shape[1] // tensor.shape[1], dim=1) for tensor in (b, c))
        b, c = (tensor.unsqueeze(2) if heads else tensor for tensor in (b, c))
    else:
        b, c = b.unsqueeze(1), c.unsqueeze(1)
    state.copy_(torch.exp(step * A) * state + step * b * x.unsqueeze(-1))
    out = (state.to(c.dtype) * c).sum(-1)
    if D is not None:
        out = out + (x * D).to(out.dtype)
    return (out if z is None else out * F.silu(z)).to(x.dtype)
