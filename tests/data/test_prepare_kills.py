"""Tests of `prepare` that is killed at many random moments: the set isn't there, or is whole, and is then prepared."""

import json
import random
import time
from pathlib import Path

import cv2
import killed
import numpy as np
import pytest
from large_files import write_source

from tunevlseg_jax.data import prepared

KILLS = 12


def coco(source: Path) -> tuple[object, ...]:
    """Polygons in one file."""
    write_source(source, 150, (96, 128))
    names = sorted(path.name for path in (source / "images").iterdir())
    document = {
        "images": [{"id": n, "file_name": name, "height": 96, "width": 128} for n, name in enumerate(names)],
        "categories": [{"id": 1, "name": "box"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": [[9, 9, 60, 9, 60, 50 + n % 9]]}
            for n in range(len(names))
        ],
    }
    (source / "instances.json").write_text(json.dumps(document))
    return "folder", "--format", "coco", "--fractions", 1, 0, 0


def folder(source: Path) -> tuple[object, ...]:
    """Images and masks of 16 bits, which are read twice."""
    for kind, deep in (("images", True), ("masks", False)):
        (source / kind).mkdir(parents=True)
        for number in range(150):
            pixels = np.random.default_rng(number).integers(0, 4000, (60, 80), np.uint16)
            pixels = pixels if deep else (pixels > 2000).astype(np.uint8) * np.uint8(255)
            cv2.imwrite(str(source / kind / f"{number:03}.png"), pixels)
    return "folder", "--prompt", "x", "--fractions", 1, 0, 0


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "count"), [(folder, 150), (coco, 150)])
def test_killed_at_many_moments(tmp_path, layout, count):
    """One whole run says how long it takes; the others are killed within that time."""
    data, whole = tmp_path / "data", tmp_path / "whole"
    options = (*layout(tmp_path / "source"), "--name", "mine", "--source", tmp_path / "source", "--output")
    with killed.command("tunevlseg_jax.prepare", *options, whole) as command:
        start = time.monotonic()
        assert command.run() == 0
        seconds = time.monotonic() - start
    rng, kills = random.Random(0), 0
    with killed.command("tunevlseg_jax.prepare", *options, data) as command:
        for _ in range(KILLS):
            was_there = bool(prepared.names(data))
            status = command.run(rng.uniform(0, seconds))
            kills += status == -9
            is_there = prepared.names(data) == ("mine",)
            assert is_there or (status == -9 and not was_there and not prepared.names(data))
            assert (data / "mine").exists() == is_there
            if is_there:
                assert sum(1 for _ in prepared.load(data, "mine", "train")) == count
        assert command.run() == 0
    assert kills >= KILLS / 2
    assert [path.name for path in data.iterdir()] == ["mine"]
    ours, theirs = (prepared.load(root, "mine", "train") for root in (data, whole))
    assert list(ours) == list(theirs)
