"""COCO JSON (Lin et al. 2014): polygons, run lengths and crowds, also as Roboflow, CVAT and Label Studio write it."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from tunevlseg_jax.data.builders.annotations import shapes
from tunevlseg_jax.data.builders.annotations.documents import Document, field, whole
from tunevlseg_jax.data.builders.annotations.image_names import ImageNames, file_splits
from tunevlseg_jax.data.builders.roboflow import group_of
from tunevlseg_jax.data.builders.user_files import Draw, ImageFiles, Mask, Size
from tunevlseg_jax.runtime.errors import UserError

OTHER_TASKS = ("person_keypoints_", "captions_", "stuff_", "panoptic_", "image_info_")
"""Files beside COCO's instances_*.json, which annotate the same images once more or not at all."""


def chosen(documents: list[Document]) -> tuple[list[Document], list[str]]:
    """The files to read, and the names of those left out: without annotations, or COCO's other tasks."""
    names = [document.name.rpartition("/")[2] for document in documents]
    instances = any(name.startswith("instances_") for name in names)
    left_out = [
        "annotations" not in document.content or (instances and name.startswith(OTHER_TASKS))
        for document, name in zip(documents, names, strict=True)
    ]
    return (
        [document for document, out in zip(documents, left_out, strict=True) if not out],
        [document.name for document, out in zip(documents, left_out, strict=True) if out],
    )


def read(documents: list[Document], names: ImageNames) -> Iterator[ImageFiles]:
    """The images of COCO files; a file's or folder's name tells the split, as in instances_val2017.json.

    Raises:
      UserError: an entry is broken, or names an image or category that isn't there; the message names it.
    """
    splits = file_splits(document.name for document in documents)
    for document in documents:
        yield from _images(document, names, splits.get(document.name, ""))


def _images(document: Document, names: ImageNames, split: str) -> Iterator[ImageFiles]:
    file, content = document
    images = _by_id(field(content, "images", list, file), "image", file)
    categories = _by_id(field(content, "categories", list, file), "category", file)
    masks: dict[Any, list[Mask]] = {id: [] for id in images}
    for id, annotation in _by_id(field(content, "annotations", list, file), "annotation", file).items():
        where = f"annotation {id} of {file}"
        image = field(annotation, "image_id", (int, str), where)
        if image not in images:
            raise UserError(f"{where} is of image {image}, which the file lacks", "image-missing")
        masks[image].append(_mask(annotation, images[image], categories, where, f"image {image} of {file}"))
    for id, image in images.items():
        where = f"image {id} of {file}"
        name = names.find(field(image, "file_name", str, where), file, where)
        yield ImageFiles(name, name, tuple(masks[id]), group_of(name), split)


def _by_id(entries: list[Any], kind: str, file: str) -> dict[Any, Mapping[str, Any]]:
    by_id: dict[Any, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        id = field(entry, "id", (int, str), f"{kind} number {number} of {file}")
        if id in by_id:
            raise UserError(f"{file} has two of {kind} {id}; ids must be unique", "duplicate-id")
        by_id[id] = entry
    return by_id


def _mask(annotation: Any, image: Any, categories: Mapping[Any, Any], where: str, of: str) -> Mask:
    category = field(annotation, "category_id", (int, str), where)
    if category not in categories:
        raise UserError(
            f"{where} has the category {category}; the file has {sorted(categories, key=str)}", "unknown-class"
        )
    size = whole(image, "height", of), whole(image, "width", of)
    label = field(categories[category], "name", str, f"category {category} in {where.partition(' of ')[2]}")
    return shapes.mask(where, label, _draw(annotation.get("segmentation"), size, where), size)


def _draw(segmentation: Any, size: Size, where: str) -> Draw:
    if isinstance(segmentation, dict):
        stated = field(segmentation, "size", list, where)
        if stated != list(size):
            raise UserError(f"{where} has run lengths of (height, width) {stated}, its image {list(size)}", "mask-size")
        counts = field(segmentation, "counts", (str, list), where)
        return partial(_decoded, where, counts)
    if not isinstance(segmentation, list) or not segmentation:
        raise UserError(
            f"{where} has no segmentation, only a box; export polygons or masks, or remove it", "mask-missing"
        )
    rings = segmentation if isinstance(segmentation[0], list) else [segmentation]
    return shapes.polygons(where, [shapes.ring(points, where) for points in rings])


def _decoded(where: str, counts: str | list[int], size: Size) -> np.ndarray:
    return shapes.runs(where, counts, size)
