"""Tests of `predict` on a video and on volumes that is killed at random moments: each mask is whole and has its row."""

import csv
import random
import time
from pathlib import Path

import cv2
import killed
import numpy as np
import phantoms
import pytest
import small

from tunevlseg_jax.data.medical import slices, volume_files
from tunevlseg_jax.prediction import table, volumes

KILLS = 6
FRAMES = 40


def video(source: Path) -> list[object]:
    """A video of noise, all frames of which are asked for."""
    writer = cv2.VideoWriter(str(source / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 48))
    for number in range(FRAMES):
        writer.write(np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return ["--image", source / "clip.mp4", "--frames", "all"]


def scans(source: Path) -> list[object]:
    """Four volumes in unlike orientations."""
    for number in range(4):
        phantoms.write_nifti(source / f"case{number}.nii.gz", phantoms.phantom(number)[0], ("RAS", "PIR")[number % 2])
    return ["--image", source, "--probabilities"]


def masks(output: Path) -> dict[str, np.ndarray]:
    """The masks that are there, which are whole and in their table."""
    found = {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in output.glob("**/*_mask.png")}
    for path in output.glob("*_mask.nii.gz"):
        image = volume_files.read(path, path.name).image
        found[path.name] = slices.values(image).copy()
    rows = set()
    for name in (table.LIST_FILE, volumes.TABLE_FILE):
        if (output / name).exists():
            with (output / name).open(newline="", encoding="utf-8") as file:
                rows |= {Path(row["mask"]).name for row in csv.DictReader(file) if row["mask"]}
    assert found.keys() <= rows
    assert all(mask is not None and set(np.unique(mask)) <= {0, 1, 255} for mask in found.values())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "count"), [(video, FRAMES), (scans, 4)])
def test_killed_at_many_moments(tmp_path, layout, count):
    (tmp_path / "source").mkdir()
    asked = ["--run", small.finished(), "--prompt", "seven", *layout(tmp_path / "source"), "--output"]
    seconds = 0.0
    with killed.command("tunevlseg_jax.predict", *asked, tmp_path / "whole") as command:
        for _ in range(2):  # the second time the programs are compiled
            start = time.monotonic()
            assert command.run() == 0
            seconds = time.monotonic() - start
    whole, rng, kills = masks(tmp_path / "whole"), random.Random(0), 0
    assert len(whole) == count
    with killed.command("tunevlseg_jax.predict", *asked, tmp_path / "out") as command:
        for _ in range(KILLS):
            kills += command.run(seconds * rng.uniform(0.3, 1)) == -9
            assert masks(tmp_path / "out").keys() <= whole.keys()
        assert command.run() == 0
    assert kills >= KILLS / 2
    ours = masks(tmp_path / "out")
    assert ours.keys() == whole.keys()
    for name, mask in whole.items():
        np.testing.assert_array_equal(ours[name], mask, name)
