"""S4D with complex numbers as real pairs: one token, and whole sequences under `torch.export`.

What programs are exported to knows real numbers only.

Legend: B batch, L length, T positions of a chunk, D channels, N complex states a channel.
"""

import torch
from torch import Tensor

from mamba_kernels.ops.exported import over_chunks

CHUNK = 64
"""Positions in a chunk of an exported program."""


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply complex numbers (..., 2)."""
    (a, b), (c, d) = left.unbind(-1), right.unbind(-1)
    return torch.stack([a * c - b * d, a * d + b * c], dim=-1)


def discretise_pairs(delta: Tensor, A: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Zero-order hold: dt A, whose exponential is the decay of a step, and (exp(dt A) - 1) / A; both (D, N, 2)."""
    rates = A.to(dtype)
    log_decay = rates * delta.to(dtype)[:, None, None]
    damping, angle = log_decay.unbind(-1)
    real = torch.expm1(damping) * torch.cos(angle) - 2 * torch.sin(angle / 2).square()
    change = torch.stack([real, torch.exp(damping) * torch.sin(angle)], dim=-1)
    inverse = rates * rates.new_tensor([1.0, -1.0]) / rates.square().sum(-1, keepdim=True)
    return log_decay, product(change, inverse)


def power(log_decay: Tensor, exponent: Tensor | float = 1.0) -> Tensor:
    """exp(dt A e) as pairs, for exponents that broadcast against (D, N)."""
    damping, angle = (log_decay * exponent).unbind(-1)
    return torch.exp(damping).unsqueeze(-1) * torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)


def read(weights: Tensor, state: Tensor) -> Tensor:
    """2 Re(sum over n of weights state): (...) from pairs (..., N, 2)."""
    return 2 * product(weights, state)[..., 0].sum(-1)


def step(log_decay: Tensor, drive: Tensor, state: Tensor, x: Tensor) -> Tensor:
    """Return the state (B, D, N, 2) after one token x (B, D)."""
    return product(power(log_decay), state) + drive * x[..., None, None]


def run_exported(
    x: Tensor, log_decay: Tensor, drive: Tensor, c: Tensor, state: Tensor, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Run over x (B, L, D) in a graph for every length: y (B, L, D), and the state after the last position.

    Within a chunk it is a product with the matrix of all distances, a chunk before shows through its state.
    """
    place = torch.arange(CHUNK, device=x.device)
    distance = place[:, None] - place
    within = read(product(c, drive), power(log_decay, place[:, None, None, None]))  # (T, D), by distance
    within = torch.where((distance >= 0).unsqueeze(2), within[distance.clamp(min=0)], 0.0)
    entering = product(c, power(log_decay, place[:, None, None, None] + 1))  # (T, D, N, 2)

    def run(state: Tensor, inside: Tensor, x: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        *cuts, within, entering, log_decay, drive, place = rest
        before = read(entering, state.unsqueeze(1))
        left = (inside - 1 - place)[:, None, None, None]  # steps from after each position to the end
        leaving = torch.where(left >= 0, product(drive, power(log_decay, left.clamp(min=0))), 0.0)
        kept = product(power(log_decay, inside), state)
        if not cuts:
            y = torch.einsum("ijd,bjd->bid", within, x) + before
            return y, kept + torch.einsum("jdnc,bjd->bdnc", leaving, x)
        document = cuts[0].int().cumsum(1)
        same = (document.unsqueeze(2) == document.unsqueeze(1)).unsqueeze(3)
        y = (torch.where(same, within, 0.0) * x.unsqueeze(1)).sum(2)
        y = y + torch.where((document == 0).unsqueeze(2), before, 0.0)
        last = document[:, -1:]
        x = torch.where((document == last).unsqueeze(2), x, 0.0)
        kept = torch.where((last == 0)[..., None, None], kept, 0.0)
        return y, kept + torch.einsum("jdnc,bjd->bdnc", leaving, x)

    sequences = (x,) if reset is None else (x, reset)
    return over_chunks(run, state, sequences, (within, entering, log_decay, drive, place), size=CHUNK, reverse=reverse)
