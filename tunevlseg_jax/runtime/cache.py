"""The user's cache folder, which holds compiled programs and resized data so that each is computed only once."""

import os
from pathlib import Path

import platformdirs

from tunevlseg_jax.runtime import lazy
from tunevlseg_jax.runtime.lazy import jax

VARIABLE = "TUNEVLSEG_CACHE"
FOLDER = "jax_compilation_cache_dir"
"""Name of jax's setting, and in capitals of the environment variable that it is read from."""
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

    It doesn't load jax, which reads these settings from the environment when it loads. A compilation cache folder that
    jax has already stays in use. If the folder can't be written to, nothing is stored.
    """
    programs = folder() / "programs"
    is_loaded = lazy.is_loaded("jax")
    if jax.config.values[FOLDER] is not None if is_loaded else FOLDER.upper() in os.environ:
        return
    try:
        programs.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(programs, os.W_OK):
        settings = {
            FOLDER: str(programs),
            "jax_compilation_cache_max_size": PROGRAMS_BYTES,
            "jax_persistent_cache_min_compile_time_secs": MIN_COMPILE_SECONDS,
        }
        for name, value in settings.items():
            if is_loaded:
                jax.config.update(name, value)
            else:
                os.environ[name.upper()] = str(value)


def disable_compilation_cache() -> None:
    """Stops jax from storing the programs that this process compiles from now on."""
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # jax reads the setting only once
