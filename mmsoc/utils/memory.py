"""Memory of a process on a CPU."""

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensor instead of returning it to the system.

    By default glibc maps each block of more than 32 MB separately and unmaps it when it is freed, so that the system clears
    every page of every large tensor again. docs/benchmarks.md gives the cost for a training step on a CPU. This affects
    the whole process.

    Returns:
        Whether it took effect; False where the C library is not glibc.
    """
    if not sys.platform.startswith('linux'):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, 'gnu_get_libc_version'):
        return False
    return bool(library.mallopt(_M_MMAP_THRESHOLD, _LARGEST) and library.mallopt(_M_TRIM_THRESHOLD, _LARGEST))
