"""What can go wrong inside a step, told to people: a loss that is no number, too little memory, a dead data worker."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import Interrupted, UserError

_MEMORY_WORDS = (
    "out of memory",
    "t allocate memory",
    "not enough memory",
    "alloc_failed",
    "cannot allocate memory",
)
_WORKER_WORDS = re.compile(r"DataLoader worker \(pid[^)]*\)[^.\n]*")


def tensors_in(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch, however nested, each with a dotted name."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from tensors_in(value, f"{name}.{key}")
    elif isinstance(batch, list | tuple):
        for index, value in enumerate(batch):
            yield from tensors_in(value, f"{name}.{index}")
    elif is_dataclass(batch):
        for item in fields(batch):
            yield from tensors_in(getattr(batch, item.name), f"{name}.{item.name}")


def batch_shape(batch: Any) -> tuple[int, int]:
    """Sequences in a batch, and their length: the first two sizes of its largest tensor."""
    largest = max((tensor for _, tensor in tensors_in(batch)), key=torch.numel, default=None)
    sizes = [] if largest is None else list(largest.shape)
    return (*sizes, 1, 1)[0], ([*sizes, 1, 1])[1]


def save_batch(path: Path, batch: Any, about: Mapping[str, str]) -> None:
    """Keep a batch as safetensors, so that whoever looks for the cause can load it without running anything."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors_in(batch)}
    with atomic_write(path, "wb") as file:
        file.write(safetensors_bytes(tensors, metadata=dict(about)))


def not_a_number(what: str, step: int, saved: Path, resumable: bool) -> UserError:
    """The error for a loss or a gradient that is infinite or not a number."""
    kept = "the last checkpoint is from before it" if resumable else "no step was saved before it"
    return UserError(
        f"the {what} of step {step:,} is not a finite number; its batch is kept, and {kept}",
        path=saved,
        fix="use a smaller learning rate or a longer warm-up, or look for odd values in that batch",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)


def out_of_memory(batch: Any, grad_accumulation: int, resume: str) -> UserError:
    """The error for too little memory: what was tried, and a setting that does the same with less."""
    sequences, length = batch_shape(batch)
    if sequences > 1:
        half = -(-sequences // 2)
        smaller = f"batch size {half} with gradient accumulation {grad_accumulation * 2} does the same work"
    else:
        smaller = f"a window of {max(1, length // 2):,} needs about half, or use a smaller model"
    return UserError(
        f"out of memory in a step of batch x length = {sequences:,} x {length:,}",
        accepted=smaller,
        fix=f"lower it and go on: {resume}",
    )


def dead_worker(error: BaseException, resume: str) -> Interrupted | None:
    """The error for a data-loading process that was killed; None if `error` is something else.

    torch notices the death itself, or only that the connection to the process broke while a batch was handed over.
    """
    found = _WORKER_WORDS.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is not None:
        how = found.group(0).strip()
    elif isinstance(error, ConnectionError | EOFError) and _while_loading(error):
        how = "it was gone while it handed over a batch"
    else:
        return None
    return Interrupted(
        f"a data-loading process died: {how} (the usual cause is too little memory)\n"
        f"  mend:     use fewer workers, and go on with: {resume}"
    )


def _while_loading(error: BaseException) -> bool:
    frames = walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "torch.utils.data.dataloader" for frame, _ in frames)
