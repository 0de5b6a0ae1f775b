"""Images to predict, what predict wrote, and fixtures that run it with a model whose masks are known."""

import csv
from pathlib import Path

import mistakes
import numpy as np
import pytest
import small
from fake_predictor import FakePredictor
from PIL import Image

from tunevlseg_jax import predict
from tunevlseg_jax import run as runs
from tunevlseg_jax.data.preprocessing import AS_THEY_ARE
from tunevlseg_jax.prediction import table
from tunevlseg_jax.training import precision


def save(path: str, *corners: tuple[int, int, int], size: tuple[int, int] = (6, 8)) -> np.ndarray:
    """Saves a black image with single pixels of these colours on the diagonal, two pixels apart."""
    image = np.zeros((*size, 3), np.uint8)
    for number, colour in enumerate(corners):
        image[2 * number, 2 * number] = colour
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def mask(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def rows(path: str = f"out/{table.LIST_FILE}") -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


RED, GREEN, GREY = (255, 0, 0), (0, 255, 0), (160, 160, 160)


@pytest.fixture
def predictor(monkeypatch, tmp_path) -> FakePredictor:
    """The model of every run; the current folder is empty."""
    fake = FakePredictor()

    class Run:
        predictor, preprocessing, computed = fake, AS_THEY_ARE, precision.choose("float32", "cpu", 64)
        masks = "semantic"

    monkeypatch.setattr(runs, "load_run", lambda folder, checkpoint, masks: Run())
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def run(monkeypatch, predictor, capsys):
    """Runs the command, and returns what it printed."""

    def command(*options: object, fails: str | None = None) -> str:
        if "--run" not in options:
            options = ("--run", "runs/one", *options)
        if fails is None:
            small.run(monkeypatch, predict.main, *options)
        else:
            with pytest.raises(SystemExit, match="2"):
                small.run(monkeypatch, predict.main, *options)
        out, err = capsys.readouterr()
        if fails is not None:
            mistakes.check_line(err, fails)
        return out

    return command
