"""Lets the Triton kernels be tested without a GPU: in this process, by Triton's interpreter, on tensors of the CPU.

Triton reads TRITON_INTERPRET when it is first imported, which is in the conftest above, and when a kernel is defined.
All kernels are imported here, before any test can, and the variable is set again for as long as a test asks for
`triton_device`; other tests do not see it.
Where there is a GPU the kernels are compiled and run on it instead.
"""

import importlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils import deterministic

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        from triton.runtime import interpreter

        for operator in ("selective_scan", "ssd", "causal_conv1d", "rms_norm"):
            importlib.import_module(f"mamba_kernels.ops.{operator}.triton_op")
        for operator in ("selective_scan", "ssd", "causal_conv1d"):
            importlib.import_module(f"mamba_kernels.ops.{operator}.triton_update")
    finally:
        del os.environ["TRITON_INTERPRET"]
    prepared: set[str] = set()


def call_inside(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function from within an interpreted kernel, as `InterpretedFunction.__call__` does but for one thing.

    That prepares the language anew at every call, which takes a third of all time. A launch has prepared it already,
    but for Triton's own library, where once is enough.
    """
    module = self.fn.__module__
    if module.startswith("triton.") and module not in prepared:
        interpreter._patch_lang(self.fn)
        prepared.add(module)
    return self.rewrite()(*args, **kwargs)


@pytest.fixture
def triton_device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where tensors for the Triton kernels lie."""
    if GPU:
        return torch.device("cuda")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(interpreter.InterpretedFunction, "__call__", call_inside)
    return torch.device("cpu")


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """`torch.empty` gives NaN, so that a kernel which forgets to write an element fails."""
    torch.use_deterministic_algorithms(True)
    before = deterministic.fill_uninitialized_memory
    deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    deterministic.fill_uninitialized_memory = before
    torch.use_deterministic_algorithms(False)
