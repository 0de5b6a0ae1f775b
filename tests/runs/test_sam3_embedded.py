"""The embedded SAM 3 as a user has it: trained, killed, on eight devices, evaluated, asked for absent things, shown."""

import csv
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import small
from numpy.testing import assert_allclose

from tunevlseg_jax import evaluate, predict, report

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sam3-tiny")]  # they share a run
quick_compilation = small.quick_compilation

SCENES = ("--data.scenes.train", 16, "--data.scenes.val", 8, "--data.scenes.test", 8)
SHORT = (*SCENES, "--train.batch-size", 8, "--train.epochs", 4)
TRAIN = ("-m", "tunevlseg_jax.train", "--config", small.ROOT / "configs" / "quickstart_sam3.py", *SHORT, "--workdir")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The quickstart with few scenes and epochs."""
    folder = tmp_path_factory.mktemp("sam3") / "run"
    status, out, err = small.finish(small.start(*TRAIN, folder), 600)
    assert (status, err) == (0, "") and "VPT on scenes/endoscopy" in out
    return folder


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(row["train"]["loss"], row["val"]["loss"]) for row in small.metrics(folder)]


def checkpoints(folder: Path) -> list[Path]:
    """Those that are whole."""
    return [path for path in (folder / "checkpoints").glob("*") if path.name.isdecimal()]


def test_it_learns(trained):
    assert losses(trained)[-1][0] < losses(trained)[0][0]


def test_killed_it_goes_on_to_the_same_bits(trained, tmp_path):
    process = small.start(*TRAIN, tmp_path / "run")
    while process.poll() is None and not checkpoints(tmp_path / "run"):
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert not (tmp_path / "run" / "results.json").exists(), "it wasn't killed in time"
    status, out, err = small.finish(small.start(*TRAIN, tmp_path / "run"), 600)
    assert (status, err) == (0, "") and "going on after " in out
    for name in ("prompts.safetensors", "results.json"):
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes()
    assert small.metrics(tmp_path / "run") == small.metrics(trained)


def test_eight_devices_give_the_losses_of_one(trained, tmp_path):
    flags = "--xla_force_host_platform_device_count=8"
    status, out, err = small.finish(small.start(*TRAIN, tmp_path / "run", XLA_FLAGS=flags), 600)
    assert (status, err) == (0, "") and "8 cpu devices" in out
    assert_allclose(losses(tmp_path / "run"), losses(trained), rtol=1e-4)


def test_its_scores_masks_and_report(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.run(monkeypatch, evaluate.main, "--run", trained, "--resolution", "original", "--ask-absent")
    (path,) = (trained / "evaluations").glob("*.json")
    scores = json.loads(path.read_text(encoding="utf-8"))
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 10  # every class of every scene
    assert scores["scores"]["dice"] == pytest.approx(np.mean([float(row["dice"]) for row in rows]), rel=1e-6)
    photo = np.random.default_rng(0).integers(0, 256, (150, 210, 3), np.uint8)
    cv2.imwrite("photo.png", photo)
    small.run(monkeypatch, predict.main, "--run", trained, "--image", "photo.png", "--prompt", "seven", "--output", "p")
    mask = cv2.imread("p/photo_mask.png", cv2.IMREAD_UNCHANGED)
    assert mask is not None and mask.shape == photo.shape[:2]
    small.run(monkeypatch, report.main, "--runs", trained, "--output", "report", "--samples", 0)
    assert "sam3-tiny" in Path("report/report.md").read_text(encoding="utf-8")
