"""The functions of mamba-ssm and causal-conv1d, with their signatures, layouts and in-place states, on our operators.

For code that comes from there: `from mamba_kernels.compat import selective_scan_fn`. Sequences are (B, D, L) here.
Definitions: Gu & Dao 2023 (arXiv:2312.00752) and the documentation of github.com/state-spaces/mamba and
github.com/Dao-AILab/causal-conv1d. Unlike the originals, everything runs on any device, and the gradients that flow
into a returned last state are not dropped.

Legend: B batch, D channels, L length, N state size, G groups, H heads, P channels in a head, K taps.
"""

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels import causal_conv1d, selective_scan, ssd
from mamba_kernels import selective_state_update as functional_state_update
from mamba_kernels.arguments import check_tensors, compute_dtype
from mamba_kernels.ops.causal_conv1d.interface import check_activation, check_weight
from mamba_kernels.ops.ssd.interface import step_sizes


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


def _starts(cu_seqlens: Tensor | None, u: Tensor) -> Tensor | None:
    """Turn cumulative lengths of packed sequences into marks at their first positions."""
    if cu_seqlens is None:
        return None
    reset = torch.zeros(u.shape[0], u.shape[2], dtype=torch.bool, device=u.device)
    starts = cu_seqlens[:-1].long()
    reset[:, starts[starts < u.shape[2]]] = True
    return reset


def _changes(seq_idx: Tensor) -> Tensor:
    """Mark each position (B, L) whose sequence is another than its predecessor's."""
    return F.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0))


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
    reset = _starts(cu_seqlens, u)
    if A.is_complex() or B.dim() == 2 or C.dim() == 2:
        y, last_state = _scan_any(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reset)
    else:
        x, step, gate = u.transpose(1, 2), delta.transpose(1, 2), None if z is None else z.transpose(1, 2)
        b, c = _alike(B, C, u.shape[1])
        y, last_state = selective_scan(
            x, step, A, b, c, D, gate, delta_bias, delta_softplus, reset=reset, return_final_state=True
        )
    out = y.transpose(1, 2).contiguous()
    return (out, last_state) if return_last_state else out


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
    flat = (tensor if tensor is None or not heads else tensor.flatten(1, 2) for tensor in (current, x, dt, z))
    old, token, step, gate = flat
    rates, skip, bias = (tensor if tensor is None or not heads else tensor.flatten(0, 1) for tensor in (A, D, dt_bias))
    if old is None or token is None or step is None or rates is None:
        raise TypeError("selective_state_update: state, x, dt and A are needed")
    y, new = functional_state_update(old.clone(), token, step, rates, B, C, skip, gate, bias, dt_softplus)
    if new.dtype in (torch.bfloat16, torch.float16):
        # A narrow state is read as it was rounded, as mamba-ssm defines it: a step of size zero only reads.
        y, _ = functional_state_update(new, token, torch.zeros_like(step), rates, B, C, skip, gate)
    if state_batch_indices is None:
        state.copy_(new.view(state.shape))
    else:
        state[state_batch_indices.long()] = new.view(current.shape)
    return y.view(x.shape)


