"""The benchmark's peer: a process of its own, as people run it."""

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import small

from tunevlseg_jax.benchmarks import peer
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.huge_pages import VARIABLE

IMAGES = np.zeros((2, small.IMAGE, small.IMAGE, 3), np.uint8)
TOKENS = np.ones((1, small.CONTEXT), np.int32)


def started() -> contextlib.AbstractContextManager:
    return peer.forwards(load_pretrained(str(small.model_folder())).config, IMAGES, TOKENS)


def children() -> list[int]:
    return [int(number) for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.mark.slow
def test_the_peer_runs_in_both_precisions_without_our_huge_pages_and_ends(monkeypatch):
    monkeypatch.setenv(VARIABLE, "glibc.malloc.hugetlb=1")
    before = children()
    with started() as runs:
        (process,) = set(children()) - set(before)
        assert VARIABLE not in Path(f"/proc/{process}/environ").read_text()
        assert set(runs) == {"float32", "autocast"}
        for run in (*runs.values(), *runs.values()):
            run()
    assert children() == before


@pytest.mark.slow
def test_a_peer_that_ends_is_an_error_of_one_line():
    before = children()
    with (
        pytest.raises(UserError, match="--peer transformers: its process ended"),
        started() as runs,
    ):
        (process,) = set(children()) - set(before)
        os.kill(process, signal.SIGKILL)
        runs["float32"]()
