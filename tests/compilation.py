"""Compilation in tests: shared programs, quick compilation, and counts of compilations."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax

VARIABLE = "TUNEVLSEG_TESTS"
"""The environment variable that names the folder of the session, for every process of it."""
QUICK = jax.make_user_context(False)
"""Keeps quick and full programs apart: jax would take either for the other while it is in memory."""


def session_folder() -> Path:
    """The folder that pytest's first process made (`conftest.py`)."""
    return Path(os.environ[VARIABLE])


def settings() -> dict[str, str | int | float]:
    """jax's settings that keep compiled programs; with a limit on their size, jax locks the folder while it writes."""
    return {
        "jax_compilation_cache_dir": str(session_folder() / "programs"),
        "jax_compilation_cache_max_size": 8 * 2**30,
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Compiles in a third of the time to slower programs, whose roundings differ; then everything is as before."""
    before = jax.config.values["jax_disable_most_optimizations"]
    apart = QUICK.get_global()
    jax.config.update("jax_disable_most_optimizations", True)
    QUICK.set_global(True)  # for all threads, as the setting is
    try:
        yield
    finally:
        QUICK.set_global(apart)
        jax.config.update("jax_disable_most_optimizations", before)


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the compilations of each jitted function within the block, by the function's name."""
    counts: Counter[str] = Counter()

    def count(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            counts[str(kwargs["fun_name"]).removeprefix("jit(").removesuffix(")")] += 1

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
