"""Other packages' names and layouts on our operators: mamba-ssm, causal-conv1d, and transformers' checkpoints.

from mamba_kernels.compat import install
install()
from mamba_ssm import Mamba  # ours, unless an installed mamba_ssm runs on this machine
"""

from mamba_kernels.compat.installing import Installed, install, uninstall
from mamba_kernels.compat.mamba_ssm import (
    causal_conv1d_fn,
    causal_conv1d_update,
    mamba_chunk_scan_combined,
    selective_scan_fn,
    selective_state_update,
)

__all__ = [
    "Installed",
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "install",
    "mamba_chunk_scan_combined",
    "selective_scan_fn",
    "selective_state_update",
    "uninstall",
]
