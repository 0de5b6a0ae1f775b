"""The user's own images and masks, as a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item
from tunevlseg_jax.data.builders.tables import Class, Classes
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.prepared import LEVEL, SPLITS, VOID, Example, Record
from tunevlseg_jax.runtime.errors import UserError

Encoding = Literal["binary", "palette", "colour"]


class Mask(NamedTuple):
    """A binary mask of a class of an image: the file, the class's name, and how to ask for it."""

    file: str
    label: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class ImageFiles:
    """An image and its masks, not read yet.

    Attributes:
      id: the image's name.
      image: file in the source.
      masks: binary masks, one per class.
      group: patient or video sequence, "" where unknown.
      split: train, val or test, "" where unknown.
    """

    id: str
    image: str
    masks: tuple[Mask, ...]
    group: str = ""
    split: str = ""


def items(
    files: Sequence[ImageFiles], source: SourceFiles, load: Callable[[SourceFiles, ImageFiles], Example]
) -> list[Item]:
    """The items of the images. If the images name splits but no val, val is drawn from train.

    Raises:
      UserError: some images have a split and others don't.
    """
    names = {image.split for image in files}
    if "" in names and len(names) > 1:
        first = next(image for image in files if not image.split)
        raise UserError(f"{first.image} has no split, but other images have one", "split-missing")
    train = ("train", "val") if "val" not in names else ("train",)
    allowed = {"": SPLITS, "train": train, "val": ("val",), "test": ("test",)}
    return [
        Item(
            image.id,
            lambda image=image: load(source, image),
            image.group,
            splits=allowed[image.split],
            records=max(1, len(image.masks)),
        )
        for image in files
    ]


def binary(source: SourceFiles, files: ImageFiles, threshold: int | None) -> Example:
    """An image with one binary map for each of its masks.

    Raises:
      UserError: a file is broken, isn't binary, or has another size than its image.
    """
    encoded, size = mask_files.image(source.read(files.image), files.image)
    maps, records = [], []
    for number, mask in enumerate(files.masks):
        pixels = mask_files.two_valued(source.read(mask.file), mask.file, threshold)
        mask_files.check_size(pixels, size, mask.file, files.image)
        maps.append(encode_png(pixels.astype(np.uint8)))
        records.append(Record(f"{mask.label}/{files.id}", mask.label, number, 1, {LEVEL: mask.prompts}))
    return Example(files.id, files.group, encoded, tuple(maps), tuple(records))


def coded(source: SourceFiles, files: ImageFiles, encoding: Encoding, classes: Classes) -> Example:
    """An image with one label map, and a record for each class in it.

    Raises:
      UserError: a file is broken or has another size than its image, or the map has a value or colour without a class.
    """
    encoded, size = mask_files.image(source.read(files.image), files.image)
    (mask,) = files.masks
    data = source.read(mask.file)
    if encoding == "colour":
        labels = mask_files.by_colour(data, mask.file, {(0, 0, 0): 0} | dict(classes.colours))
    else:
        labels = _by_value(data, mask.file, {0: 0} | dict(classes.values))
    mask_files.check_size(labels, size, mask.file, files.image)
    present = set(mask_files.distinct(labels).tolist()) - {0, VOID}
    records = tuple(_record(cls, files) for cls in classes.named.values() if cls.number in present)
    return Example(files.id, files.group, encoded, (encode_png(labels),), records)


def _record(cls: Class, files: ImageFiles) -> Record:
    return Record(f"{cls.label}/{files.id}", cls.label, 0, cls.number, {LEVEL: cls.prompts})


def _by_value(data: bytes, name: str, numbers: Mapping[int, int]) -> np.ndarray:
    """(height, width) uint8 label map of a map of other values."""
    stored, _ = mask_files.values(data, name)
    if stored.ndim != 2:
        raise UserError(f"mask {name} has colours, not one value a pixel; give --encoding colour", "mask-not-grey")
    mask_files.check_values(stored, list(numbers), name)
    table = np.zeros(max(numbers) + 1, np.uint8)
    table[list(numbers)] = list(numbers.values())
    return table[stored]
