"""Causal convolution with a filter as long as the sequence, channel by channel, by FFT in at least float32.

Shapes: `B` batch, `L` length, `D` channels, `M` the longest document of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mamba_kernels.ops.derivatives import recomputed_backward
from mamba_kernels.ops.exported import loop

GROUP_NUMBERS = 1 << 21
"""Numbers that go through one FFT, zeros behind them included: channels are taken in groups of so many."""


def long_convolution(x: Tensor, kernel: Tensor, reset: Tensor | None = None) -> Tensor:
    """y_t = sum of kernel_(t - s) x_s over all s up to t that lie in the document of t.

    Args:
        x: (B, L, D).
        kernel: (L, D) or longer, at least float32; kernel_0 weighs the present token.
        reset: (B, L) bool, True at the first token of each document; None where a row is one document.

    Returns:
        (B, L, D) in the kernel's dtype.
    """
    wide = x.to(kernel.dtype)
    if torch.compiler.is_exporting():
        if reset is None and not torch.onnx.is_in_onnx_export():  # where transforms of any length are not to be had
            return _by_fft(wide, kernel)
        return _by_positions(wide, kernel, torch.zeros_like(wide[..., 0], dtype=torch.bool) if reset is None else reset)
    if not x.numel():
        return wide
    return _convolved(wide, kernel[: x.shape[1]]) if reset is None else _by_documents(wide, kernel, reset)


def _by_documents(x: Tensor, kernel: Tensor, reset: Tensor) -> Tensor:
    """Convolves each document alone, those of like length together, so that little is padding."""
    flat, total = x.flatten(0, 1), x.shape[0] * x.shape[1]
    marks = reset.clone()
    marks[:, 0] = True
    starts = marks.flatten().nonzero()[:, 0]
    lengths = torch.diff(starts, append=starts.new_tensor([total]))
    size = (lengths - 1).clamp(min=1).log2().floor()
    places: list[Tensor] = []
    pieces: list[Tensor] = []
    for one in size.unique():
        start, length = starts[size == one], lengths[size == one]
        position = torch.arange(int(length.max()), device=x.device)
        inside = position < length[:, None]
        place = (start[:, None] + position).clamp(max=total - 1)
        documents = torch.where(inside[..., None], flat[place], 0)
        pieces.append(_convolved(documents, kernel[: len(position)])[inside])
        places.append(place[inside])
    return torch.zeros_like(flat).index_copy(0, torch.cat(places), torch.cat(pieces)).view_as(x)


def _by_positions(x: Tensor, kernel: Tensor, reset: Tensor) -> Tensor:
    """The same under `torch.export`, where it is not known how many documents there are: position by position."""
    place, document = torch.arange(x.shape[1], device=x.device), reset.int().cumsum(1)

    def one(
        state: Tensor, now: Tensor, own: Tensor, x: Tensor, kernel: Tensor, place: Tensor, document: Tensor
    ) -> tuple[Tensor, Tensor]:
        distance = now - place
        weights = torch.where((distance >= 0)[:, None], kernel.index_select(0, distance.clamp(min=0)), 0.0)
        seen = torch.where((document == own[:, None])[..., None], x, 0.0)
        return (seen * weights).sum(1), state.clone()

    _, y = loop(one, x.new_zeros(x.shape[0]), (place, document.t()), (x, kernel, place, document))
    return y.transpose(0, 1)


def _convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """`x` (B, M, D) with `kernel` (M, D), some channels at a time; spectra are computed again in the backward pass."""
    batch, length, width = x.shape
    group = max(1, GROUP_NUMBERS // (2 * length * batch))
    recompute = recomputed_backward(x, kernel)
    parts: list[Tensor] = []
    for first in range(0, width, group):
        pair = x[..., first : first + group], kernel[:, first : first + group]
        if recompute:
            parts.append(checkpoint(_by_fft, *pair, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_by_fft(*pair))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _by_fft(x: Tensor, kernel: Tensor) -> Tensor:
    length = x.shape[1]
    size = 2 * length
    spectrum = torch.fft.rfft(x.transpose(1, 2).contiguous(), size)
    y = torch.fft.irfft(spectrum * torch.fft.rfft(kernel.t().contiguous(), size), size)[..., :length]
    return y.transpose(1, 2).contiguous()
