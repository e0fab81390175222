"""`causal_conv1d_update`: one token of `causal_conv1d`, in constant time and memory.

It is functional: the new state is returned and the old one left alone, so it can be differentiated through.
`mamba_kernels.compat.mamba_ssm` has the in-place form of the package causal-conv1d.

Legend: B batch, D channels, K taps.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_kernels.arguments import check_tensors, compute_dtype
from mamba_kernels.ops.causal_conv1d.interface import check_activation, check_weight
from mamba_kernels.ops.derivatives import backend_that_follows


def _conv_step(x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> tuple[Tensor, Tensor]:
    """Advance the convolution by one token in torch."""
    dtype = compute_dtype(x, conv_state, weight, bias)
    window = torch.cat([conv_state.to(dtype), x.to(dtype).unsqueeze(2)], dim=2)
    y = (window * weight.to(dtype)).sum(2)
    if bias is not None:
        y = y + bias.to(dtype)
    return (F.silu(y) if silu else y).to(x.dtype), window[:, :, 1:].to(conv_state.dtype)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Advance a causal convolution by one token.

    Differentiable in every tensor: where a gradient is asked for, "numba" and "triton" hand over to "torch".

    Args:
        x: (B, D), one token.
        conv_state: (B, D, K - 1), the inputs before it, oldest first, as `causal_conv1d` returns them.
        weight: (D, K), oldest tap first.
        bias: (D,).
        activation: None or "silu" (also called "swish").
        backend: "reference", "torch", "numba" or "triton"; None chooses, see `mamba_kernels.dispatch`.

    Returns:
        y (B, D) in x's dtype, and the new state (B, D, K - 1) in the state's dtype.

    Raises:
        ValueError: A shape, the activation or the backend does not fit; the message says what is accepted.
        TypeError: A dtype does not fit.
    """
    op = "causal_conv1d_update"
    if x.dim() != 2:
        raise ValueError(f"{op}: x must be (batch, channels), found shape {tuple(x.shape)}")
    batch, channels = x.shape
    taps = check_weight(op, weight, channels)
    expected = {
        "x": (x, (batch, channels)),
        "conv_state": (conv_state, (batch, channels, taps - 1)),
        "weight": (weight, (channels, taps)),
        "bias": (bias, (channels,)),
    }
    check_tensors(op, expected, x.device)
    silu = check_activation(op, activation)
    run = _conv_step
    chosen = backend_that_follows(op, backend, x, conv_state, weight, bias, has_gradient=False)
    if chosen == "numba":
        from mamba_kernels.ops.causal_conv1d.numba_update import conv_step as run
    elif chosen == "triton":
        from mamba_kernels.ops.causal_conv1d.triton_update import conv_step as run
    return run(x, conv_state, weight, bias, silu)
