"""Mamba-2's scan, alone and with the convolution before it and the norm and projection after it.

Legend: B batch, L length, H heads, P channels in a head, G groups, N state size, S packed sequences, K taps.
"""

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels import causal_conv1d, selective_scan, ssd
from mamba_kernels.arguments import compute_dtype
from mamba_kernels.compat.causal_conv1d.causal_conv1d_interface import causal_conv1d_ref
from mamba_kernels.compat.mamba_ssm.ops.triton.layernorm_gated import rms_norm_ref, rmsnorm_fn
from mamba_kernels.compat.packed import reset_of
from mamba_kernels.ops.ssd.interface import step_sizes

NO_LIMIT = (0.0, math.inf)
"""Step sizes as they come out of the softplus."""


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
    dt_limit: tuple[float, float] = NO_LIMIT,
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
        cu_seqlens: (S + 1,), where packed sequences begin, and the end; without `seq_idx` no state passes over a start.
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
    reset = reset_of(op, seq_idx, cu_seqlens, *x.shape[:2])
    if return_varlen_states and (cu_seqlens is None or x.shape[0] != 1):
        raise ValueError(f"{op}: return_varlen_states needs cu_seqlens and a batch of 1, found {x.shape[0]} rows")
    if tuple(map(float, dt_limit)) != NO_LIMIT:
        dt = step_sizes(dt, dt_bias, dt_softplus, compute_dtype(x, dt, A)).clamp(*dt_limit)
        dt_bias, dt_softplus = None, False
    options: dict[str, Any] = {"delta_bias": dt_bias, "delta_softplus": dt_softplus, "chunk_size": chunk_size}
    out, final = ssd(
        *(x, dt, A, B, C, D, z), initial_state=initial_states, reset=reset, return_final_state=True, **options
    )
    results = [out, final] if return_final_states else [out]
    if return_varlen_states and cu_seqlens is not None:
        results.append(_final_states(x, dt, A, B, C, cu_seqlens, options))
    return results[0] if len(results) == 1 else tuple(results)


def mamba_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """Run `mamba_chunk_scan_combined` without states or packed sequences; returns (B, L, H, P)."""
    out = mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size, D, z, dt_bias, dt_softplus=dt_softplus)
    assert isinstance(out, Tensor)
    return out


def ssd_selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = NO_LIMIT,
) -> Tensor:
    """Run Mamba-2's scan by Mamba's, where every channel has its own rates and step sizes.

    Args:
        x: (B, L, H, P).
        dt: (B, L, H) or (B, L, H, P).
        A: (H,) or (H P, N).
        B: (B, L, G, N).
        C: As B.
        D: (H,) or (H, P).
        z: (B, L, H, P).
        dt_bias: (H,) or (H, P).
        dt_softplus: Whether to apply softplus to dt + dt_bias.
        dt_limit: Between which the step sizes are clamped, after the softplus.

    Returns:
        (B, L, H, P).
    """
    heads, width = x.shape[2:]
    steps = dt.unsqueeze(-1).expand_as(x) if dt.dim() == 3 else dt
    bias = None if dt_bias is None else dt_bias.unsqueeze(-1).expand(heads, width) if dt_bias.dim() == 1 else dt_bias
    skip = None if D is None else D.unsqueeze(-1).expand(heads, width) if D.dim() == 1 else D
    rates = A if A.dim() == 2 else A[:, None, None].expand(heads, width, B.shape[3]).flatten(0, 1)
    if tuple(map(float, dt_limit)) != NO_LIMIT:
        steps = step_sizes(steps, bias, dt_softplus, compute_dtype(x, dt)).clamp(*dt_limit)
        bias, dt_softplus = None, False
    wide = compute_dtype(x, dt, A)
    y = selective_scan(
        *(x.flatten(2), steps.flatten(2), rates.to(wide), B, C, None if skip is None else skip.flatten()),
        *(None if z is None else z.flatten(2), None if bias is None else bias.flatten(), bool(dt_softplus)),
    )
    return y.unflatten(2, (heads, width))


