"""Tests of files that the tools' own libraries wrote; fixtures/annotations/README.md has the versions."""

import shutil

import numpy as np
import pytest
from annotation_scene import FIXTURES, assert_masks, assert_within_a_pixel, brushes, masks, polygons, read
from PIL import Image

TRAIN_AND_VAL = {"im0": ("train", "im0"), "im1": ("val", "im1")}


def truth(name: str) -> np.ndarray:
    return np.asarray(Image.open(FIXTURES / "truth" / f"{name}.png")) > 0


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("coco_polygons", polygons),
        ("coco_masks", brushes),
        ("cvat_polygons", polygons),
        ("cvat_masks", brushes),
        ("cvat_label_maps", brushes),
    ],
)
def test_datumaro_s_exports_are_read_to_the_pixel(folder, expected):
    annotated, items = read(FIXTURES / folder)
    assert sorted(items) == ["im0", "im1"] and "im2" in annotated.about
    assert items["im0"].splits == ("train",) and items["im1"].splits == ("val",)
    assert_masks(items, expected)
    records = items["im0"].load().records
    assert {record.label: record.prompts for record in records} == {"wound": {1: ("wound",)}, "vein": {1: ("vein",)}}


@pytest.mark.parametrize("folder", ["labelstudio", "labelstudio_min", "labelstudio_png"])
def test_label_studio_s_brushes_are_read_to_the_pixel(folder):
    _, items = read(FIXTURES / folder)
    assert len(items) == 2 and next(iter(items.values())).splits == ("train", "val", "test")
    for number, item in enumerate(items.values()):
        given = masks(item)
        for label, pixels in brushes(number).items():
            np.testing.assert_array_equal(given[label], pixels)


def test_label_studio_s_polygons_and_rectangles_are_in_percent():
    _, items = read(FIXTURES / "labelstudio")
    expected = polygons(0)["vein"].copy()
    expected[30:42, 8:28] = True  # x 10, y 50, width 25 and height 20 percent of 80 x 60
    np.testing.assert_array_equal(masks(items["im1"])["nerve"], expected)


def test_labelme_s_shapes_are_its_own_within_a_pixel():
    """im0 has a rectangle and a circle, im1 a mask, and its image lies in the file."""
    _, items = read(FIXTURES / "labelme")
    for number, key in enumerate(("im0", "im1")):
        given = masks(items[key])
        np.testing.assert_array_equal(given["wound"], polygons(number)["wound"])
        for label in ("wound", "vein"):
            assert_within_a_pixel(given[label], truth(f"labelme_{key}_{label}"))
    np.testing.assert_array_equal(masks(items["im1"])["vein"], truth("labelme_im1_vein"))
    image = items["im1"].load().image
    assert image.startswith(b"\x89PNG") and not (FIXTURES / "labelme" / "im1.png").exists()


def test_supervisely_s_bitmaps_are_exact_and_its_polygons_have_holes():
    _, items = read(FIXTURES / "supervisely")
    assert items["im0"].splits == ("train",) and items["im1"].splits == ("val",)
    for number, key in enumerate(("im0", "im1")):
        given = masks(items[key])
        np.testing.assert_array_equal(given["wound"], brushes(number)["wound"])
        assert_within_a_pixel(given["vein"], truth(f"supervisely_{key}_vein"))
        assert not given["vein"][34:36, 13:18].any()  # the hole


def test_supervision_s_yolo_labels_are_its_masks_within_a_pixel():
    annotated, items = read(FIXTURES / "yolo")
    assert sorted(items) == ["im0", "im1"] and "im2" in annotated.about  # an empty label file is a healthy image
    for number, key in enumerate(("im0", "im1")):
        given, expected = masks(items[key]), brushes(number)
        hole = np.s_[4:14, 7 + 3 * number : 15 + 3 * number]  # which the writer reaches by a cut from the edge
        given["wound"][hole] = expected["wound"][hole] = True
        for label in ("wound", "vein"):
            assert_within_a_pixel(given[label], expected[label])


@pytest.mark.parametrize("folder", sorted(path.name for path in FIXTURES.iterdir() if path.is_dir()))
def test_an_archive_is_read_as_its_folder(folder, tmp_path):
    if folder == "truth":
        pytest.skip("no export")
    zipped = shutil.make_archive(str(tmp_path / "export"), "zip", FIXTURES / folder)
    annotated, items = read(FIXTURES / folder)
    about, from_archive = read(tmp_path / "export.zip")
    assert about.about == annotated.about and items.keys() == from_archive.keys() and zipped


@pytest.mark.parametrize("folder", ["coco_masks", "cvat_polygons", "labelstudio", "yolo", "supervisely"])
def test_images_without_an_object_are_kept_if_asked(folder):
    about, items = read(FIXTURES / folder, negatives="keep")
    assert "1 without an object have an empty mask of each class" in about.about and len(items) == 3
    empty = masks(items["im2"])
    assert {"wound", "vein"} <= empty.keys() and not any(pixels.any() for pixels in empty.values())
    assert read(FIXTURES / folder)[1].keys() == {"im0", "im1"}
