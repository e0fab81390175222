"""PyTorch loaders over windows, whose worker processes fail by name."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.dataset import Key, WindowDataset


class WorkerDied(UserError):
    """A data worker was killed (most often by the system, for memory); the run can be resumed."""

    exit_code = 3


class WindowLoader(DataLoader[torch.Tensor]):
    """A DataLoader that raises `WorkerDied` when a worker is killed, and a worker's `UserError` as it is."""

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gives batches, until the sampler ends.

        Raises:
            WorkerDied: a worker process was killed.
            UserError: reading failed for a reason that the user can mend.
        """
        with _child_signals_left_alone():
            batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:  # the last two where it died while handing a batch over
                how = _how_a_worker_ended(batches)
                if how is None:
                    raise
                fix = "free memory or use fewer workers (0 reads in the main process), then resume the run"
                raise WorkerDied(f"a data worker was killed ({how})", fix=fix) from error
            if isinstance(batch, UserError):
                raise batch
            yield batch


def make_loader(
    dataset: WindowDataset, batch_sampler: Iterable[list[Any]], workers: int = 0, *, pin_memory: bool = False
) -> WindowLoader:
    """Gives a loader of uint8 tensors (B, window), in the sampler's order for any number of workers.

    Args:
        dataset: the windows.
        batch_sampler: lists of window numbers or (epoch, number).
        workers: processes that read ahead; 0 reads in this one.
        pin_memory: copy batches to page-locked memory, for GPUs.
    """
    return WindowLoader(
        _Guarded(dataset),  # pyright: ignore[reportArgumentType]
        batch_sampler=batch_sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # its own, so that making an iterator does not advance the run's random numbers
    )


def collate(batch: np.ndarray | UserError | Sequence[np.ndarray]) -> torch.Tensor | UserError:
    """Gives windows as one uint8 tensor (B, window)."""
    if isinstance(batch, UserError):
        return batch
    return torch.from_numpy(batch if isinstance(batch, np.ndarray) else np.stack(batch))


class _Guarded:
    """Hands a `UserError` on as a value, since a loader would wrap it in the worker's traceback."""

    def __init__(self, dataset: WindowDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> np.ndarray:
        return self.dataset[key]

    def __getitems__(self, keys: Sequence[Key]) -> np.ndarray | UserError:
        try:
            return self.dataset.__getitems__(keys)
        except UserError as error:
            return error


@contextmanager
def _child_signals_left_alone() -> Iterator[None]:
    """Takes back the signal handler that torch installs, which raises wherever the program is when a worker dies.

    Without it a dead worker is found when the next batch is asked for, within torch's five seconds of polling, and at a
    place where the error can be given its name.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if before is not None and signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)


def _how_a_worker_ended(batches: object, patience: float = 1.0) -> str | None:
    """Number and end of a worker process that is gone; None if all of them live or ended as they should."""
    workers = getattr(batches, "_workers", [])
    until = time.monotonic() + patience  # its connections close a moment before its end is known
    while workers:
        for worker in workers:
            if worker.exitcode:
                code = worker.exitcode
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                return f"process {worker.pid}, {how}"
        if time.monotonic() > until:
            return None
        time.sleep(0.02)
    return None
