"""The fused CPU scan on plain tensors, without autograd: what the registered operators are made of.

For those who recompute a long sequence piece by piece: `scan_forward_saving` gives the output and a state every
`segment_length(N)` steps (for N = 16 a sixteenth of x's memory); `scan_backward` needs nothing else of the forward
pass, and can write the output once more on its way, so recomputing a piece costs no second forward scan.
"""

from typing import NamedTuple

import torch
from torch import SymInt, Tensor

from mamba_kernels.cpu.numba_runtime import parallel_for
from mamba_kernels.cpu.numba_vectors import BFLOAT16, FLOAT32, LANES
from mamba_kernels.ops.selective_scan import numba_backward, numba_forward
from mamba_kernels.ops.selective_scan.numba_tiles import Parameters, Rows, Sizes

_NO_ROWS = Rows(0, 0, 0, 0, FLOAT32)


class ScanInputs(NamedTuple):
    """Everything that a scan reads but its initial state; shapes as in `selective_scan`."""

    x: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    z: Tensor | None = None
    delta_bias: Tensor | None = None
    reset: Tensor | None = None
    delta_softplus: bool = False
    reverse: bool = False


class ScanGradients(NamedTuple):
    """Gradients in the dtypes and shapes of the inputs; None for what was absent. `y` is the output once more."""

    x: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor
    y: Tensor | None


def segment_length(states: int | SymInt) -> int:
    """Return the steps between checkpoints: what keeps the rebuilt states of a segment in second-level cache."""
    if states <= 32:
        return 256
    return 128 if states <= 64 else 64


