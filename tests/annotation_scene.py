"""The scene of the files in fixtures/annotations, and reading annotated sources without writing a set."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import small
from pycocotools import mask as coco

from tunevlseg_jax.data.builders import user_files
from tunevlseg_jax.data.builders.annotations import formats
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item
from tunevlseg_jax.data.builders.tables import Classes
from tunevlseg_jax.data.mask_values import BinaryRule
from tunevlseg_jax.data.seen_encodings import SeenEncodings

FIXTURES = small.ROOT / "tests" / "fixtures" / "annotations"
SIZE = HEIGHT, WIDTH = 60, 80
Masks = dict[str, np.ndarray]
"""(height, width) bool by class."""


def points(number: int) -> Mapping[str, list[list[tuple[int, int]]]]:
    """The polygons of an image, x and y, by class."""
    d = 3 * number
    return {
        "wound": [
            [(8 + d, 5), (34 + d, 5), (34 + d, 12), (20 + d, 12), (20 + d, 20), (8 + d, 20)],
            [(50, 40 - d), (70, 40 - d), (60, 55 - d)],
        ],
        "vein": [[(2, 30), (40, 28), (42, 36), (5, 44)]],
    }


def polygons(number: int) -> Masks:
    """The masks of `points` as pycocotools draws them."""
    return {label: filled(rings) for label, rings in points(number).items()}


def filled(rings: Sequence[Sequence[tuple[float, float]]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """The insides of polygons together, as pycocotools draws them."""
    flat = [np.ravel(ring).astype(float).tolist() for ring in rings]
    with warnings.catch_warnings(action="ignore"):  # of NumPy 2
        return coco.decode(coco.merge(coco.frPyObjects(flat, *size))).astype(bool)


def brushes(number: int) -> Masks:
    """Masks with a hole, jagged edges and single pixels."""
    wound, vein, d = np.zeros(SIZE, bool), np.zeros(SIZE, bool), 3 * number
    wound[5:20, 8 + d : 20 + d] = wound[5:12, 20 + d : 34 + d] = True
    wound[9:11, 10 + d : 12 + d] = False
    wound[40 - d : 50 - d, 50:70] = wound[50 - d, 55] = True
    vein[30:36, 2:42] = vein[36:40, 2:10] = True
    return {"wound": wound, "vein": vein}


def read(
    *paths: Path,
    format: formats.Format | None = None,
    prompt: Sequence[str] = (),
    classes: Classes | None = None,
    negatives: user_files.Negatives = "drop",
) -> tuple[formats.Annotated, dict[str, Item]]:
    """What a source's annotation format gives, and its items by name."""
    source = SourceFiles(paths, Path("unpacked"))
    present = formats.found(source)
    chosen = formats.choose(present, format, source)
    assert chosen is not None, f"no format is recognised in {source}"
    annotated = formats.read(chosen, present[chosen], source, prompt, classes, negatives)
    _, files = user_files.with_splits(annotated.files, "source", source)
    load = annotated.load or partial(user_files.binary, rule=BinaryRule(), seen=SeenEncodings())
    return annotated, {item.key: item for item in user_files.items(files, source, load)}


def masks(item: Item) -> Masks:
    """The masks of an item by class."""
    content = item.load()
    maps = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) for data in content.masks]
    return {record.label: maps[record.mask] == record.value for record in content.records}


def assert_masks(items: Mapping[str, Item], expected: Callable[[int], Masks]) -> None:
    """Checks the masks of im0, im1, ... to the pixel."""
    for number, key in enumerate(sorted(items)):
        given = masks(items[key])
        assert given.keys() == expected(number).keys()
        for label, pixels in expected(number).items():
            np.testing.assert_array_equal(given[label], pixels, f"{label} of {key}")


def assert_within_a_pixel(given: np.ndarray, expected: np.ndarray) -> None:
    """Checks that two masks differ along their edges alone, by at most one pixel."""
    kernel = np.ones((3, 3), np.uint8)
    thin = cv2.erode(expected.astype(np.uint8), kernel) > 0
    thick = cv2.dilate(expected.astype(np.uint8), kernel) > 0
    assert (given >= thin).all() and (given <= thick).all()
