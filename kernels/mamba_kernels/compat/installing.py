"""`install()`: lets code that imports `mamba_ssm` and `causal_conv1d` find ours where those are missing or do not run.

It changes nothing on disk: it registers modules in this process, so that `import mamba_ssm` gives them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch

OURS = {"causal_conv1d": "mamba_kernels.compat.causal_conv1d", "mamba_ssm": "mamba_kernels.compat.mamba_ssm"}
"""Their packages and ours; causal_conv1d first, since an installed mamba_ssm imports it."""

READ_WHEN_IMPORTED = ("transformers.models.mamba", "transformers.models.mamba2", "transformers.models.falcon_mamba")
"""Modules that look for the packages once, when they are imported, and do not see what comes later."""


@dataclass(frozen=True)
class Installed:
    """What `import NAME` gives after `install()`, and why.

    Attributes:
        name: "mamba_ssm" or "causal_conv1d".
        ours: Whether it is ours.
        reason: Why, for people.
    """

    name: str
    ours: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {'mamba_kernels' if self.ours else 'the installed package'}, {self.reason}"


def install(*, replace: bool = False) -> tuple[Installed, ...]:
    """Let `import mamba_ssm` and `import causal_conv1d` give ours, unless installed ones run on this machine.

    An installed package is tried: imported, and its Mamba-1 scan, or convolution, called on the GPU if torch finds one,
    else on the CPU. Only if that fails is it replaced. Call this before the code that needs the packages is imported.

    Args:
        replace: Take ours even where an installed package runs.

    Returns:
        What was done and why, a package each; `print(*install(), sep="\\n")` shows it.
    """
    return tuple(_install(theirs, ours, replace) for theirs, ours in OURS.items())


def uninstall() -> None:
    """Forget what `install()` registered; modules that have imported from it keep what they have."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in OURS and _is_ours(module):
            del sys.modules[name]


def _install(theirs: str, ours: str, replace: bool) -> Installed:
    present = sys.modules.get(theirs)
    if present is not None and _is_ours(present):
        return Installed(theirs, True, "as before")
    problem = _problem(theirs)
    if problem is None and not replace:
        return Installed(theirs, False, "which runs here")
    for name in [name for name in sys.modules if name == theirs or name.startswith(f"{theirs}.")]:
        del sys.modules[name]
    package = importlib.import_module(ours)
    for name in (ours, *_submodules(package)):
        sys.modules[theirs + name.removeprefix(ours)] = importlib.import_module(name)
    return Installed(theirs, True, (problem or "in place of the installed one, as asked") + _too_late())


def _is_ours(module: ModuleType | None) -> bool:
    return getattr(module, "__name__", "").startswith("mamba_kernels.")


def _submodules(package: ModuleType) -> Iterator[str]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield found.name


def _problem(name: str) -> str | None:
    """Say why an installed package cannot be used, or return None where it can."""
    try:
        if importlib.util.find_spec(name) is None:
            return "which is not installed"
        _TRIALS[name]()
    except Exception as error:  # a package built for another torch or GPU fails in many ways
        first = (str(error).strip() or "no message").splitlines()[0]
        return f"since the installed one does not run here ({type(error).__name__}: {first})"
    return None


def _inputs(shapes: Iterable[tuple[int, ...]]) -> list[torch.Tensor]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [torch.ones(shape, device=device) for shape in shapes]


def _try_scan() -> None:
    scan = importlib.import_module("mamba_ssm").selective_scan_fn
    scan(*_inputs([(1, 8, 8), (1, 8, 8), (8, 16), (1, 16, 8), (1, 16, 8)]))


def _try_convolution() -> None:
    convolve = importlib.import_module("causal_conv1d").causal_conv1d_fn
    convolve(*_inputs([(1, 8, 8), (8, 4)]))


_TRIALS: dict[str, Callable[[], None]] = {"mamba_ssm": _try_scan, "causal_conv1d": _try_convolution}


def _too_late() -> str:
    """Name modules that were imported before and will not see what is installed now."""
    with contextlib.suppress(RuntimeError):  # another thread imports at this moment
        early = sorted({n for n in sys.modules if n.startswith(READ_WHEN_IMPORTED) and ".modeling_" in n})
        if early:
            return f"; too late for {', '.join(early)}, imported before: call install() first"
    return ""
