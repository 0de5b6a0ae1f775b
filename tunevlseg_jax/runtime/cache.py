"""The user's cache folder: what can be made again, kept so that it needn't be."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = "TUNEVLSEG_CACHE"
PROGRAMS_BYTES = 2 * 2**30
"""What compiled programs may take; the least recently used ones go."""
WORTH_KEEPING = 0.5
"""Seconds of compilation from which a program is kept."""


def folder() -> Path:
    """`$TUNEVLSEG_CACHE`, or where the system keeps a user's caches."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else platformdirs.user_cache_path("tunevlseg_jax")


def enable_compilation_cache() -> None:
    """Has jax keep what it compiles, and find it again in a later process.

    Where jax was told another folder already, that one stays; where none can be written to, nothing is kept.
    """
    programs = folder() / "programs"
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    try:
        programs.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(programs, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(programs))
        jax.config.update("jax_compilation_cache_max_size", PROGRAMS_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


def disable_compilation_cache() -> None:
    """Has jax keep nothing of what this process compiles from now on."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # jax looks at the setting once
