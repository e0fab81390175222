"""`selective_scan_fn` and its reference, on our operators.

Legend: B batch, D channels, L length, N state size, G groups.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels import selective_scan
from mamba_kernels.arguments import check_tensors, compute_dtype
from mamba_kernels.compat.packed import reset_from_lengths


def _check_scan(op: str, u: Tensor, A: Tensor, B: Tensor, C: Tensor, others: dict[str, Tensor | None]) -> None:
    """Check a scan's arguments against the layouts of mamba-ssm.

    Raises:
        ValueError: A shape does not fit.
        TypeError: A dtype does not fit.
    """
    if u.dim() != 3:
        raise ValueError(f"{op}: u must be (batch, channels, length), found shape {tuple(u.shape)}")
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] == 0:
        raise ValueError(f"{op}: A must be ({channels}, states), found shape {tuple(A.shape)}")
    states = A.shape[1]
    width = 2 * length if A.is_complex() else length
    for name, parameter in (("B", B), ("C", C)):
        shape, constant = tuple(parameter.shape), (channels, states)
        varying = parameter.dim() == 3 and shape == (batch, states, width)
        grouped = parameter.dim() == 4 and shape[1] > 0 and channels % shape[1] == 0
        grouped = grouped and shape == (batch, shape[1], states, width)
        if not (varying or grouped or shape == constant):
            raise ValueError(
                f"{op}: {name} must be {constant}, {(batch, states, width)} or (batch, groups, states, {width}) with"
                f" groups that divide {channels} channels, found shape {shape}"
                + ("; with a complex A, real and imaginary parts alternate along the length" if A.is_complex() else "")
            )
        if parameter.is_complex() and not (A.is_complex() and shape == constant):
            raise TypeError(f"{op}: {name} may be complex only where A is and {name} does not vary with position")
    shapes = {"delta": u.shape, "z": u.shape, "D": (channels,), "delta_bias": (channels,)}
    check_tensors(op, {name: (tensor, shapes[name]) for name, tensor in others.items()}, u.device)


def _per_channel(parameter: Tensor, channels: int, wide: torch.dtype, paired: bool) -> Tensor:
    """Bring B or C to a shape that broadcasts against (B, L, D, N); `paired` joins alternating parts."""
    if parameter.dim() == 2:
        return parameter.to(wide.to_complex() if parameter.is_complex() else wide)
    parameter = parameter.to(wide)
    if paired:
        parameter = torch.view_as_complex(parameter.unflatten(-1, (-1, 2)).contiguous())
    if parameter.dim() == 3:
        return parameter.transpose(1, 2).unsqueeze(2)
    return parameter.permute(0, 3, 1, 2).repeat_interleave(channels // parameter.shape[1], dim=2)


def _scan_any(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Scan step by step in torch: for complex states, and for B or C that are constants of each channel."""
    wide = torch.float64 if A.dtype == torch.complex128 else compute_dtype(u, delta, A, D, z, delta_bias)
    x, dt = u.to(wide).transpose(1, 2), delta.to(wide).transpose(1, 2)
    if delta_bias is not None:
        dt = dt + delta_bias.to(wide)
    if delta_softplus:
        dt = F.softplus(dt)
    rates = A.to(wide.to_complex() if A.is_complex() else wide)
    b, c = (_per_channel(parameter, u.shape[1], wide, A.is_complex()) for parameter in (B, C))
    decay = torch.exp(dt.unsqueeze(3) * rates)
    if reset is not None:
        decay = torch.where(reset[:, :, None, None], 0.0, decay)
    drive = (dt * x).unsqueeze(3) * b
    state = torch.zeros_like(decay[:, 0]) if u.shape[2] else rates.new_zeros(u.shape[0], *A.shape)
    states = []
    for factor, addition in zip(decay.unbind(1), drive.unbind(1), strict=True):
        state = factor * state + addition
        states.append(state)
    y = (torch.stack(states, 1) * c).sum(3) if states else torch.zeros_like(x)
    y = 2 * y.real if y.is_complex() else y
    if D is not None:
        y = y + D.to(wide) * x
    if z is not None:
        y = y * F.silu(z.to(wide).transpose(1, 2))
    return y.to(u.dtype), state


def _alike(B: Tensor, C: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Bring varying B and C to (B, L, N) or (B, L, G, N) with the same G."""
    if B.dim() != C.dim():
        B, C = (parameter.unsqueeze(1) if parameter.dim() == 3 else parameter for parameter in (B, C))
    if B.dim() == 4 and B.shape[1] != C.shape[1]:
        B, C = (parameter.repeat_interleave(channels // parameter.shape[1], dim=1) for parameter in (B, C))
    return B.movedim(-1, 1), C.movedim(-1, 1)


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan as mamba-ssm's function of this name does.

    A real A with B and C that vary with position runs on `mamba_kernels.ops.selective_scan` and its fast backends; a
    complex A, and B or C that do not vary, run step by step in torch, memory growing as L x D x N.

    Args:
        u: (B, D, L).
        delta: (B, D, L).
        A: (D, N), real or complex. Complex states stand for conjugate pairs: y is twice the real part.
        B: (D, N), (B, N, L) or (B, G, N, L); with a complex A complex (D, N), or real (..., 2 L) with real and
            imaginary parts alternating.
        C: As B, independently.
        D: (D,).
        z: (B, D, L).
        delta_bias: (D,).
        delta_softplus: Whether to apply softplus to delta + delta_bias.
        return_last_state: Also return the state after the last step.
        cu_seqlens: Starts of packed sequences and the total length: the state is zeroed at each start.

    Returns:
        out (B, D, L) in u's dtype; with `return_last_state` also (B, D, N) in float32, or complex64 with a complex A
        (float64 and complex128 if an input is float64).

    Raises:
        ValueError: A shape does not fit; the message says what is accepted.
        TypeError: A dtype does not fit.
    """
    others = {"delta": delta, "D": D, "z": z, "delta_bias": delta_bias}
    _check_scan("selective_scan_fn", u, A, B, C, others)
    reset = reset_from_lengths(cu_seqlens, u.shape[0], u.shape[2])
    if A.is_complex() or B.dim() == 2 or C.dim() == 2:
        y, last_state = _scan_any(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reset)
    else:
        x, step, gate = u.transpose(1, 2), delta.transpose(1, 2), None if z is None else z.transpose(1, 2)
        b, c = _alike(B, C, u.shape[1])
        y, last_state = selective_scan(
            x, step, A, b, c, D, gate, delta_bias, bool(delta_softplus), reset=reset, return_final_state=True
        )
    out = y.transpose(1, 2).contiguous()
    return (out, last_state) if return_last_state else out


def selective_scan_ref(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan one position after another in plain torch, in float32 or float64: what `selective_scan_fn` is judged by.

    Arguments, results and errors are those of `selective_scan_fn`.
    """
    others = {"delta": delta, "D": D, "z": z, "delta_bias": delta_bias}
    _check_scan("selective_scan_ref", u, A, B, C, others)
    y, last_state = _scan_any(u, delta, A, B, C, D, z, delta_bias, delta_softplus, None)
    out = y.transpose(1, 2).contiguous()
    return (out, last_state) if return_last_state else out
