"""Selective state space operators and blocks, with a reference, CPU and GPU implementation behind one function.

Nothing heavy is imported until an operator is asked for: `import mamba_kernels` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mamba_configs.former_paths import keep_former_paths

if TYPE_CHECKING:
    from mamba_kernels.dispatch import available_backends
    from mamba_kernels.ops.causal_conv1d.interface import causal_conv1d
    from mamba_kernels.ops.causal_conv1d.update import causal_conv1d_update
    from mamba_kernels.ops.rms_norm.interface import rms_norm
    from mamba_kernels.ops.s4d.interface import s4d
    from mamba_kernels.ops.s4d.update import s4d_update
    from mamba_kernels.ops.selective_scan.interface import selective_scan
    from mamba_kernels.ops.selective_scan.update import selective_state_update
    from mamba_kernels.ops.ssd.interface import ssd
    from mamba_kernels.ops.ssd.update import ssd_update

__all__ = [
    "available_backends",
    "causal_conv1d",
    "causal_conv1d_update",
    "rms_norm",
    "s4d",
    "s4d_update",
    "selective_scan",
    "selective_state_update",
    "ssd",
    "ssd_update",
]

_HOMES = {
    "available_backends": "mamba_kernels.dispatch",
    "causal_conv1d": "mamba_kernels.ops.causal_conv1d.interface",
    "causal_conv1d_update": "mamba_kernels.ops.causal_conv1d.update",
    "rms_norm": "mamba_kernels.ops.rms_norm.interface",
    "s4d": "mamba_kernels.ops.s4d.interface",
    "s4d_update": "mamba_kernels.ops.s4d.update",
    "selective_scan": "mamba_kernels.ops.selective_scan.interface",
    "selective_state_update": "mamba_kernels.ops.selective_scan.update",
    "ssd": "mamba_kernels.ops.ssd.interface",
    "ssd_update": "mamba_kernels.ops.ssd.update",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


keep_former_paths("mamba_kernels", {"convert": "compat.transformers"})
