"""Memory: peak use, and malloc settings that let training steps on the CPU reuse freed memory."""

import ctypes
import os
import re
import resource
import sys
from pathlib import Path

from tunevlseg_jax.runtime.lazy import jax

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8
"""Parameter numbers of glibc's mallopt(3)."""


def tune_malloc() -> None:
    """Makes glibc keep freed memory instead of returning it to the system; does nothing with other C libraries.

    A step on the CPU frees its temporaries, hundreds of megabytes for ten trials. If they were returned to the system,
    every step would fetch them again as zeroed pages, with one page fault each; on two cores this takes a fifth of the
    step's time.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((ARENA_MAX, 1), (MMAP_THRESHOLD, 2**30), (TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(option, value)


def release_freed() -> None:
    """Returns freed memory to the system once, with glibc; for a program's beginning, before its first step.

    Loading a model frees its weights in float32, which `tune_malloc` makes glibc keep. A step's temporaries of over 1
    GiB, `MMAP_THRESHOLD`'s highest value, never lie in what it keeps.
    """
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def available() -> int:
    """Bytes of the host's memory that programs can still have; on other systems than Linux all of its memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # with the part of the caches that Linux would drop
        line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """Peak memory in bytes: of this process's fullest device, or of the process if devices use the host's memory."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):
        return max(device["peak_bytes_in_use"] for device in stats if device)
    return process_peak()


def process_peak() -> int:
    """The largest resident set of this process in bytes, including code and libraries.

    Linux's /proc is asked first: there getrusage counts what the parent process held when it started this one.
    """
    status = Path("/proc/self/status")
    if status.exists() and (match := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(match[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
