"""Which implementation runs: chosen by the device and dtype, overridden by argument or `MAMBA_KERNELS_BACKEND`."""

import functools
import importlib.util
import os
import warnings
from dataclasses import dataclass

import torch

BACKENDS = ("reference", "torch", "numba", "triton")
"""Every backend name that is understood, from the plainest to the most specialised."""

COMPILED_BACKENDS = ("numba", "triton")
"""The backends that run kernels with hand-written gradients; the others consist of torch's own operations."""

ENVIRONMENT_VARIABLE = "MAMBA_KERNELS_BACKEND"

NUMBA_DTYPES = (torch.float32, torch.bfloat16)
"""Input dtypes of the CPU kernels; their state is float32 always."""

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Input dtypes of the Triton kernels; they compute in float32, or in float64 if an input has it."""

TRITON_OPERATORS = (
    "selective_scan",
    "ssd",
    "causal_conv1d",
    "rms_norm",
    "selective_state_update",
    "ssd_update",
    "causal_conv1d_update",
)
"""Operators that have Triton kernels."""

TORCH_OPERATORS = ("s4d",)
"""Operators without kernels of any kind: they are torch's own operations on every device."""


@dataclass(frozen=True)
class Choice:
    """A backend and, for people, the reason why it was chosen."""

    backend: str
    reason: str


def _is_installed(name: str) -> bool:
    """Whether a package can be found; a finder that refuses it says no."""
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


_TRITON_INSTALLED = _is_installed("triton")

_problems: dict[str, str | None] = {}
"""What was found out about a backend; a plain dict, because torch.compile warns of `functools.cache`."""


def numba_problem() -> str | None:
    """Say why the Numba kernels cannot run here, or return None where they can."""
    if "numba" not in _problems:
        _problems["numba"] = _import_problem()
    return _problems["numba"]


def _import_problem() -> str | None:
    try:
        import mamba_kernels.cpu.numba_runtime
    except Exception as error:  # a broken Numba fails in many ways: ImportError, SystemError, OSError from LLVM
        return f"numba cannot be imported ({type(error).__name__}: {error})"
    del mamba_kernels
    return None


def backend_problem(backend: str) -> str | None:
    """Say why `backend` cannot run in this installation at all, or return None where it can."""
    if backend == "numba":
        return numba_problem()
    if backend == "triton":
        return triton_problem()
    return None


def interpreted() -> bool:
    """Say whether Triton runs its kernels in Python on the CPU: `TRITON_INTERPRET`, set before triton is imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def triton_problem() -> str | None:
    """Say why no Triton kernel can run here, or return None where one can."""
    if not _TRITON_INSTALLED:
        return "triton is not installed"
    if not torch.cuda.is_available() and not interpreted():
        return "torch finds no GPU, and the kernels do not run on a CPU; for tests, TRITON_INTERPRET=1 interprets them"
    return None


def available_backends() -> tuple[str, ...]:
    """Return the names of the backends that can run in this installation."""
    return tuple(name for name in BACKENDS if backend_problem(name) is None)


def _mismatch(op: str, backend: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Say why an installed backend cannot serve this operator and these tensors, or return None where it can."""
    if backend in COMPILED_BACKENDS and op in TORCH_OPERATORS:
        return f"it has no {backend} kernel; use backend='torch' or 'reference'"
    if backend == "triton":
        return _triton_mismatch(op, device, dtype)
    if backend == "numba" and device.type != "cpu":
        return f"the numba backend runs on the CPU, the tensors are on {device}; use backend='torch'"
    if backend == "numba" and dtype not in NUMBA_DTYPES:
        return f"the numba backend takes float32 and bfloat16, not {dtype}; use backend='torch' or 'reference'"
    return None


def _triton_mismatch(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    if op not in TRITON_OPERATORS:
        return f"it has no Triton kernel; those that have are {', '.join(TRITON_OPERATORS)}"
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"the triton backend runs on a GPU, the tensors are on {device}; use backend='numba' or 'torch'"
    if dtype not in TRITON_DTYPES:
        return f"the triton backend takes float32, bfloat16, float16 and float64, not {dtype}; use backend='torch'"
    return None


def _checked_name(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r} in {source}; accepted: {', '.join(BACKENDS)}")
    problem = backend_problem(name)
    if problem is not None:
        raise ValueError(f"backend {name!r} asked for in {source} is not available: {problem}")
    return name


@functools.cache
def _warn_without_numba(problem: str) -> None:
    """Warn once in a process."""
    warnings.warn(
        f"CPU operators fall back to plain torch, which is many times slower: {problem}", RuntimeWarning, stacklevel=4
    )


def choose_backend(op: str, requested: str | None, device: torch.device, dtype: torch.dtype = torch.float32) -> Choice:
    """Choose the backend of one operator and say why.

    An argument is an order: a backend that cannot serve the tensors is an error. The environment variable is a
    preference: it is followed where it can be, so that one setting suits a program with float64 tests inside.

    Args:
        op: Operator name, for messages.
        requested: The caller's `backend` argument, or None.
        device: Where the tensors lie.
        dtype: The widest floating dtype among the inputs.

    Raises:
        ValueError: The name is unknown, or the backend cannot run here or on these tensors.
    """
    if requested is not None:
        backend = _checked_name(requested, f"{op}(backend=...)")
        mismatch = _mismatch(op, backend, device, dtype)
        if mismatch is not None:
            raise ValueError(f"{op}: {mismatch}")
        return Choice(backend, "asked for by argument")
    preferred = os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower()
    if preferred:
        backend = _checked_name(preferred, f"the environment variable {ENVIRONMENT_VARIABLE}")
        if _mismatch(op, backend, device, dtype) is None:
            return Choice(backend, f"asked for by {ENVIRONMENT_VARIABLE}")
    if op in TORCH_OPERATORS:
        return Choice("torch", "made of torch's own operations")
    if device.type != "cpu":
        problem = triton_problem() or _triton_mismatch(op, device, dtype)
        return Choice("triton", "fastest on the GPU") if problem is None else Choice("torch", problem)
    if dtype not in NUMBA_DTYPES:
        return Choice("torch", f"the CPU kernels take float32 and bfloat16, not {dtype}")
    problem = numba_problem()
    if problem is not None:
        if not torch.compiler.is_compiling():
            _warn_without_numba(problem)
        return Choice("torch", problem)
    return Choice("numba", "fastest on the CPU")


def resolve_backend(op: str, requested: str | None, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Return the name of the backend that runs one operator: see `choose_backend`."""
    return choose_backend(op, requested, device, dtype).backend
