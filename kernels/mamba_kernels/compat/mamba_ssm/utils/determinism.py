"""mamba-ssm's switch for results that repeat, for code that throws it; ours repeat whatever it says.

Our kernels sum in one order always (see `docs/kernels.md`), so that there is nothing to switch.
"""

import os

import torch

_chosen: bool | None = None


def set_deterministic_mode(value: bool | None) -> None:
    """Keep what `use_deterministic_mode` answers; None follows torch and the environment again."""
    global _chosen
    _chosen = value


def use_deterministic_mode() -> bool:
    """Say what was chosen, else `MAMBA_DETERMINISTIC`, else torch's own setting."""
    if _chosen is not None:
        return _chosen
    asked = os.environ.get("MAMBA_DETERMINISTIC")
    return asked.startswith("1") if asked else torch.are_deterministic_algorithms_enabled()
