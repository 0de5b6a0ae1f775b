"""Tests of large sources: bounded memory, and nothing that loads after a kill at any moment."""

import random
import signal
import time
from pathlib import Path

import large_files
import pytest
import small
from large_files import write_source

from tunevlseg_jax.data import prepared

MEGAPIXELS = 12


def arguments(source: Path, output: Path) -> tuple[object, ...]:
    return "folder", "--name", "mine", "--source", source, "--prompt", "box", "--output", output


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_photographs(tmp_path):
    """Sixteen photographs of 12 megapixels take at most two decoded ones more than four do."""
    peaks = []
    for count in (4, 16):
        source = write_source(tmp_path / f"{count}", count, (3000, 4000))
        peaks.append(large_files.peak("tunevlseg_jax.prepare", *arguments(source, tmp_path / f"data{count}")))
    assert peaks[1] - peaks[0] < 2 * 3 * MEGAPIXELS * 10**6, peaks


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_nothing_that_loads(tmp_path):
    """The set isn't there or is whole, and the same command then prepares it."""
    source, data = write_source(tmp_path / "source", 400, (96, 128)), tmp_path / "data"
    rng = random.Random(0)
    for _ in range(4):
        process = small.start("-m", "tunevlseg_jax.prepare", *arguments(source, data))
        while process.poll() is None and not (data / ".mine.incomplete").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        if small.finish(process)[0] == -signal.SIGKILL:
            assert prepared.names(data) == () and not (data / "mine").exists()
        else:
            assert prepared.names(data) == ("mine",)
            break
    status, _, err = small.finish(small.start("-m", "tunevlseg_jax.prepare", *arguments(source, data)))
    assert status == 0, err
    assert sum(len(list(prepared.load(data, "mine", split))) for split in prepared.SPLITS) == 400
    assert [path.name for path in data.iterdir()] == ["mine"]
