"""How this process treats its machine: freed memory, cores that have to wait, threads that a fork leaves behind."""

import ctypes
import os
import sys
import warnings
from contextlib import suppress
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h
_SPINS = "2000"  # some microseconds, about what a step between two meetings of a network's threads may differ by


_threads_started = _threads_lost = False


def _after_fork() -> None:
    global _threads_lost
    _threads_lost = _threads_lost or _threads_started or "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def usable_threads(wanted: int | None) -> int | None:
    """Return how many threads torch or GDAL may use: as many as wanted, None for all; but 1 where they would hang.

    A fork copies no threads but the one that forks. torch and GDAL keep theirs for the next call, and would wait for
    them in the child without end; with one thread they ask for none.
    """
    global _threads_started
    _threads_started = True
    if not _threads_lost or wanted == 1:
        return wanted
    _tell()
    return 1


def limit_torch(threads: int | None) -> None:
    """Have torch use so many threads; None changes nothing."""
    if threads:
        import torch

        torch.set_num_threads(usable_threads(threads) or threads)


@cache
def _tell() -> None:
    warnings.warn(
        "this process was forked from one in which ksdiff or torch had worked: it can use one thread only; for all, "
        "start processes by multiprocessing.get_context('spawn')",
        RuntimeWarning,
        stacklevel=3,
    )


def keep_freed_memory() -> None:
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
