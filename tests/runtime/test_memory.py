"""Tests of the peak memory of a process."""

import sys

import numpy as np
import pytest
import small

from tunevlseg_jax.runtime import memory

MIB = 2**20


def test_the_peak_counts_this_process_alone():
    """A process that a larger one starts is small, and the larger one's peak stays after it has freed its memory."""
    ballast = np.ones(500 * MIB, np.uint8)
    before = memory.process_peak()
    assert before > ballast.nbytes
    code = "from tunevlseg_jax.runtime import memory; print(memory.process_peak())"
    status, out, err = small.finish(small.start("-c", code))
    assert status == 0, err
    del ballast
    assert memory.process_peak() > before - 10 * MIB  # the kernel counts in batches
    if sys.platform.startswith("linux"):
        assert 10 * MIB < int(out) < before - 100 * MIB
    else:
        pytest.skip("only Linux tells a process's own peak")
