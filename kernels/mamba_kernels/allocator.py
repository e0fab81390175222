"""Keeping freed memory in the process: on Linux, large tensors otherwise cost more to allocate than to fill."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Ask glibc to reuse large freed blocks rather than hand them back to the system, for the rest of the process.

    By default each tensor of more than a few MB is mapped anew and every one of its pages faults in on first touch;
    in a training step on the CPU that takes as long as a good part of the arithmetic. Peak memory stays the same, but
    memory once used is not returned before the process ends. For programs that own their process (a training run, a
    benchmark) to call at their start; importing this library never does it.

    Returns:
        Whether the allocator agreed; False where it is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
