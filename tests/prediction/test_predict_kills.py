"""Tests of predict that is killed at random moments: what is there is whole, and the same command goes on."""

import csv
import random
import signal
import time
from pathlib import Path

import cv2
import large_files
import numpy as np
import pytest
import small
from test_frames import save_video
from test_volumes import OBLIQUE, write_volume

from tunevlseg_jax.prediction import table, volumes
from tunevlseg_jax.runtime.optional import import_simpleitk

KILLS = 2
SIZE = (150, 200)


def images(source: Path) -> tuple[tuple[object, ...], int]:
    """A folder of images; the options, and the number of masks."""
    return (large_files.write_source(source, 60, SIZE) / "images", "--probabilities"), 60


def video(source: Path) -> tuple[tuple[object, ...], int]:
    source.mkdir()
    rng = np.random.default_rng(0)
    save_video(str(source / "clip.avi"), list(rng.integers(0, 256, (30, *SIZE, 3), np.uint8)), "FFV1")
    return (source / "clip.avi", "--frames", "all"), 30


def scans(source: Path) -> tuple[tuple[object, ...], int]:
    """A folder of oblique volumes."""
    source.mkdir()
    for number in range(12):
        write_volume(str(source / f"{number}.nii.gz"), OBLIQUE)
    return (source, "--probabilities"), 12


def listed(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def masks(output: Path) -> dict[str, np.ndarray]:
    """The masks that are there, of images or volumes; each must decode, be whole and have its row."""
    sitk, found, marked = import_simpleitk("a test"), {}, {}
    for path in output.rglob("[!.]*"):
        if path.name.endswith(".nii.gz"):
            values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            assert values.shape == (3, 5, 7)
        elif path.suffix == ".png":
            values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert values is not None and values.shape[:2] == SIZE, path
        elif path.suffix == ".mp4":
            assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 30
            continue
        else:
            assert path.is_dir() or path.name in (table.LIST_FILE, volumes.TABLE_FILE), path
            continue
        if "_mask." in path.name:
            assert values.dtype == np.uint8 and set(np.unique(values)) <= {0, values.max()}
            found[path.relative_to(output).as_posix()] = values
    for name, column in ((table.LIST_FILE, "pixels"), (volumes.TABLE_FILE, "voxels")):
        rows = [row for row in listed(output / name) if row["mask"] in found]
        marked |= {row["mask"]: int(row[column]) for row in rows}  # the last row counts
    assert marked == {name: int(np.count_nonzero(values)) for name, values in found.items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [images, video, scans])
def test_a_kill_leaves_only_whole_masks(tmp_path, inputs):
    """Each process is killed soon after it has written a file."""
    (given, *options), count = inputs(tmp_path / "source")
    output, rng, killed = tmp_path / "out", random.Random(0), 0
    asked = ("--run", small.finished(), "--image", given, "--prompt", "seven", "--output", output, *options)
    while True:
        process = small.start("-m", "tunevlseg_jax.predict", *asked)
        before = sorted(output.rglob("[!.]*_mask.*"))
        while process.poll() is None and killed < KILLS and sorted(output.rglob("[!.]*_mask.*")) == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        if killed < KILLS:
            process.kill()
        status, _, err = small.finish(process)
        found = masks(output)
        if status != -signal.SIGKILL:
            break
        killed += 1
    assert status == 0, err
    assert killed >= 1 and len(found) == count
    assert (output / "clip_overlay.mp4").exists() == (inputs is video)
