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
Decode = Callable[[bytes, str], np.ndarray]


class Mask(NamedTuple):
    """A binary mask of a class of an image: the file, the class's name, and how to ask for it."""

    file: str
    label: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """An image and its masks, not read yet.

    Attributes:
      id: the image's name.
      image: file in the source.
      masks: binary ones, one a class.
      group: patient or video sequence, "" where unknown.
      split: "" where it isn't told.
    """

    id: str
    image: str
    masks: tuple[Mask, ...]
    group: str = ""
    split: str = ""


def items(found: Sequence[Found], source: SourceFiles, load: Callable[[SourceFiles, Found], Example]) -> list[Item]:
    """The items of what was found. Where splits are told but no val, val comes out of train.

    Raises:
      UserError: some images tell their split and others don't.
    """
    told = {one.split for one in found}
    if "" in told and len(told) > 1:
        first = next(one for one in found if not one.split)
        raise UserError(f"{first.image} has no split, but other images have one")
    train = ("train", "val") if "val" not in told else ("train",)
    allowed = {"": SPLITS, "train": train, "val": ("val",), "test": ("test",)}
    return [
        Item(
            one.id,
            lambda one=one: load(source, one),
            one.group,
            splits=allowed[one.split],
            records=max(1, len(one.masks)),
        )
        for one in found
    ]


def binary(source: SourceFiles, found: Found, threshold: int | None) -> Example:
    """An image with one binary map for each of its masks.

    Raises:
      UserError: a file is broken, isn't binary, or has another size than its image.
    """
    encoded, size = mask_files.image(source.read(found.image), found.image)
    maps, records = [], []
    for number, mask in enumerate(found.masks):
        pixels = mask_files.two_valued(source.read(mask.file), mask.file, threshold)
        mask_files.check_size(pixels, size, mask.file, found.image)
        maps.append(encode_png(pixels.astype(np.uint8)))
        records.append(Record(f"{mask.label}/{found.id}", mask.label, number, 1, {LEVEL: mask.prompts}))
    return Example(found.id, found.group, encoded, tuple(maps), tuple(records))


def coded(source: SourceFiles, found: Found, encoding: Encoding, classes: Classes) -> Example:
    """An image with one label map, and a record for each class in it.

    Raises:
      UserError: a file is broken or has another size than its image, or the map has a value or colour that is no class.
    """
    encoded, size = mask_files.image(source.read(found.image), found.image)
    (mask,) = found.masks
    data = source.read(mask.file)
    if encoding == "colour":
        labels = mask_files.by_colour(data, mask.file, {(0, 0, 0): 0} | dict(classes.colours))
    else:
        labels = _by_value(data, mask.file, {0: 0} | dict(classes.values))
    mask_files.check_size(labels, size, mask.file, found.image)
    present = set(mask_files.distinct(labels).tolist()) - {0, VOID}
    records = tuple(_record(one, found) for one in classes.named.values() if one.number in present)
    return Example(found.id, found.group, encoded, (encode_png(labels),), records)


def _record(one: Class, found: Found) -> Record:
    return Record(f"{one.label}/{found.id}", one.label, 0, one.number, {LEVEL: one.prompts})


def _by_value(data: bytes, name: str, numbers: Mapping[int, int]) -> np.ndarray:
    """(height, width) uint8 label map of a map of other values."""
    stored, _ = mask_files.values(data, name)
    if stored.ndim != 2:
        raise UserError(f"mask {name} has colours, not one value a pixel; give --encoding colour")
    mask_files.check_values(stored, list(numbers), name)
    table = np.zeros(max(numbers) + 1, np.uint8)
    table[list(numbers)] = list(numbers.values())
    return table[stored]
