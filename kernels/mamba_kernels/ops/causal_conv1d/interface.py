"""`causal_conv1d`: the public operator. Checks its arguments, chooses a backend, calls it.

Legend: B batch, L length, D channels, K taps (the width of the convolution).
"""

from collections.abc import Callable
from typing import Literal, overload

from torch import Tensor

from mamba_kernels.arguments import check_tensors
from mamba_kernels.ops.causal_conv1d.reference import causal_conv1d_reference
from mamba_kernels.ops.causal_conv1d.torch import causal_conv1d_torch
from mamba_kernels.ops.derivatives import backend_that_follows

ACTIVATIONS = (None, "silu", "swish")


def check_activation(op: str, activation: str | None) -> bool:
    """Say whether to apply silu, which is also called swish.

    Raises:
        ValueError: The name is another one.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: activation must be None or 'silu', found {activation!r}")
    return activation is not None


def check_weight(op: str, weight: Tensor, channels: int) -> int:
    """Return the number of taps K of a weight.

    Raises:
        ValueError: The weight is not (channels, K) with K of at least 1.
    """
    if weight.dim() != 2 or weight.shape[0] != channels or weight.shape[1] == 0:
        hint = "; drop the middle dimension of a Conv1d weight with weight.squeeze(1)" if weight.dim() == 3 else ""
        raise ValueError(f"{op}: weight must be ({channels}, taps), found shape {tuple(weight.shape)}{hint}")
    return weight.shape[1]


def _check_arguments(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, reset: Tensor | None
) -> None:
    op = "causal_conv1d"
    if x.dim() != 3:
        raise ValueError(f"{op}: x must be (batch, length, channels), found shape {tuple(x.shape)}")
    batch, length, channels = x.shape
    taps = check_weight(op, weight, channels)
    expected = {
        "x": (x, (batch, length, channels)),
        "weight": (weight, (channels, taps)),
        "bias": (bias, (channels,)),
        "initial_state": (initial_state, (batch, channels, taps - 1)),
        "reset": (reset, (batch, length)),
    }
    check_tensors(op, expected, x.device)


def _implementation(backend: str) -> Callable[..., tuple[Tensor, Tensor]]:
    if backend == "numba":
        from mamba_kernels.ops.causal_conv1d.numba_op import causal_conv1d_numba

        return causal_conv1d_numba
    if backend == "triton":
        from mamba_kernels.ops.causal_conv1d.triton_op import causal_conv1d_triton

        return causal_conv1d_triton
    return causal_conv1d_torch if backend == "torch" else causal_conv1d_reference


@overload
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: Literal[False] = False,
    backend: str | None = None,
) -> Tensor: ...


@overload
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: Literal[True],
    backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve each channel with its own taps over the past: y[t] = act(bias + sum_k weight[k] x[t - (K - 1) + k]).

    Differentiable in every tensor, the initial and the final state included. Computes in float32 (float64 if an
    input is float64).

    Args:
        x: (B, L, D). Any strides; no copy is made as long as channels are neighbours, as in a half of a (B, L, 2D).
        weight: (D, K), oldest tap first, any K of at least 1.
        bias: (D,).
        activation: None or "silu" (also called "swish").
        initial_state: (B, D, K - 1), the inputs before x, oldest first; zeros if None.
        reset: (B, L) bool. True at t: positions from t on see nothing of what lies before t, in scan order.
        reverse: Run from the right: y[t] depends on x[t], x[t + 1], ... The initial state then holds the inputs
            that follow x, the nearest last.
        return_final_state: Also return the state to continue with.
        backend: "reference", "torch", "numba" or "triton"; None chooses, see `mamba_kernels.dispatch`.

    Returns:
        y (B, L, D) in x's dtype; with `return_final_state` also the final state (B, D, K - 1) in x's dtype.

    Raises:
        ValueError: A shape, the activation or the backend does not fit; the message says what is accepted.
        TypeError: A dtype does not fit.

    Source:
        Gu & Dao 2023 (arXiv:2312.00752), the convolution of figure 3.
    """
    _check_arguments(x, weight, bias, initial_state, reset)
    silu = check_activation("causal_conv1d", activation)
    run = _implementation(backend_that_follows("causal_conv1d", backend, x, weight, bias, initial_state))
    y, state = run(x, weight, bias, silu, initial_state, reset, reverse, return_final_state)
    return (y, state) if return_final_state else y
