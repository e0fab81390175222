"""Other packages' names and layouts on our operators: mamba-ssm, causal-conv1d, and transformers' checkpoints."""

from mamba_kernels.compat.mamba_ssm import (
    causal_conv1d_fn,
    causal_conv1d_update,
    mamba_chunk_scan_combined,
    selective_scan_fn,
    selective_state_update,
)

__all__ = [
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "mamba_chunk_scan_combined",
    "selective_scan_fn",
    "selective_state_update",
]
