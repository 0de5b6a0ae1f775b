"""Strict settings for every test: the CPU, full precision, and no silent broadcasting between ranks."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported; set it to test another device

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture
def quick_compilation():
    """Leaves out most of XLA's optimizations: for tests that compile much and compute little."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# What a shell starts in the background ignores Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
