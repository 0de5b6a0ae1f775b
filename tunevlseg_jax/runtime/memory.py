"""Memory: the most that was in use, and on the host what a step's temporaries leave, kept for the next step."""

from __future__ import annotations

import ctypes
import resource
import sys

import jax

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8
"""Of glibc's mallopt(3)."""


def tune_malloc() -> None:
    """Has the C library keep what is freed, where it is glibc.

    A step on the CPU frees its temporaries, hundreds of megabytes for ten trials. Given back to the system they come
    back as zeroed pages, one fault each, in every step; on two cores that takes a fifth of its time.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((ARENA_MAX, 1), (MMAP_THRESHOLD, 2**30), (TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(option, value)


def peak() -> int:
    """The most bytes that were ever in use: on the fullest device here, or by this process where devices use its own.

    A process's are what it held in memory, its code and libraries included.
    """
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):
        return max(one["peak_bytes_in_use"] for one in stats if one)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
