"""Compiling and running Numba kernels: a safe cache on disk, and threads that survive forks and concurrent callers."""

import contextlib
import functools
import hashlib
import inspect
import itertools
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import llvmlite
import numba
import torch
from llvmlite import ir
from numba import types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

from mamba_kernels.cpu.allocator import reuse_small_blocks

_config: Any = vars(numba)["config"]  # its values are set at run time, unknown to type checkers

FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
"""Everything that vectorising needs. Without `nnan` and `ninf`: a NaN in the input must be a NaN in the output."""


def _private_directory(path: Path) -> bool:
    """Make `path` if need be and say whether it is ours alone to write: compiled code is loaded from it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return False
        if os.name == "posix" and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            return False
        tempfile.TemporaryFile(dir=path).close()
    except OSError:
        return False
    return True


def _sources_key() -> str:
    """Hash what a compiled kernel depends on beyond its own text: the functions inlined into it, and the compiler."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for source in sorted(Path(__file__).parents[1].rglob("*numba*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def cache_directory() -> Path | None:
    """Return the folder of compiled kernels, or None where no place can be written safely.

    Tried in order: `NUMBA_CACHE_DIR`, the user's cache folder, a per-user folder in the temporary directory.
    """
    candidates = [Path(_config.CACHE_DIR)] if _config.CACHE_DIR else []
    with contextlib.suppress(RuntimeError):  # no home at all
        candidates.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mamba_kernels")
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    with contextlib.suppress(OSError):  # no temporary directory either
        candidates.append(Path(tempfile.gettempdir()) / f"mamba_kernels-{user}")
    key = _sources_key()
    for base in candidates:
        if _private_directory(base) and _private_directory(base / key):
            return base / key
    return None


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a lock between processes while the body runs; without file locks (Windows) only numba's atomic renames."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class _SafeCache(FunctionCache):
    """Numba's cache, made safe for two writers at once and harmless when the disk is full or a file is damaged.

    Numba numbers the compiled variants of a function by reading its index and writing it back, so two processes
    that compile different variants at once can give both the same number, and later load the wrong code.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged pickle may raise anything; compiling again is always right
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception), _exclusive(Path(self.cache_path) / "lock"):
            super().save_overload(sig, data)


def _enable_cache(dispatcher: Any) -> None:
    directory = cache_directory()
    if directory is None:
        return
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(directory)
    try:
        dispatcher._cache = _SafeCache(dispatcher.py_func)
        Path(dispatcher._cache.cache_path).mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        pass  # the kernel is compiled anew in each process
    finally:
        _config.CACHE_DIR = before


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` with Numba on its first call: without the GIL, vectorised, cached on disk.

    Run-time type checkers wrap functions at import; Numba needs the bare one.
    """
    dispatcher = numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(inspect.unwrap(function))
    _enable_cache(dispatcher)
    return dispatcher


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a helper that kernels call, inlined into each of them by LLVM."""
    return numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy", forceinline=True)(inspect.unwrap(function))


@intrinsic
def bits_to_float32(typing_context: Any, bits: Any) -> Any:
    """Reinterpret an int32 as a float32: an LLVM bitcast, which vectorises."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def float32_to_bits(typing_context: Any, value: Any) -> Any:
    """Reinterpret a float32 as an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


def _calm_openmp() -> None:
    """Keep torch's OpenMP threads from occupying the cores that our threads need; runs once, on one of ours.

    GNU OpenMP's threads wait for the next region in a busy loop of milliseconds, and would do so beside every kernel
    that follows a matrix product. They yield at once where OpenMP manages more threads than there are cores, which a
    region of two threads (two grains of 32,768 elements) on a second thread brings about. The environment's
    GOMP_SPINCOUNT would do the same, but is read when torch is imported.
    """
    torch.ones(2**16).add_(1.0)


class _Threads:
    """The process's worker threads, made when first needed and made anew in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = -1
        self._size = 0
        self._pool: ThreadPoolExecutor | None = None

    def pool(self, size: int) -> ThreadPoolExecutor:
        """Return an executor of at least `size` threads that belong to this process."""
        with self._lock:
            if self._pool is None or self._process != os.getpid() or self._size < size:
                self._pool = ThreadPoolExecutor(size, thread_name_prefix="mamba_kernels")
                self._pool.submit(_calm_openmp).result()
                self._process, self._size = os.getpid(), size
            return self._pool


_threads = _Threads()
reuse_small_blocks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.__init__)  # the parent may have held the lock at the fork


def parallel_for(function: Callable[..., Any], n_tasks: int, *arguments: Any) -> None:
    """Run `function(lo, hi, *arguments)` over `range(n_tasks)`, split evenly over `torch.get_num_threads()` threads.

    `function` must release the GIL (see `kernel`) and give the same result however the range is split. The calling
    thread takes the first share. Safe to call from several threads at once and after a fork.
    """
    threads = min(n_tasks, torch.get_num_threads())
    if threads <= 1:
        function(0, n_tasks, *arguments)
        return
    bounds = [n_tasks * i // threads for i in range(threads + 1)]
    pool = _threads.pool(threads - 1)
    others: list[Future[Any]] = [pool.submit(function, lo, hi, *arguments) for lo, hi in itertools.pairwise(bounds[1:])]
    try:
        function(bounds[0], bounds[1], *arguments)
    finally:
        wait(others)
    for other in others:
        other.result()
