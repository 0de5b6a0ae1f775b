"""The host's memory: what a step's temporaries leave, kept for the next step."""

from __future__ import annotations

import ctypes
import sys

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8
"""Of glibc's mallopt(3)."""


def keep_freed() -> None:
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
