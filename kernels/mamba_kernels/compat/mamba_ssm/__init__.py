"""The package `mamba_ssm`, 2.3, on our operators: the same modules, classes, signatures and weights, on any device.

`mamba_kernels.compat.install()` puts it where `import mamba_ssm` finds it. Definitions: Gu and Dao 2023
(arXiv:2312.00752), Dao and Gu 2024 (arXiv:2405.21060), and the documentation of github.com/state-spaces/mamba. Unlike
the originals, gradients that flow into a returned last state are not dropped.
"""

from mamba_kernels.compat.causal_conv1d import causal_conv1d_fn, causal_conv1d_update, causal_conv1d_varlen_states
from mamba_kernels.compat.mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
from mamba_kernels.compat.mamba_ssm.modules.mamba2 import Mamba2
from mamba_kernels.compat.mamba_ssm.modules.mamba_simple import Mamba
from mamba_kernels.compat.mamba_ssm.ops.selective_scan_interface import mamba_inner_fn, selective_scan_fn
from mamba_kernels.compat.mamba_ssm.ops.triton.selective_state_update import selective_state_update
from mamba_kernels.compat.mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

__version__ = "2.3.2+mamba.kernels"

__all__ = [
    "Mamba",
    "Mamba2",
    "MambaLMHeadModel",
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "causal_conv1d_varlen_states",
    "mamba_chunk_scan_combined",
    "mamba_inner_fn",
    "selective_scan_fn",
    "selective_state_update",
]
