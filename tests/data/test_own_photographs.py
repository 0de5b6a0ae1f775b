"""The whole path over photographs as cameras write them: prepare, check, train, evaluate at their sizes, predict."""

import csv
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import small
from fake_downloads import save
from PIL import Image
from rich.console import Console

from tunevlseg_jax import evaluate, predict, prepare
from tunevlseg_jax.runs import trainer

quick_compilation = small.quick_compilation
SIZES = ((1200, 900), (900, 1200), (3648, 5472), (5472, 3648), (1024, 1024), (2000, 3000), (800, 1600), (1300, 1000))
"""(height, width), 1 to 20 megapixels."""


def write(folder: Path) -> dict[str, tuple[int, int]]:
    """Photographs of a bright box: JPEG, grey, RGBA, or stored on their side; the (height, width) of each."""
    rng = np.random.default_rng(0)
    sizes = {}
    for number, (height, width) in enumerate(SIZES):
        name = f"é {number}"
        sizes[name] = (height, width)
        coarse = rng.integers(0, 128, (height // 100, width // 100, 3), np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 2, width // 4 : width // 2] = 255
        image[mask > 0] = 255
        save(folder / "masks" / f"{name}.png", mask)
        if number % 4 == 0:
            save(folder / "images" / f"{name}.jpg", image)
        elif number % 4 == 1:
            save(folder / "images" / f"{name}.jpeg", image[..., 0])
        elif number % 4 == 2:
            save(folder / "images" / f"{name}.png", np.dstack([image, mask | 128]))
        else:
            exif = Image.Exif()
            exif[0x0112] = 6  # to be turned clockwise
            Image.fromarray(np.rot90(image)).save(folder / "images" / f"{name}.jpg", exif=exif)
    return sizes


@pytest.mark.slow
def test_photographs_from_the_folder_to_masks(monkeypatch, tmp_path):
    sizes = write(tmp_path / "photos")
    folder = ["--name", "photos", "--source", tmp_path / "photos", "--output", tmp_path / "data", "--prompt", "wound"]
    small.run(monkeypatch, prepare.main, "folder", *folder, "--fractions", 0.5, 0.25, 0.25)
    small.run(monkeypatch, prepare.main, "check", "photos", "--root", tmp_path / "data")
    config = small.config(tmp_path / "run")
    data = dataclasses.replace(config.data, name="photos", root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    results = trainer.train(dataclasses.replace(config, data=data), Console(quiet=True))
    assert set(results["tuned"]) == {"val", "test"}
    small.run(monkeypatch, evaluate.main, "--run", tmp_path / "run", "--resolution", "original")
    (scores,) = (tmp_path / "run" / "evaluations").glob("photos_test_original.json")
    assert json.loads(scores.read_text())["records"] == 2
    with scores.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2
    images = [tmp_path / "photos" / "images", "--prompt", "wound", "--output", tmp_path / "out"]
    small.run(monkeypatch, predict.main, "--run", tmp_path / "run", "--image", *images)
    for name, size in sizes.items():
        with Image.open(tmp_path / "out" / f"{name}_mask.png") as mask:
            assert mask.size == size[::-1]
