"""The scan of Mamba, alone (`selective_scan_fn`) and with all that a block does around it (`mamba_inner_fn`).

Also the two-way forms that Vision Mamba's fork of mamba-ssm added. Sequences are (B, D, L) as theirs are.

Legend: B batch, D inner channels, L length, N state size (twice as many real numbers with a complex A), R rank of the
step size, K taps, M width of the model.
"""

from torch import Tensor
from torch.nn import functional as F

from mamba_kernels import rms_norm
from mamba_kernels.compat.causal_conv1d import causal_conv1d_fn
from mamba_kernels.compat.mamba_ssm.ops.scan import selective_scan_fn, selective_scan_ref

__all__ = [
    "bimamba_inner_fn",
    "mamba_inner_fn",
    "mamba_inner_fn_no_out_proj",
    "mamba_inner_ref",
    "rms_norm_forward",
    "selective_scan_fn",
    "selective_scan_ref",
]


def rms_norm_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-6, is_rms_norm: bool = True
) -> Tensor:
    """Norm x (..., D) over its last dimension: by its root mean square, or as LayerNorm does."""
    if not is_rms_norm:
        return F.layer_norm(x.to(weight.dtype), weight.shape, weight, bias, eps).to(x.dtype)
    normed = rms_norm(x, weight, eps)
    return normed if bias is None else (normed + bias).to(x.dtype)


def _selected(
    projected: Tensor,
    constant: Tensor | None,
    bias: Tensor | None,
    norm: Tensor | None,
    eps: float,
    is_complex: bool,
) -> Tensor:
    """B or C as the scan takes it: the constant, or the projection (B, L, N) biased, normed and turned to (B, N, L)."""
    if constant is not None:
        return constant
    if bias is not None:
        projected = projected + bias.to(projected.dtype)
    if norm is not None:
        projected = rms_norm_forward(projected, norm, None, eps)
    if is_complex:  # real and imaginary parts alternate along the states there, along the length here
        return projected.unflatten(2, (-1, 2)).permute(0, 2, 1, 3).flatten(2)
    return projected.transpose(1, 2)


def _convolve(xz: Tensor, conv1d_weight: Tensor, conv1d_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The convolved channels and the gates, (B, D, L) both, with channels as neighbours in memory."""
    x, z = xz.chunk(2, dim=1)
    if x.stride(1) != 1:
        x, z = (half.transpose(1, 2).contiguous().transpose(1, 2) for half in (x, z))
    taps = conv1d_weight.squeeze(1) if conv1d_weight.dim() == 3 else conv1d_weight
    out = causal_conv1d_fn(x, taps, conv1d_bias, activation="silu")
    assert isinstance(out, Tensor)
    return out, z


def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """Convolve, select, scan and gate: a Mamba block without its first and last projection.

    Args:
        xz: (B, 2 D, L), channels, then their gates.
        conv1d_weight: (D, 1, K).
        conv1d_bias: (D,).
        x_proj_weight: (R + 2 N, D), gives step sizes, B and C.
        delta_proj_weight: (D, R).
        A: (D, N), real or complex.
        B: A constant in place of the projection's, as `selective_scan_fn` takes it.
        C: As B.
        D: (D,).
        delta_bias: (D,).
        B_proj_bias: (N,), added to the projection's B.
        C_proj_bias: (N,).
        delta_softplus: Whether to apply softplus to the step sizes.
        b_rms_weight: (N,), norms B.
        c_rms_weight: (N,), norms C.
        dt_rms_weight: (D,), norms the step sizes before their bias.
        b_c_dt_rms_eps: Of these norms.

    Returns:
        (B, D, L), gated.

    Raises:
        ValueError: A shape does not fit; the message says what is accepted.
    """
    x, z = _convolve(xz, conv1d_weight, conv1d_bias)
    delta, B, C = _select(
        *(x, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias),
        *(b_rms_weight, c_rms_weight, dt_rms_weight, b_c_dt_rms_eps),
    )
    out = selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(out, Tensor)
    return out


def _select(
    x: Tensor,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
    B_proj_bias: Tensor | None,
    C_proj_bias: Tensor | None,
    b_norm: Tensor | None = None,
    c_norm: Tensor | None = None,
    dt_norm: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step sizes (B, D, L), B and C from the convolved channels (B, D, L)."""
    rank = delta_proj_weight.shape[1]
    states = A.shape[1] * (2 if A.is_complex() else 1)
    projected = F.linear(x.transpose(1, 2), x_proj_weight)
    # Row-major on purpose: the gradient of so narrow a matrix is then several times faster on the CPU.
    delta = projected[..., :rank] @ delta_proj_weight.t().contiguous()
    if dt_norm is not None:
        delta = rms_norm_forward(delta, dt_norm, None, eps)
    b = _selected(projected[..., rank : rank + states], B, B_proj_bias, b_norm, eps, A.is_complex())
    c = _selected(projected[..., -states:], C, C_proj_bias, c_norm, eps, A.is_complex())
    return delta.transpose(1, 2), b, c


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """Run a Mamba block from after its first projection on, as mamba-ssm's function of this name does.

    Arguments as those of `mamba_inner_fn_no_out_proj`, and:

    Args:
        out_proj_weight: (M, D).
        out_proj_bias: (M,).
        checkpoint_lvl: What mamba-ssm's kernels compute again in the backward pass; of no influence on ours.

    Returns:
        (B, L, M).
    """
    gated = mamba_inner_fn_no_out_proj(
        *(xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias),
        *(B_proj_bias, C_proj_bias, delta_softplus, b_rms_weight, c_rms_weight, dt_rms_weight, b_c_dt_rms_eps),
    )
    return F.linear(gated.transpose(1, 2), out_proj_weight, out_proj_bias)


def mamba_inner_ref(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """As `mamba_inner_fn`, written out: convolution, projections, scan, projection."""
    x, z = xz.chunk(2, dim=1)
    convolved = causal_conv1d_fn(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    assert isinstance(convolved, Tensor)
    delta, B, C = _select(convolved, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias)
    y = selective_scan_fn(convolved, delta, A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(y, Tensor)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def bimamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """As `mamba_inner_fn`, plus the same channels scanned from the right with decay rates `A_b` (D, N)."""
    x, z = _convolve(xz, conv1d_weight, conv1d_bias)
    delta, B, C = _select(x, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias)
    out = selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    turned = [_flipped(tensor, A.is_complex()) for tensor in (B, C)]
    back = selective_scan_fn(
        x.flip(2), delta.flip(2), A_b, turned[0], turned[1], D, z.flip(2), delta_bias, delta_softplus
    )
    assert isinstance(out, Tensor)
    assert isinstance(back, Tensor)
    return F.linear((out + back.flip(2)).transpose(1, 2), out_proj_weight, out_proj_bias)


def _flipped(parameter: Tensor, paired: bool) -> Tensor:
    """B or C from right to left; constants as they are, pairs of real and imaginary parts kept in order."""
    if parameter.dim() == 2:
        return parameter
    return parameter.unflatten(-1, (-1, 2)).flip(-2).flatten(-2) if paired else parameter.flip(-1)