def _final_states(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, cu_seqlens: Tensor, options: dict[str, Any]
) -> Tensor:
    """Return the state at the end of each packed sequence, (S, H, P, N)."""
    states = []
    for start, end in itertools.pairwise(cu_seqlens.tolist()):
        own_x, own_dt, own_b, own_c = (tensor[:, start:end] for tensor in (x, dt, B, C))
        states.append(ssd(own_x, own_dt, A, own_b, own_c, return_final_state=True, **options)[1])
    return torch.cat(states)


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
    state_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Run Mamba-2's scan as mamba-ssm's function of this name does; the work is `mamba_kernels.ops.ssd`'s.

    Args:
        x: (B, L, H, P).
        dt: (B, L, H).
        A: (H,).
        B: (B, L, G, N).
        C: As B.
        chunk_size: Positions taken together; of no influence on the result.
        D: (H,) or (H, P).
        z: (B, L, H, P).
        dt_bias: (H,).
        initial_states: (B, H, P, N).
        seq_idx: (B, L) integers that number packed sequences; no state passes over a change.
        cu_seqlens: (S + 1,), where the packed sequences of a single row begin, and the end.
        dt_softplus: Whether to apply softplus to dt + dt_bias.
        dt_limit: Between which the step sizes are clamped, after the softplus.
        return_final_states: Also return the state after the last position (B, H, P, N).
        return_varlen_states: Also return the state at the end of each of `cu_seqlens`' sequences (S, H, P, N).
        state_dtype: Of the states inside mamba-ssm's kernels; ours are float32, or float64 if an input is.

    Returns:
        out (B, L, H, P) in x's dtype, then the states asked for.

    Raises:
        ValueError: A shape does not fit, or states of sequences are asked for without `cu_seqlens` of a single row.
        TypeError: A dtype does not fit.
    """
    op = "mamba_chunk_scan_combined"
    if seq_idx is not None and tuple(seq_idx.shape) != tuple(x.shape[:2]):
        raise ValueError(f"{op}: seq_idx must have shape {tuple(x.shape[:2])}, found {tuple(seq_idx.shape)}")
    if return_varlen_states and (cu_seqlens is None or x.shape[0] != 1):
        raise ValueError(f"{op}: return_varlen_states needs cu_seqlens and a batch of 1, found {x.shape[0]} rows")
    if tuple(dt_limit) != (0.0, math.inf):
        dt = step_sizes(dt, dt_bias, dt_softplus, compute_dtype(x, dt, A)).clamp(*dt_limit)
        dt_bias, dt_softplus = None, False
    options: dict[str, Any] = {"delta_bias": dt_bias, "delta_softplus": dt_softplus, "chunk_size": chunk_size}
    reset = None if seq_idx is None else _changes(seq_idx)
    out, final = ssd(
        *(x, dt, A, B, C, D, z), initial_state=initial_states, reset=reset, return_final_state=True, **options
    )
    results = [out, final] if return_final_states else [out]
    if return_varlen_states and cu_seqlens is not None:
        results.append(_final_states(x, dt, A, B, C, cu_seqlens, options))
    return results[0] if len(results) == 1 else tuple(results)


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve as causal-conv1d's function of this name does.

    Args:
        x: (B, D, L), channels or positions contiguous.
        weight: (D, K), any K.
        bias: (D,).
        seq_idx: (B, L) integers that number packed sequences; no tap reaches over a change, and where they are
            negative, which marks padding, the output is zero. Excludes states.
        initial_states: (B, D, K - 1).
        return_final_states: Also return the last K - 1 inputs.
        final_states_out: (B, D, K - 1), overwritten with them.
        activation: None, "silu" or "swish".

    Returns:
        out (B, D, L) in x's dtype and memory order; with `return_final_states` also (B, D, K - 1) in x's dtype.

    Raises:
        ValueError: A shape does not fit, or `seq_idx` is used with states.
        TypeError: A dtype does not fit.
    """
    if x.dim() != 3:
        raise ValueError(f"causal_conv1d_fn: x must be (batch, channels, length), found shape {tuple(x.shape)}")
    reset = None
    if seq_idx is not None:
        if initial_states is not None or return_final_states:
            raise ValueError("causal_conv1d_fn: seq_idx excludes initial_states and return_final_states")
        if tuple(seq_idx.shape) != (x.shape[0], x.shape[2]):
            expected, found = (x.shape[0], x.shape[2]), tuple(seq_idx.shape)
            raise ValueError(f"causal_conv1d_fn: seq_idx must have shape {expected}, found {found}")
        reset = _changes(seq_idx)
    y, final = causal_conv1d(
        x.transpose(1, 2),
        weight,
        bias,
        activation,
        initial_state=initial_states,
        reset=reset,
        return_final_state=True,
    )
    if seq_idx is not None:
        y = y.masked_fill((seq_idx < 0).unsqueeze(2), 0.0)
    out = y.transpose(1, 2)
    out = out.contiguous() if x.is_contiguous() else out
    if not return_final_states:
        return out
    if final_states_out is not None:
        final = final_states_out.copy_(final)
    return out, final


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """Return the last inputs of packed sequences, as causal-conv1d's function of this name does.

    Args:
        x: (L, D), all sequences one after another.
        cu_seqlens: (S + 1,), where each begins, and the end.
        state_len: How many inputs of each.

    Returns:
        (S, D, state_len), the newest input last, zeros in front of sequences that are shorter.
    """
    pieces = (x[start:end][-state_len:] for start, end in itertools.pairwise(cu_seqlens.tolist()))
    return torch.stack([F.pad(piece, (0, 0, state_len - piece.shape[0], 0)).t() for piece in pieces])