def checkpoint_shape(x: Tensor, A: Tensor, B: Tensor) -> tuple[int | SymInt, ...]:
    """Return the shape of the checkpoints: (batch, groups, tiles, segments, states, lanes)."""
    batch, length, channels = x.shape
    groups = B.shape[2] if B.dim() == 4 else 1
    tiles = -(-channels // groups // LANES)
    segment = segment_length(A.shape[1])
    return (batch, groups, tiles, -(-length // segment), A.shape[1], LANES)


def _rows(tensor: Tensor | None) -> Rows:
    """Describe a (B, L, channels) or (B, L, groups, N) tensor to the kernels."""
    if tensor is None:
        return _NO_ROWS
    size = tensor.element_size()
    batch, time, inner = tensor.stride()[:3]
    dtype = BFLOAT16 if tensor.dtype == torch.bfloat16 else FLOAT32
    return Rows(tensor.data_ptr(), batch * size, time * size, inner * size, dtype)


def _channels_adjacent(tensor: Tensor) -> Tensor:
    """Copy a tensor whose last dimension is strided; slices of a projection are taken as they are."""
    return tensor if tensor.shape[-1] == 1 or tensor.stride(-1) == 1 else tensor.contiguous()


def _floats(tensor: Tensor | None) -> Tensor | None:
    """Return a contiguous float32 tensor; parameters are small."""
    return None if tensor is None else tensor.float().contiguous()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _grouped(parameter: Tensor) -> Tensor:
    """View or copy B or C as (B, L, G, N) float32 with adjacent states."""
    grouped = parameter if parameter.dim() == 4 else parameter.unsqueeze(2)
    grouped = grouped.float()
    return grouped if grouped.stride(-1) == 1 or grouped.shape[-1] == 1 else grouped.contiguous()


class _Prepared:
    """The inputs as the kernels read them. Holds the tensors whose addresses it has taken."""

    def __init__(self, inputs: ScanInputs) -> None:
        self.x = _channels_adjacent(inputs.x)
        self.delta = _channels_adjacent(inputs.delta)
        self.z = None if inputs.z is None else _channels_adjacent(inputs.z)
        self.B, self.C = _grouped(inputs.B), _grouped(inputs.C)
        self.A, self.D, self.bias = (_floats(p) for p in (inputs.A, inputs.D, inputs.delta_bias))
        self.reset = None if inputs.reset is None else inputs.reset.contiguous()
        batch, length, channels = inputs.x.shape
        states, groups = inputs.A.shape[1], self.B.shape[2]
        self.sizes = Sizes(
            batch,
            length,
            states,
            groups,
            channels // groups,
            -(-channels // groups // LANES),
            segment_length(states),
            int(inputs.delta_softplus),
            int(inputs.reverse),
        )
        self.parameters = Parameters(_address(self.A), _address(self.D), _address(self.bias))
        self.rows = (_rows(self.x), _rows(self.delta), _rows(self.z), _rows(self.B), _rows(self.C))
        self.reset_rows = Rows(_address(self.reset), length, 1, 0, FLOAT32)


def scan_forward_saving(
    inputs: ScanInputs, initial_state: Tensor | None = None, *, save: bool = True, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan forward without autograd, and keep what the backward pass starts from.

    Args:
        inputs: float32 or bfloat16 tensors, in any mixture.
        initial_state: (B, D, N).
        save: Keep checkpoints for `scan_backward`.
        out: Where to write y, adjacent along D, if not in a new tensor.

    Returns:
        y (B, L, D) in x's dtype, the final state (B, D, N) in float32, and the checkpoints (empty without `save`).
    """
    prepared = _Prepared(inputs)
    state = _floats(initial_state)
    x = inputs.x
    y = torch.empty(x.shape, dtype=x.dtype) if out is None else out
    final_state = torch.empty(x.shape[0], x.shape[2], inputs.A.shape[1])
    checkpoints = torch.empty(checkpoint_shape(x, inputs.A, inputs.B) if save else (0,))
    parallel_for(
        numba_forward.forward,
        x.shape[0] * prepared.sizes.groups * prepared.sizes.tiles,
        prepared.sizes,
        prepared.parameters,
        *prepared.rows,
        _rows(y),
        prepared.reset_rows,
        _address(state),
        final_state.data_ptr(),
        checkpoints.data_ptr() if save else 0,
    )
    return y, final_state, checkpoints


def _abreast(sizes: Sizes) -> int:
    """Return how many tiles share a buffer of dB and dC: enough parts to occupy a machine, few enough to be small."""
    parts = max(1, min(-(-sizes.tiles // 2), 64 // (sizes.batch * sizes.groups)))
    return -(-sizes.tiles // parts)


def _written(out: Tensor | None, like: Tensor) -> Tensor:
    """Return the tensor that a gradient is written to: the caller's, or a new one."""
    return torch.empty(like.shape, dtype=like.dtype) if out is None else out


def scan_backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    inputs: ScanInputs,
    checkpoints: Tensor,
    *,
    return_y: bool = False,
    out_x: Tensor | None = None,
    out_z: Tensor | None = None,
) -> ScanGradients:
    """Differentiate a scan from the checkpoints of `scan_forward_saving`, without autograd.

    Args:
        grad_y: (B, L, D) gradient of y.
        grad_final_state: (B, D, N) gradient of the final state, or None for zero.
        inputs: What the forward pass was given.
        checkpoints: What the forward pass gave.
        return_y: Write the output once more, which costs one multiplication an element.
        out_x: Where to write the gradient of x, adjacent along D, if not in a new tensor; in x's dtype.
        out_z: The same for z: the two may be the halves of one (B, L, 2 D) tensor.
    """
    prepared = _Prepared(inputs)
    sizes, x = prepared.sizes, inputs.x
    batch, length, channels = x.shape
    grad_y, grad_state = _channels_adjacent(grad_y.to(x.dtype)), _floats(grad_final_state)
    abreast = _abreast(sizes)
    parts = -(-sizes.tiles // abreast)
    dB, dC = (torch.empty(parts, batch, length, sizes.groups, sizes.states) for _ in "BC")
    dA, d_state = (torch.empty(batch, channels, sizes.states) for _ in "Ah")
    dD, d_bias = (torch.empty(batch, channels) for _ in "Db")
    dx, d_delta = _written(out_x, x), _written(None, inputs.delta)
    dz = None if inputs.z is None else _written(out_z, inputs.z)
    y = _written(None, x) if return_y else None
    out = numba_backward.Gradients(
        _rows(dx),
        _rows(d_delta),
        _rows(dz),
        _rows(y),
        _rows(dB[0]),
        _rows(dC[0]),
        dA.data_ptr(),
        dD.data_ptr(),
        d_bias.data_ptr(),
        d_state.data_ptr(),
    )
    parallel_for(
        numba_backward.backward,
        batch * sizes.groups * parts,
        abreast,
        sizes,
        prepared.parameters,
        *prepared.rows,
        _rows(grad_y),
        prepared.reset_rows,
        _address(grad_state),
        checkpoints.data_ptr(),
        out,
        dB.stride(0) * 4,
    )
    return ScanGradients(
        x=dx,
        delta=d_delta,
        A=dA.sum(0).to(inputs.A.dtype),
        B=dB.sum(0).view(inputs.B.shape).to(inputs.B.dtype),
        C=dC.sum(0).view(inputs.C.shape).to(inputs.C.dtype),
        D=None if inputs.D is None else dD.sum(0).to(inputs.D.dtype),
        z=dz,
        delta_bias=None if inputs.delta_bias is None else d_bias.sum(0).to(inputs.delta_bias.dtype),
        initial_state=d_state,
        y=y,
    )
