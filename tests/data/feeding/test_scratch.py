"""Tests of arrays in files without a name, also where the system can't reserve room for them."""

import os
import resource

import mistakes
import numpy as np
import pytest

from tunevlseg_jax.data.feeding import scratch as scratches
from tunevlseg_jax.data.feeding.scratch import scratch
from tunevlseg_jax.runtime import cache


@pytest.fixture(autouse=True, params=[True, False], ids=["reserved", "written"])
def system(request, monkeypatch, tmp_path):
    """One that has posix_fallocate, and one that hasn't, such as macOS."""
    if not request.param:
        monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))


def test_it_is_zeros_that_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(scratches, "CHUNK", 64)
    array = scratch((3, 7, 5), np.dtype(np.float32))
    assert array.shape == (3, 7, 5) and array.dtype == np.float32 and not array.any()
    array[:] = 1
    assert array.sum() == 105 and not list((tmp_path / "cache").iterdir())


def test_no_room_is_refused_at_once(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with mistakes.raises("unwritable: cache: "):
            scratch((3, 4096), np.dtype(np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "cache").iterdir())
