"""The SSD recurrence as its definition reads, one step after another: the truth that every other backend is held to."""

import torch
from torch import Tensor


def ssd_reference(
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
    """Run step by step in torch: h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t', y_t = h_t C_t.

    Dao and Gu 2024 (arXiv:2405.21060), equations 1a and 1b with the scalar-identity A of section 2.2.

    Args:
        x: (B, L, H, P).
        dt: (B, L, H), after bias and softplus, in the dtype to compute in.
        A: (H,), as dt.
        B: (B, L, G, N).
        C: As B.
        initial_state: (B, H, P, N).
        reset: (B, L) bool.
        reverse: Run from the right.
        chunk_size: Of no meaning here.

    Returns:
        y (B, L, H, P) without skip and gate, and the state after the last step (B, H, P, N), both in dt's dtype.
    """
    batch, length, heads, width = x.shape
    repeats = heads // B.shape[2]
    u = x.to(dt.dtype)
    b, c = (parameter.to(dt.dtype).repeat_interleave(repeats, dim=2) for parameter in (B, C))
    state = u.new_zeros(batch, heads, width, B.shape[3]) if initial_state is None else initial_state.to(dt.dtype)
    outputs = [u[:, 0]] * length
    # Unbound at once: the gradient of a step's slice would be as large as the whole sequence.
    dt_at, u_at, b_at, c_at = (one.unbind(1) for one in (dt, u, b, c))
    for t in range(length - 1, -1, -1) if reverse else range(length):
        if reset is not None:
            state = torch.where(reset[:, t, None, None, None], 0.0, state)
        decay = torch.exp(dt_at[t] * A)[:, :, None, None]
        state = decay * state + (dt_at[t][..., None] * u_at[t])[..., None] * b_at[t][:, :, None, :]
        outputs[t] = (state * c_at[t][:, :, None, :]).sum(-1)
    return (torch.stack(outputs, dim=1) if length else torch.zeros_like(u)), state
