"""Tests of the COCO file of `predict`: pycocotools and `prepare folder` read the masks back to the pixel."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from annotation_scene import SIZE, brushes, masks, read
from fake_downloads import photo, save
from mistakes import raises
from pycocotools.coco import COCO

from tunevlseg_jax.prediction.coco import FILE, CocoFile
from tunevlseg_jax.prediction.exports import Prediction
from tunevlseg_jax.prediction.frames import Frame, Opened


def prediction(path: Path, prompt: str, mask: np.ndarray, number: int | None = None) -> Prediction:
    opened = Opened(path, lambda: iter(()))
    return Prediction(opened, Frame(number, np.zeros((*mask.shape, 3), np.uint8)), prompt, mask, path.stem, {})


def write(output: Path, *predictions: Prediction) -> None:
    file = CocoFile(output)
    for each in predictions:
        file.add(each)
    file.close(output)


@pytest.fixture
def images(tmp_path) -> list[Path]:
    paths = [tmp_path / "images" / f"im{number}.png" for number in range(3)]
    for path in paths:
        save(path, photo(np.random.default_rng(0), SIZE))
    return paths


def test_masks_come_back_to_the_pixel(tmp_path, images, capsys):
    asked = [(path, n, label) for n, path in enumerate(images[:2]) for label in ("wound", "vein")]
    write(tmp_path, *[prediction(path, label, brushes(n)[label]) for path, n, label in asked])
    _, items = read(tmp_path, format="coco")
    for number, key in enumerate(("im0", "im1")):
        for label, pixels in brushes(number).items():
            np.testing.assert_array_equal(masks(items[key])[label], pixels)
    coco = COCO(str(tmp_path / FILE))
    with warnings.catch_warnings(action="ignore"):  # of NumPy 2
        first = coco.loadAnns(1)[0]
        np.testing.assert_array_equal(coco.annToMask(first) > 0, brushes(0)["wound"])
    rows, columns = np.nonzero(brushes(0)["wound"])
    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert first["area"] == brushes(0)["wound"].sum() and first["bbox"] == box and capsys.readouterr()


def test_a_second_call_keeps_other_masks_and_replaces_its_own(tmp_path, images):
    wound, vein = brushes(0)["wound"], brushes(0)["vein"]
    write(tmp_path, prediction(images[0], "wound", wound), prediction(images[1], "wound", wound))
    write(tmp_path, prediction(images[0], "vein", vein), prediction(images[1], "wound", vein))
    _, items = read(tmp_path, format="coco")
    np.testing.assert_array_equal(masks(items["im0"])["wound"], wound)
    np.testing.assert_array_equal(masks(items["im0"])["vein"], vein)
    np.testing.assert_array_equal(masks(items["im1"])["wound"], vein)
    ids = [one["id"] for one in json.loads((tmp_path / FILE).read_text())["annotations"]]
    assert len(set(ids)) == len(ids) == 3


def test_an_empty_mask_is_an_image_without_annotation(tmp_path, images):
    write(tmp_path, prediction(images[0], "wound", brushes(0)["wound"]))
    write(
        tmp_path,
        prediction(images[0], "wound", np.zeros(SIZE, bool)),
        prediction(images[1], "vein", brushes(0)["vein"]),
    )
    content = json.loads((tmp_path / FILE).read_text())
    assert [image["file_name"] for image in content["images"]] == [path.as_posix() for path in images[:2]]
    assert [one["image_id"] for one in content["annotations"]] == [content["images"][1]["id"]]


def test_frames_have_names_of_their_own(tmp_path):
    write(tmp_path, *[prediction(Path("clip.mp4"), "wound", brushes(0)["wound"], n) for n in (1, 2)])
    content = json.loads((tmp_path / FILE).read_text())
    assert [image["file_name"] for image in content["images"]] == ["clip_000001.png", "clip_000002.png"]


@pytest.mark.parametrize("text", ['{"images": []}', '{"images": [1], "categories": [], "annotations": []}'])
def test_another_file_of_the_name_is_kept(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    with raises(rf"other-folder: {FILE}"):
        CocoFile(tmp_path)
    assert (tmp_path / FILE).read_text() == text
