"""The convolution over a sequence, and over a few tokens with the state overwritten.

Legend: B batch, D channels, L length, K taps, S tokens, M inputs that a state holds.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels import causal_conv1d
from mamba_kernels.compat.packed import reset_of
from mamba_kernels.ops.causal_conv1d.interface import check_activation, check_weight


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
    if seq_idx is not None and (initial_states is not None or return_final_states):
        raise ValueError("causal_conv1d_fn: seq_idx excludes initial_states and return_final_states")
    reset = reset_of("causal_conv1d_fn", seq_idx, None, x.shape[0], x.shape[2])
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


def causal_conv1d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve with torch's grouped convolution, in the weight's dtype: what `causal_conv1d_fn` is judged by.

    Arguments, results and errors are those of `causal_conv1d_fn`.
    """
    taps = check_weight("causal_conv1d_ref", weight, x.shape[1])
    silu = check_activation("causal_conv1d_ref", activation)
    wide = x.to(weight.dtype)
    before = wide.new_zeros(*wide.shape[:2], taps - 1) if initial_states is None else initial_states.to(wide.dtype)
    padded = torch.cat([before, wide], dim=2)
    out = F.conv1d(padded, weight.unsqueeze(1), bias, groups=weight.shape[0])
    out = (F.silu(out) if silu else out).to(x.dtype)
    if not return_final_states:
        return out
    final = padded[:, :, x.shape[2] :].to(x.dtype)
    return out, final if final_states_out is None else final_states_out.copy_(final)


def causal_conv1d_update_ref(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
) -> Tensor:
    """Advance a convolution with torch's grouped convolution: what `causal_conv1d_update` is judged by.

    Arguments, results and errors are those of `causal_conv1d_update`.
    """
    taps = check_weight("causal_conv1d_update_ref", weight, x.shape[1])
    silu = check_activation("causal_conv1d_update_ref", activation)
    tokens = x if x.dim() == 3 else x.unsqueeze(2)
    before, new_state = _advance(conv_state.clone(), tokens, taps, cache_seqlens)
    padded = torch.cat([before.to(weight.dtype), tokens.to(weight.dtype)], dim=2)
    out = F.conv1d(padded, weight.unsqueeze(1), bias, groups=weight.shape[0])
    conv_state.copy_(new_state)
    return (F.silu(out) if silu else out).to(x.dtype).reshape(x.shape)
