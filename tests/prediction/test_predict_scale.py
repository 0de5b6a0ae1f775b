"""Tests of predict on many images: what it holds of each, and nothing half written after a kill."""

import random
import signal
import time
import tracemalloc
from pathlib import Path

import cv2
import large_files
import numpy as np
import predicted
import pytest
import small
from predicted import RED, rows, save

from tunevlseg_jax.prediction import planning, table, walk
from tunevlseg_jax.prediction.planning import Settings
from tunevlseg_jax.prediction.session import Session

predictor = predicted.predictor


def held(predictor, count: int) -> int:
    """The bytes of Python and NumPy that are still held after the prediction of so many images."""
    output = Path(f"out{count}")
    for number in range(count):
        save(f"in{count}/{number}.png", RED)
    tracemalloc.start()
    try:
        masks, maps = table.masks_of(output), table.label_maps_of(output)
        found, _ = walk.find([f"in{count}"], recursive=False, output=output, ours=())
        settings = Settings(("red",), 0.5, "runs/one", "f" * 12, output)
        session = Session(predictor, settings, masks, maps)
        written = sum(1 for _ in session.run(planning.plan(found, settings, masks, maps)))
        assert written == count
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_an_image_that_is_done_is_a_row_of_a_table(predictor):
    held(predictor, 1)  # what the first call of each function keeps
    assert held(predictor, 130) - held(predictor, 30) < 100 * 6000


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_only_whole_masks(tmp_path):
    """Each mask that is there has its row and is whole, and the same command predicts the rest."""
    source = large_files.write_source(tmp_path / "source", 60, (150, 200)) / "images"
    output, rng, killed = tmp_path / "out", random.Random(0), 0
    command = ("--run", small.finished(), "--image", source, "--prompt", "seven", "--output", output, "--probabilities")
    while True:
        process = small.start("-m", "tunevlseg_jax.predict", *command)
        there = len(list(output.glob("*_mask.png")))
        while process.poll() is None and len(list(output.glob("*_mask.png"))) == there < 60:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        if killed < 2:
            process.kill()
        status, _, err = small.finish(process)
        masks = {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in output.glob("*_mask.png")}
        assert all(mask.shape == (150, 200) and set(np.unique(mask)) <= {0, 255} for mask in masks.values())
        written = {
            row["mask"]: int(row["pixels"]) for row in rows(str(output / table.LIST_FILE)) if row["mask"] in masks
        }
        assert written == {name: int((mask > 0).sum()) for name, mask in masks.items()}
        if status != -signal.SIGKILL:
            break
        killed += 1
    assert status == 0, err
    assert killed == 2 and len(masks) == 60
