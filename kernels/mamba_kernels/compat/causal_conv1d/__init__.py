"""The package `causal_conv1d`, 1.6, on our operators: any number of taps, any device."""

from mamba_kernels.compat.causal_conv1d.causal_conv1d_interface import causal_conv1d_fn, causal_conv1d_update
from mamba_kernels.compat.causal_conv1d.causal_conv1d_varlen import causal_conv1d_varlen_states

__version__ = "1.6.1+mamba.kernels"

__all__ = ["causal_conv1d_fn", "causal_conv1d_update", "causal_conv1d_varlen_states"]
