"""Keeping freed memory in the process: on Linux, large tensors otherwise cost more to allocate than to fill."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
REUSED_BLOCK, REUSED_TOTAL = 32 << 20, 256 << 20
"""Bytes: the largest block that the CPU kernels have reused, and how much freed memory may stay for that."""

_kept_everything = False


def reuse_small_blocks() -> bool:
    """Ask glibc to keep up to 256 MiB of freed blocks of up to 32 MiB, which an operator's tensors usually are.

    The CPU kernels ask for this once, when they are first used: their outputs otherwise fault in page by page at each
    call, as slowly as they are computed. Larger blocks go back to the system as before.

    Returns:
        Whether the allocator agreed; False where it is not glibc's.
    """
    if _kept_everything:
        return True
    return _set({M_MMAP_THRESHOLD: REUSED_BLOCK, M_TRIM_THRESHOLD: REUSED_TOTAL})


def keep_freed_memory() -> bool:
    """Ask glibc to reuse large freed blocks rather than hand them back to the system, for the rest of the process.

    By default each tensor of more than a few MB is mapped anew and every one of its pages faults in on first touch;
    in a training step on the CPU that takes as long as a good part of the arithmetic. Peak memory stays the same, but
    memory once used is not returned before the process ends. For programs that own their process (a training run, a
    benchmark) to call at their start; importing this library never does it.

    Returns:
        Whether the allocator agreed; False where it is not glibc's.
    """
    global _kept_everything
    _kept_everything = _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})
    return _kept_everything


def _set(options: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in options.items())
