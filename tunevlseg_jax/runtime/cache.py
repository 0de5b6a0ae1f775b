"""The user's cache folder, which holds compiled programs and resized data so that each is computed only once."""

import os
from pathlib import Path

import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = "TUNEVLSEG_CACHE"
PROGRAMS_BYTES = 2 * 2**30
"""Largest size of all cached programs; the least recently used ones are deleted."""
MIN_COMPILE_SECONDS = 0.5
"""Programs that compile faster than this are not cached."""


def folder() -> Path:
    """`$TUNEVLSEG_CACHE`, or the system's folder for a user's caches."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else platformdirs.user_cache_path("tunevlseg_jax")


def enable_compilation_cache() -> None:
    """Makes jax store compiled programs and reuse them in later processes.

    A compilation cache folder that jax has already stays in use. If the folder can't be written to, nothing is stored.
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
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)


def disable_compilation_cache() -> None:
    """Stops jax from storing the programs that this process compiles from now on."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # jax reads the setting only once
