"""Tests of large sources: bounded memory, and nothing that loads after a kill at any moment."""

import random
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import small

from tunevlseg_jax.data import prepared

PEAK = """
import resource, sys
from tunevlseg_jax import cli, prepare
try:
    cli.run(prepare.main)
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform == "darwin" else 1024))
"""
"""Runs prepare and prints the largest memory that it used, on Linux in MiB."""
MEGAPIXELS = 12


def write_source(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Photographs of noise that doesn't compress well, with a mask each."""
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8), size[::-1])
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 3, : size[1] // 2] = 255
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / "images" / f"{number:04}.jpg"), np.roll(noise, 3 * number, 1))
        cv2.imwrite(str(folder / "masks" / f"{number:04}.png"), np.roll(mask, number, 1))
    return folder


def arguments(source: Path, output: Path) -> tuple[object, ...]:
    return "folder", "--name", "mine", "--source", source, "--prompt", "box", "--output", output


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_photographs(tmp_path):
    """Sixteen photographs of 12 megapixels take at most two decoded ones more than four do."""
    peaks = []
    for count in (4, 16):
        source = write_source(tmp_path / f"{count}", count, (3000, 4000))
        process = small.start("-c", PEAK, *arguments(source, tmp_path / f"data{count}"))
        status, out, err = small.finish(process)
        assert status == 0, err
        peaks.append(int(out.split("peak ")[1]))
    assert peaks[1] - peaks[0] < 2 * 3 * MEGAPIXELS, peaks


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
