"""Tests of formats without a library that writes them, and of files that pycocotools reads: pixels are exact."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from annotation_scene import SIZE, assert_masks, brushes, masks, points, polygons, read
from fake_downloads import photo, save
from pycocotools import mask as coco
from pycocotools.coco import COCO


def write_image(path: Path) -> None:
    save(path, photo(np.random.default_rng(0), SIZE))


def star(rng: np.random.Generator) -> list[float]:
    """A polygon in fractions of a pixel, part of which may lie outside of its image; x and y in turn."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(2, 25, (9, 1))
    around = rng.uniform((5, 5), (SIZE[1] - 5, SIZE[0] - 5))
    return (around + radii * np.stack([np.cos(angles), np.sin(angles)], 1)).ravel().round(2).tolist()


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_coco_s_three_encodings_are_those_of_pycocotools(tmp_path, capsys):
    """Polygons of several parts, compressed run lengths, and the uncompressed ones of crowds."""
    rng = np.random.default_rng(1)
    blobs = [cv2.resize(rng.integers(0, 2, (8, 9), np.uint8), SIZE[::-1], interpolation=0) for _ in range(8)]
    compressed = [coco.encode(np.asfortranarray(blob)) for blob in blobs]
    segmentations: list[object] = [[star(rng), star(rng)] for _ in range(8)]
    segmentations += [{"size": list(SIZE), "counts": one["counts"].decode()} for one in compressed]
    for blob in blobs:
        changes = np.flatnonzero(np.diff(blob.ravel("F"), prepend=0))
        segmentations.append({"size": list(SIZE), "counts": np.diff(np.r_[0, changes, blob.size]).tolist()})
    document = {
        "images": [{"id": n, "file_name": f"im{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in range(4)],
        "categories": [{"id": 9, "name": "wound"}, {"id": 4, "name": "vein"}],
        "annotations": [
            {"id": n, "image_id": n % 4, "category_id": (4, 9)[n // 4 % 2], "segmentation": one, "iscrowd": n // 16}
            for n, one in enumerate(segmentations)
        ],
    }
    for number in range(4):
        write_image(tmp_path / f"im{number}.png")
    (tmp_path / "all.json").write_text(json.dumps(document))
    theirs, (_, items) = COCO(tmp_path / "all.json"), read(tmp_path)
    capsys.readouterr()
    for number in range(4):
        given = masks(items[f"im{number}"])
        for category, label in ((9, "wound"), (4, "vein")):
            found = theirs.loadAnns(theirs.getAnnIds(number, category))
            assert len(found) == 3
            expected = np.any([theirs.annToMask(one) for one in found], 0)
            np.testing.assert_array_equal(given[label], expected, f"{label} of image {number}")


def test_folders_of_instances_as_in_the_data_science_bowl(tmp_path):
    """stage1_train/ID/images/ID.png and stage1_train/ID/masks/*.png, whose objects touch; stage1_test has no masks."""
    objects = {key: np.random.default_rng(number).integers(0, 4, SIZE) for number, key in enumerate(("a1", "b2"))}
    for key, labels in objects.items():
        write_image(tmp_path / "stage1_train" / key / "images" / f"{key}.png")
        for value in (1, 2, 3):
            mask = (labels == value) * np.uint8(255)
            save(tmp_path / "stage1_train" / key / "masks" / f"{key}{value}0f.png", mask)
    write_image(tmp_path / "stage1_test" / "c3" / "images" / "c3.png")
    annotated, items = read(tmp_path, prompt=("a nucleus",))
    assert sorted(items) == ["a1", "b2"] and "c3" in annotated.about
    for key, labels in objects.items():
        assert masks(items[key]).keys() == {"a nucleus"}
        np.testing.assert_array_equal(masks(items[key])["a nucleus"], labels > 0)


def test_palette_masks_of_labelme2voc(tmp_path):
    """class_names.txt lists __ignore__ first, which is 255 in the maps, and _background_ second, which is 0."""
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\nwound\nvein\n")
    for number in range(2):
        labels = np.zeros(SIZE, np.uint8)
        labels[brushes(number)["wound"]], labels[brushes(number)["vein"]] = 1, 2
        labels[55:, 70:] = 255
        write_image(tmp_path / "JPEGImages" / f"im{number}.jpg")
        save(tmp_path / "SegmentationClass" / f"im{number}.png", labels)
    _, items = read(tmp_path)
    assert_masks(items, brushes)


def test_yolo_labels_as_ultralytics_describes_them(tmp_path):
    """Fractions of width and height, an object a line, in labels/SPLIT/a.txt beside images/SPLIT/a.jpg."""
    (tmp_path / "data.yaml").write_text(
        "path: ../datasets/mine\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: wound\n  1: vein\n"
    )
    for number, split in enumerate(("train", "val")):
        write_image(tmp_path / "images" / split / f"im{number}.jpg")
        lines = [
            " ".join([str(value), *(f"{one:.6f}" for one in (np.asarray(ring) / SIZE[::-1]).ravel())])
            for value, label in enumerate(("wound", "vein"))
            for ring in points(number)[label]
        ]
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / f"im{number}.txt").write_text("\n".join(lines) + "\n")
    _, items = read(tmp_path)
    assert items["im0"].splits == ("train",) and items["im1"].splits == ("val",)
    assert_masks(items, polygons)
