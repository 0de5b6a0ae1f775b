"""Strict settings for every test: the CPU, full precision, and no silent broadcasting between ranks."""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported; set it to test another device
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")  # by which "auto" is float32 on every CPU

import compilation
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

MAPS = Path("/proc/self/maps")
MOST_MAPS = 25_000


def pytest_configure(config: pytest.Config) -> None:
    """Makes the folder of the session; xdist's workers inherit its name, and share the compiled programs in it."""
    if not hasattr(config, "workerinput"):
        os.environ[compilation.VARIABLE] = folder = tempfile.mkdtemp(prefix="tunevlseg-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name, value in compilation.settings().items():
        jax.config.update(name, value)


@pytest.fixture(autouse=True)
def few_memory_maps() -> Iterator[None]:
    """Drops the compiled programs of earlier tests before their memory maps reach Linux's limit for a process.

    XLA ends the process at the limit, 65530 by default.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """For a test that compiles much and computes little."""
    with compilation.quick():
        yield


# What a shell starts in the background ignores Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
