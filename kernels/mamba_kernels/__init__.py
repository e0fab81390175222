"""Selective state space operators and blocks, with a reference, CPU and GPU implementation behind one function.

Nothing heavy is imported until an operator is asked for: `import mamba_kernels` does not import torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mamba_kernels.causal_conv1d.interface import causal_conv1d
    from mamba_kernels.dispatch import available_backends
    from mamba_kernels.rms_norm.interface import rms_norm
    from mamba_kernels.s4d.operator import s4d, s4d_update
    from mamba_kernels.selective_scan.interface import selective_scan
    from mamba_kernels.ssd.interface import ssd
    from mamba_kernels.ssd.update import ssd_update
    from mamba_kernels.update import causal_conv1d_update, selective_state_update

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
    "causal_conv1d": "mamba_kernels.causal_conv1d.interface",
    "causal_conv1d_update": "mamba_kernels.update",
    "rms_norm": "mamba_kernels.rms_norm.interface",
    "s4d": "mamba_kernels.s4d.operator",
    "s4d_update": "mamba_kernels.s4d.operator",
    "selective_scan": "mamba_kernels.selective_scan.interface",
    "selective_state_update": "mamba_kernels.update",
    "ssd": "mamba_kernels.ssd.interface",
    "ssd_update": "mamba_kernels.ssd.update",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `mamba_kernels.selective_scan` the function although the subpackage that holds it has the same name.

    The import system binds a subpackage on its parent when it is first imported; for the names above that
    binding would hide the function, depending on who imported what first, so it is refused.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