def ssd_chunk_scan_combined_ref(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """Run Mamba-2's scan one position after another: what `mamba_chunk_scan_combined` is judged by."""
    return ssd(x, dt, A, B, C, D, z, dt_bias, dt_softplus, chunk_size=chunk_size, backend="reference")


def _sizes(
    zxbcdt: Tensor, conv1d_weight: Tensor, dt_bias: Tensor, D: Tensor, headdim: int | None, ngroups: int
) -> list[int]:
    """Widths of the parts of a block's first projection: MLP's gates, MLP, gates, convolved channels, step sizes.

    Raises:
        ValueError: They do not add up.
    """
    op = "mamba_split_conv1d_scan_combined"
    heads, width = D.shape[0], headdim if D.dim() == 1 else D.shape[1]
    if width is None:
        raise ValueError(f"{op}: headdim is needed where D is (heads,), found D of shape {tuple(D.shape)}")
    inner, mixed = heads * width, conv1d_weight.shape[0]
    rest = zxbcdt.shape[-1] - inner - mixed - heads
    if rest < 0 or rest % 2 or mixed < inner or (mixed - inner) % (2 * ngroups) or tuple(dt_bias.shape) != (heads,):
        raise ValueError(
            f"{op}: {zxbcdt.shape[-1]} projected channels are not {inner} gates, {mixed} convolved channels and"
            f" {heads} step sizes, nor that and an MLP's; D is {tuple(D.shape)}, dt_bias {tuple(dt_bias.shape)},"
            f" conv1d_weight {tuple(conv1d_weight.shape)}, headdim {headdim}, ngroups {ngroups}"
        )
    return [rest // 2, rest // 2, inner, mixed, heads]


def mamba_split_conv1d_scan_combined(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_limit: tuple[float, float] = NO_LIMIT,
    return_final_states: bool = False,
    activation: str | None = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
    state_dtype: torch.dtype | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run a Mamba-2 block from after its first projection on, as mamba-ssm's function of this name does.

    Args:
        zxbcdt: (B, L, W): an MLP's gates and channels if W is larger than needed, then H P gates, H P + 2 G N channels
            that are convolved and become x, B and C, then H step sizes.
        conv1d_weight: (H P + 2 G N, K).
        conv1d_bias: (H P + 2 G N,).
        dt_bias: (H,).
        A: (H,).
        D: (H,) or (H, P).
        chunk_size: Positions taken together; of no influence on the result.
        initial_states: (B, H, P, N).
        seq_idx: (B, L) integers that number packed sequences.
        dt_limit: Between which the step sizes are clamped, after the softplus.
        return_final_states: Also return the scan's state after the last position (B, H, P, N).
        activation: Of the convolution: "silu", "swish" or None.
        rmsnorm_weight: (H P,); without it the output is gated and not normed.
        rmsnorm_eps: Of the norm.
        outproj_weight: (M, H P, an MLP's channels before them).
        outproj_bias: (M,).
        headdim: P, needed where D is (H,).
        ngroups: G.
        norm_before_gate: Whether the norm comes before the gate.
        state_dtype: Of the states inside mamba-ssm's kernels; ours are float32, or float64 if an input is.
        cu_seqlens: (S + 1,), another way to tell where sequences begin; mamba-ssm's function does not have it.

    Returns:
        (B, L, M), or without `outproj_weight` (B, L, H P); with `return_final_states` also the state.

    Raises:
        ValueError: A shape does not fit; the message says what is accepted.
    """
    sizes = _sizes(zxbcdt, conv1d_weight, dt_bias, D, headdim, ngroups)
    _, _, inner, mixed, heads = sizes
    mlp_gate, mlp, z, xbc, dt = zxbcdt.split(sizes, dim=-1)
    reset = reset_of("mamba_split_conv1d_scan_combined", seq_idx, cu_seqlens, *zxbcdt.shape[:2])
    xbc = causal_conv1d(xbc, conv1d_weight, conv1d_bias, activation, reset=reset)
    if seq_idx is not None:
        xbc = xbc.masked_fill((seq_idx < 0).unsqueeze(2), 0.0)
    states = (mixed - inner) // 2
    x, b, c = xbc.split([inner, states, states], dim=-1)
    gate = z.unflatten(-1, (heads, -1)) if rmsnorm_weight is None else None
    found = mamba_chunk_scan_combined(
        *(x.unflatten(-1, (heads, -1)), dt, A, b.unflatten(-1, (ngroups, -1)), c.unflatten(-1, (ngroups, -1))),
        *(chunk_size, D, gate, dt_bias, initial_states, seq_idx, cu_seqlens, True, dt_limit),
        return_final_states=True,
    )
    out, final = found[0].flatten(2), found[1]
    if rmsnorm_weight is not None:
        group = inner // ngroups
        out = rmsnorm_fn(out, rmsnorm_weight, None, z, rmsnorm_eps, group, norm_before_gate)
    if sizes[0]:
        out = torch.cat([F.silu(mlp_gate) * mlp, out], dim=-1)
    if outproj_weight is not None:
        out = F.linear(out, outproj_weight, outproj_bias)
    return (out, final) if return_final_states else out


def mamba_split_conv1d_scan_ref(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    dt_limit: tuple[float, float] = NO_LIMIT,
    activation: str | None = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
) -> Tensor:
    """As `mamba_split_conv1d_scan_combined`, by torch's convolution, Mamba's scan and a norm in plain torch."""
    sizes = _sizes(zxbcdt, conv1d_weight, dt_bias, D, headdim, ngroups)
    _, _, inner, mixed, heads = sizes
    mlp_gate, mlp, z, xbc, dt = zxbcdt.split(sizes, dim=-1)
    convolved = causal_conv1d_ref(xbc.transpose(1, 2), conv1d_weight, conv1d_bias, activation=activation)
    assert isinstance(convolved, Tensor)
    states = (mixed - inner) // 2
    x, b, c = convolved.transpose(1, 2).split([inner, states, states], dim=-1)
    gate = z.unflatten(-1, (heads, -1)) if rmsnorm_weight is None else None
    out = ssd_selective_scan(
        *(x.unflatten(-1, (heads, -1)), dt, A, b.unflatten(-1, (ngroups, -1)), c.unflatten(-1, (ngroups, -1))),
        *(D, gate, dt_bias, True, dt_limit),
    ).flatten(2)
    if rmsnorm_weight is not None:
        out = rms_norm_ref(out, rmsnorm_weight, None, z, rmsnorm_eps, inner // ngroups, norm_before_gate)
    if sizes[0]:
        out = torch.cat([F.silu(mlp_gate) * mlp, out], dim=-1)
    return out if outproj_weight is None else F.linear(out, outproj_weight, outproj_bias)