def _advance(state: Tensor, tokens: Tensor, taps: int, position: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the K - 1 inputs before the tokens, and the state with the tokens in it; with a position it is a ring."""
    kept, count = state.shape[2], tokens.shape[2]
    if position is None:
        return state[:, :, kept - (taps - 1) :], torch.cat([state, tokens.to(state.dtype)], dim=2)[:, :, count:]

    def columns(start: int, end: int) -> Tensor:
        """Where inputs `start` .. `end` - 1, counted from the first token, lie in the ring."""
        places = position.long().unsqueeze(1) + torch.arange(start, end, device=state.device)
        return (places % max(kept, 1)).unsqueeze(1).expand(-1, state.shape[1], -1)

    newest = max(0, count - kept)
    before = state.gather(2, columns(1 - taps, 0))
    return before, state.scatter(2, columns(newest, count), tokens[:, :, newest:].to(state.dtype))


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """Advance a convolution by a few tokens and overwrite `conv_state`, as causal-conv1d's function of this name does.

    Args:
        x: (B, D) or (B, D, S), S tokens.
        conv_state: (B, D, M) with M >= K - 1, the newest input last; changed in place.
        weight: (D, K).
        bias: (D,).
        activation: None, "silu" or "swish".
        cache_seqlens: (B,) integers. Where given, `conv_state` is a ring and the tokens are written from position
            cache_seqlens % M on.
        conv_state_indices: (B,), the rows of a larger `conv_state` that belong to the batch; -1 marks padding, whose
            output is zero and whose state is left alone.

    Returns:
        out, of x's shape and dtype.

    Raises:
        ValueError: A shape does not fit; the message says what is accepted.
        TypeError: A dtype does not fit.
    """
    op = "causal_conv1d_update"
    if x.dim() not in (2, 3) or conv_state.dim() != 3:
        found = f"{tuple(x.shape)} and {tuple(conv_state.shape)}"
        raise ValueError(
            f"{op}: x must be (batch, channels[, tokens]) and conv_state (batch, channels, M), found {found}"
        )
    tokens = x if x.dim() == 3 else x.unsqueeze(2)
    batch, channels, _ = tokens.shape
    taps = check_weight(op, weight, channels)
    kept = conv_state.shape[2]
    rows = None if conv_state_indices is None else conv_state_indices.long()
    if conv_state.shape[1] != channels or kept < taps - 1 or (rows is None and conv_state.shape[0] != batch):
        accepted = f"({batch}, {channels}, at least {taps - 1})"
        raise ValueError(f"{op}: conv_state must be {accepted}, found shape {tuple(conv_state.shape)}")
    check_activation(op, activation)
    state = (conv_state if rows is None else conv_state[rows.clamp(min=0)]).clone()
    before, new_state = _advance(state, tokens, taps, cache_seqlens)
    out = causal_conv1d(tokens.transpose(1, 2), weight, bias, activation, initial_state=before).transpose(1, 2)
    if rows is None:
        conv_state.copy_(new_state)
    else:
        used = rows >= 0
        conv_state[rows[used]] = new_state[used]
        out = torch.where(used[:, None, None], out, 0.0)
    return out.reshape(x.shape)
