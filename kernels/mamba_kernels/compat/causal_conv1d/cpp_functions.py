"""The forward, backward and update functions that mamba-ssm takes from causal-conv1d, for those who call them directly.

Legend: B batch, D channels, L length, K taps.
"""

import torch
from torch import Tensor

from mamba_kernels.compat.causal_conv1d.causal_conv1d_interface import causal_conv1d_fn, causal_conv1d_update


def causal_conv1d_fwd_function(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    final_states_out: Tensor | None,
    silu_activation: bool,
) -> Tensor:
    """Convolve x (B, D, L) as `causal_conv1d_fn` does; `final_states_out` (B, D, K - 1) is overwritten where given."""
    activation = "silu" if silu_activation else None
    states = final_states_out is not None
    found = causal_conv1d_fn(x, weight, bias, seq_idx, initial_states, states, final_states_out, activation)
    return found if isinstance(found, Tensor) else found[0]


def causal_conv1d_bwd_function(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dout: Tensor,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    dfinal_states: Tensor | None,
    dx: Tensor | None,
    return_dinitial_states: bool,
    silu_activation: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight, bias and initial states, given those of the output and the final states.

    Args:
        x: (B, D, L), as in the forward call, as are weight, bias, `seq_idx` and `initial_states`.
        weight: (D, K).
        bias: (D,).
        dout: (B, D, L).
        seq_idx: (B, L).
        initial_states: (B, D, K - 1).
        dfinal_states: (B, D, K - 1).
        dx: Overwritten with the gradient of x where given.
        return_dinitial_states: Whether the initial states' gradient is wanted.
        silu_activation: As in the forward call.
    """
    leaves = [None if t is None else t.detach().requires_grad_() for t in (x, weight, bias, initial_states)]
    activation = "silu" if silu_activation else None
    with torch.enable_grad():
        own_x, own_weight, own_bias, own_states = leaves
        assert own_x is not None
        assert own_weight is not None
        found = causal_conv1d_fn(
            own_x, own_weight, own_bias, seq_idx, own_states, dfinal_states is not None, activation=activation
        )
    outputs, gradients = ((found,), (dout,)) if isinstance(found, Tensor) else (found, (dout, dfinal_states))
    wanted = [leaf for leaf in leaves if leaf is not None]
    grads = iter(torch.autograd.grad(outputs, wanted, gradients))
    dx_found, dweight, dbias, dstates = (None if leaf is None else next(grads) for leaf in leaves)
    if dx is not None and dx_found is not None:
        dx_found = dx.copy_(dx_found)
    return dx_found, dweight, dbias, dstates if return_dinitial_states else None


def causal_conv1d_update_function(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu_activation: bool,
    cache_seqlens: Tensor | None,
    conv_state_indices: Tensor | None,
) -> Tensor:
    """Advance `conv_state` by the tokens of x as `causal_conv1d_update` does."""
    activation = "silu" if silu_activation else None
    return causal_conv1d_update(x, conv_state, weight, bias, activation, cache_seqlens, conv_state_indices)
