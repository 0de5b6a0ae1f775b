"""Huge pages for the memory of a CPU's steps, which glibc asks for only if told before the process starts."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
VARIABLE = "GLIBC_TUNABLES"
SETTING = "glibc.malloc.hugetlb"
"""See "Memory Allocation Tunables" in glibc's manual; older versions than 2.35 ignore it."""


def restart_command() -> None:
    """Restarts a `python -m` command with glibc asking for huge pages; returns where that is no use, or was done.

    A training step writes gigabytes of fresh memory. In pages of 4 KiB each needs a page fault, which takes a tenth to
    a fifth of a CPU's step; pages of 2 MiB need hardly any. Must be called before anything else is imported.
    """
    environment = with_huge_pages(os.environ)
    if environment is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def with_huge_pages(environment: Mapping[str, str], mode: Path = MODE) -> dict[str, str] | None:
    """The environment with the setting; None if it has one, or if the system gives huge pages always or never."""
    given = environment.get(VARIABLE, "")
    if SETTING in given or "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return None
    try:
        on_request = "[madvise]" in mode.read_text()
    except OSError:  # not Linux, or a kernel without them
        return None
    if not on_request:
        return None
    return {**environment, VARIABLE: ":".join(filter(None, (given, f"{SETTING}=1")))}


def without_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what `with_huge_pages` adds, for a process of somebody else's program."""
    kept = [setting for setting in environment.get(VARIABLE, "").split(":") if setting not in ("", f"{SETTING}=1")]
    others = {name: value for name, value in environment.items() if name != VARIABLE}
    return {**others, VARIABLE: ":".join(kept)} if kept else others
