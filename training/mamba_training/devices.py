"""The one place that says on which device something runs, how many there are, and in which precision.

Two vocabularies meet here: Lightning's accelerators (`auto`, `cpu`, `gpu`, `mps`), in which runs are set, and torch's
devices (`cpu`, `cuda`, `cuda:1`), in which a command's `--device` is.
"""

from __future__ import annotations

from typing import Literal

import torch

from mamba_data_prep.errors import UserError

__all__ = ["device_count", "device_kind", "pick_device", "resolve_precision", "scoring_device"]


def device_kind(accelerator: str = "auto") -> Literal["cpu", "cuda", "mps"]:
    """What trains under an accelerator: `auto` is a CUDA GPU where there is one, and the CPU elsewhere."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    return "mps" if accelerator == "mps" else "cpu"


def device_count(devices: int | str, accelerator: str = "auto") -> int:
    """How many devices train: as many as are asked for; `auto` is every GPU, or the one CPU."""
    if isinstance(devices, int):
        return devices
    return max(1, torch.cuda.device_count() if device_kind(accelerator) == "cuda" else 1)


def scoring_device(accelerator: str = "auto") -> torch.device:
    """Where a model is scored after a run under an accelerator: on the GPU that trained it, or else on the CPU."""
    return torch.device("cuda" if device_kind(accelerator) == "cuda" else "cpu")


def pick_device(name: str) -> torch.device:
    """The device that a command was told to use; `auto` takes a GPU where there is one.

    Raises:
        UserError: the device is unknown or not there.
    """
    if name == "auto":
        return scoring_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError("this device cannot be used", found=name, accepted="auto, cpu, cuda, cuda:0 ...") from error
    return device


def resolve_precision(precision: str, accelerator: str = "auto") -> str:
    """What "auto" means here: bf16-mixed where the hardware multiplies matrices in bf16, 32-true elsewhere.

    In bf16-mixed the weights, the optimizer, the residual stream and the scan's state stay in float32.
    """
    if precision != "auto":
        return precision
    if device_kind(accelerator) == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())
    return "bf16-mixed" if on_cpu and cpu_multiplies_bf16() else "32-true"


def cpu_multiplies_bf16() -> bool:
    """Whether this processor has instructions for products of bf16 matrices (AVX512-BF16, AMX), about twice as fast."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell: float32 is always right
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
