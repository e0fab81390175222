"""`selective_scan`: the public operator. Checks its arguments, chooses a backend, calls it.

Legend: B batch, L length, D channels, N state size, G groups of B and C (G divides D).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mamba_kernels.dispatch import resolve_backend
from mamba_kernels.selective_scan.chunked_torch import selective_scan_torch
from mamba_kernels.selective_scan.reference import selective_scan_reference

ScanResult = tuple[Tensor, Tensor]


class ScanSizes(NamedTuple):
    """The sizes that the arguments of a scan agree on."""

    batch: int
    length: int
    channels: int
    states: int
    groups: int


def check_arguments(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
) -> ScanSizes:
    """Check every argument against the others.

    Raises:
        ValueError: A shape does not fit; the message names the argument, the shape found and the one accepted.
        TypeError: A dtype is not a real floating one (bool for `reset`).
    """
    if x.dim() != 3:
        raise ValueError(f"selective_scan: x must be (batch, length, channels), found shape {tuple(x.shape)}")
    batch, length, channels = x.shape
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] == 0:
        raise ValueError(f"selective_scan: A must be ({channels}, states), found shape {tuple(A.shape)}")
    states = A.shape[1]
    grouped = B.dim() == 4
    groups = B.shape[2] if grouped else 1
    if groups == 0 or channels % groups:
        raise ValueError(f"selective_scan: B has {groups} groups, which do not divide {channels} channels")
    parameter_shape = (batch, length, groups, states) if grouped else (batch, length, states)
    expected = {
        "delta": (delta, (batch, length, channels)),
        "B": (B, parameter_shape),
        "C": (C, parameter_shape),
        "D": (D, (channels,)),
        "z": (z, (batch, length, channels)),
        "delta_bias": (delta_bias, (channels,)),
        "initial_state": (initial_state, (batch, channels, states)),
        "reset": (reset, (batch, length)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"selective_scan: {name} must have shape {shape}, found {tuple(tensor.shape)}")
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"selective_scan: {name} is on {tensor.device}, x on {x.device}")
    floating = {"x": x, "A": A, **{name: tensor for name, (tensor, _) in expected.items() if name != "reset"}}
    for name, tensor in floating.items():
        if tensor is not None and not tensor.is_floating_point():
            raise TypeError(f"selective_scan: {name} must be of a real floating dtype, found {tensor.dtype}")
    if reset is not None and reset.dtype != torch.bool:
        raise TypeError(f"selective_scan: reset must be bool, found {reset.dtype}")
    return ScanSizes(batch, length, channels, states, groups)


def _implementation(backend: str) -> Callable[..., ScanResult]:
    if backend == "numba":
        from mamba_kernels.selective_scan.numba_ops import selective_scan_numba  # imports numba

        return selective_scan_numba
    return selective_scan_torch if backend == "torch" else selective_scan_reference


def selective_scan(
    x: Float[Tensor, "B L D"],
    delta: Float[Tensor, "B L D"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B L N"] | Float[Tensor, "B L G N"],
    C: Float[Tensor, "B L N"] | Float[Tensor, "B L G N"],
    D: Float[Tensor, " D"] | None = None,
    z: Float[Tensor, "B L D"] | None = None,
    delta_bias: Float[Tensor, " D"] | None = None,
    delta_softplus: bool = False,
    *,
    initial_state: Float[Tensor, "B D N"] | None = None,
    reset: Bool[Tensor, "B L"] | None = None,
    reverse: bool = False,
    return_final_state: bool = False,
    backend: str | None = None,
) -> Tensor | ScanResult:
    """Scan x through the selective state space model."""
    check_arguments(x, delta, A, B, C, D, z, delta_bias, initial_state, reset)
    dtype = torch.float64 if torch.float64 in (x.dtype, delta.dtype, A.dtype) else x.dtype
    run = _implementation(resolve_backend("selective_scan", backend, x.device, dtype))
    y, final_state = run(x, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reset, reverse)
    return (y, final_state) if return_final_state else y
