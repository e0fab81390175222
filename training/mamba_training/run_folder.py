"""The run folder: who may use it, the settings it was made with, and whether a resumed run still asks for the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from mamba_configs.yaml_files import write_yaml
from mamba_data_prep.atomic import atomic_write, clean_orphans, named_write_errors
from mamba_data_prep.errors import UserError
from mamba_training.checkpoint import CheckpointStore
from mamba_training.folders import check_run_folder, read_config

try:
    import fcntl
except ImportError:  # Windows has no such locks: two runs in one folder are then not noticed
    fcntl = None

MAY_CHANGE = frozenset(
    {"max_steps", "max_time", "out", "resume", "progress", "progress_every", "checkpoint_every", "checkpoint_seconds"}
    | {"num_workers", "workers", "devices", "num_nodes", "accelerator", "strategy", "context_parallel", "patience"}
)
"""Last parts of keys that do not decide what is learnt, so that a resumed run may give them new values."""

_BATCH_KEYS = ("batch_size", "grad_accumulation")


class RunFolder:
    """`runs/NAME/`, held by one process at a time.

    Args:
        path: the folder; made when the run starts.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.csv"
        self.checkpoints = CheckpointStore(self.path / "checkpoints")
        self._lock = _FolderLock(self.path / ".lock")

    def open(
        self,
        config: Mapping[str, Any] | None,
        *,
        resume: bool,
        may_change: Collection[str] = (),
        note: Callable[[str], object] = print,
    ) -> None:
        """Make or take over the folder, lock it, remove what killed processes left, and record the settings.

        Args:
            config: the run's settings as plain values, kept as `config.yaml`; None records nothing.
            resume: go on with the run in this folder.
            may_change: dotted keys that a resumed run may give new values, beside `MAY_CHANGE`.
            note: told in one line what a user should know.

        Raises:
            UserError: the folder is in use, not empty without `resume`, not writable, or was made with other settings.
        """
        check_run_folder(self.path, resume)
        with named_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.take()
        try:
            clean_orphans(self.path)
            self.checkpoints.clean()
            recorded = read_config(self.path) if resume and self.config_file.exists() else None
            if recorded is not None and config is not None:
                check_same(recorded, plain(config), self.config_file, may_change)
            if resume and not any(self.checkpoints.candidates()):
                note(f"{self.path} holds no checkpoint yet: the run starts from the beginning")
            if config is not None and plain(config) != recorded:
                with atomic_write(self.config_file) as file:
                    file.write(write_yaml(plain(config)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes use the folder."""
        self._lock.give_back()


class _FolderLock:
    """A lock that ends with its process, however that ends; the data workers forked from it don't inherit it.

    Args:
        path: the lock's file, made and removed with it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, -1

    def take(self) -> None:
        """Takes the folder's lock, and holds it.

        Raises:
            UserError: another process holds it.
        """
        while True:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if fcntl is not None:
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._file), self.path.stat()):
                    return
            except FileNotFoundError:
                pass  # its last holder removed the file between our two steps
            except OSError as error:
                os.close(self._file)
                self._file = -1
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
                fix = "wait for it, or stop it"
                raise UserError(
                    "another process is training in this run folder", path=self.path.parent, fix=fix
                ) from None
            os.close(self._file)

    def give_back(self) -> None:
        """Remove the lock's file, then let go of it."""
        if self._file >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def check_same(
    recorded: Mapping[str, Any], asked: Mapping[str, Any], path: Path, may_change: Collection[str] = ()
) -> None:
    """Refuse to resume a run with settings that contradict those it was made with.

    A smaller `batch_size` is no contradiction if `grad_accumulation` makes up for it: the steps see the same data.

    Raises:
        UserError: naming each setting with both values.
    """
    old, new = _flat(recorded), _flat(asked)
    same_product = _product(old) == _product(new)
    clashes = []
    for key in [*old, *(key for key in new if key not in old)]:
        name = key.rpartition(".")[2]
        if key in may_change or name in MAY_CHANGE or (name in _BATCH_KEYS and same_product):
            continue
        if old.get(key) != new.get(key):
            clashes.append(f"{key} was {old.get(key)!r} and is now {new.get(key)!r}")
    if clashes:
        more = f" (and {len(clashes) - 4} more)" if len(clashes) > 4 else ""
        raise UserError(
            "this run was made with other settings: " + "; ".join(clashes[:4]) + more,
            path=path,
            accepted="the recorded settings; only limits, devices and workers may change",
            fix="resume with the recorded settings, or start another run with another --out",
        )


def plain(value: Any) -> Any:
    """Settings as YAML holds them: dicts, lists, numbers, texts; paths become texts, tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _product(flat: Mapping[str, Any]) -> float | None:
    """Samples per optimizer step, where the settings say so."""
    product, seen = 1.0, False
    for key, value in flat.items():
        if key.rpartition(".")[2] in _BATCH_KEYS and isinstance(value, int | float):
            product, seen = product * value, True
    return product if seen else None
