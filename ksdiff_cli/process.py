"""How this process treats its machine: what it does with memory that it frees, and with cores that have to wait."""

import ctypes
import os
import sys
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h
_SPINS = "2000"  # some microseconds, about what a step between two meetings of a network's threads may differ by


def reuse_memory() -> None:
    """Keep freed memory for the next window; only glibc is told, for the whole process.

    By itself glibc returns what is larger than 32 MB to the system at once (128 kB under Dask's nanny, which sets
    MALLOC_TRIM_THRESHOLD_), and clearing the pages for
    the next window takes a fifth of a scene's CPU time.
    One arena for all threads: what one thread has freed another one can take.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            allocator = ctypes.CDLL(None)
            for name, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_MAX, 0), (_ARENA_MAX, 1)):
                allocator.mallopt(name, value)


def wait_quietly() -> None:
    """Let torch's threads sleep when they wait for each other; only before torch is loaded, unless the user chose.

    Waiting busily, as they do by themselves for milliseconds, they take the cores from the threads that read and write,
    and from whatever else runs: beside two other programs an image took ten times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
