"""Images of a source that haven't been read yet, and how their files become label maps and records."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.tables import Class
from tunevlseg_jax.data.examples import LEVEL, SPLITS, Example, Record
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.volume_slice import VolumeSlice
from tunevlseg_jax.runtime import progress_bar
from tunevlseg_jax.runtime.errors import UserError


class Content(NamedTuple):
    """An encoded image, its label maps, its records, its spacing and its place in a volume, as in `Example`."""

    image: bytes
    masks: tuple[bytes, ...]
    records: tuple[Record, ...]
    spacing: tuple[float, float] | None = None
    slice: VolumeSlice | None = None


@dataclass(frozen=True)
class Item:
    """An image in the source that hasn't been read yet.

    Attributes:
      key: the image's name without its suffix, as the annotations call it.
      load: reads it; its records' ids are the names of their masks without suffix, as the annotations call them.
      group: patient or video sequence, "" where unknown.
      stratum: seeded splits have the same share of each stratum.
      splits: the splits that the source's own division allows.
      records: number of records, if it is known without reading; else 1.
    """

    key: str
    load: Callable[[], Content]
    group: str = ""
    stratum: str = ""
    splits: tuple[str, ...] = SPLITS
    records: int = 1


def read(split: str, items: Sequence[Item]) -> Iterator[Example]:
    """Reads the examples of a split, one after the other, and shows the progress."""
    for item in progress_bar.track(items, split, len(items)):
        yield Example(item.key, item.group, *item.load())


class BinaryMask(NamedTuple):
    """A binary mask of an image, its name in error messages, and fields of its `Record`.

    `pixels` is (height, width) bool, or uint8 of 0, 1 and VOID, or draws such an array given the image's (height,
    width).
    """

    name: str
    pixels: np.ndarray | Callable[[tuple[int, int]], np.ndarray]
    id: str
    label: str
    prompts: Mapping[int, tuple[str, ...]]


def binary_masks(source: SourceFiles, image: str, masks: Iterable[BinaryMask]) -> Content:
    """An image file with a map and a record for each binary mask; masks of the same id are joined.

    Raises:
      UserError: the image is broken, or a mask has another size.
    """
    encoded, size = mask_files.image(source.read(image), image)
    maps: dict[str, np.ndarray] = {}
    records: dict[str, Record] = {}
    for mask in masks:
        pixels = mask.pixels(size) if callable(mask.pixels) else mask.pixels
        mask_files.check_size(pixels, size, mask.name, image)
        records.setdefault(mask.id, Record(mask.id, mask.label, len(records), 1, mask.prompts))
        maps[mask.id] = _joined(maps[mask.id], pixels) if mask.id in maps else pixels
    return Content(
        encoded, tuple(encode_png(pixels.astype(np.uint8)) for pixels in maps.values()), tuple(records.values())
    )


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(height, width) uint8 of two maps of the same class: the object in either, else ignored in either."""
    return np.where((first == 1) | (second == 1), 1, np.maximum(first, second)).astype(np.uint8)


def class_map(
    source: SourceFiles,
    key: str,
    image: str,
    mask: str,
    decode: Callable[[bytes, str], np.ndarray],
    classes: Iterable[Class],
    empty_records: bool = False,
) -> Content:
    """An image file with one map of mutually exclusive classes, and a record for each of `classes` in it.

    If it has none and `empty_records` is true, it has a record of every class, with an empty mask.

    `decode` takes a mask file's content and name, and returns a (height, width) uint8 label map of class numbers.

    Raises:
      UserError: a file is broken, or the mask has another size.
    """
    encoded, size = mask_files.image(source.read(image), image)
    labels = decode(source.read(mask), mask)
    mask_files.check_size(labels, size, mask, image)
    classes = tuple(classes)
    present = set(mask_files.distinct(labels).tolist())
    if empty_records and not any(cls.number in present for cls in classes):
        present = {cls.number for cls in classes}
    records = tuple(
        Record(f"{cls.label}/{key}", cls.label, 0, cls.number, {LEVEL: cls.prompts})
        for cls in classes
        if cls.number in present
    )
    return Content(encoded, (encode_png(labels),), records)


def paired_files(source: SourceFiles, images: str, masks: str) -> Iterator[tuple[str, str, str]]:
    """(key, image, mask) of the files that two patterns of `SourceFiles.find` match; their first groups are the keys.

    Raises:
      UserError: an image has no mask, or two.
    """
    mask_of: dict[str, str] = {}
    for name, match in source.find(masks):
        if match[1] in mask_of:
            raise UserError(
                f"{source} has two masks for {match[1]!r}: {mask_of[match[1]]} and {name}", "duplicate-mask"
            )
        mask_of[match[1]] = name
    for name, match in source.find(images):
        if match[1] not in mask_of:
            raise UserError(f"{name} in {source} has no mask", "mask-missing")
        yield match[1], name, mask_of[match[1]]


def paired_items(
    source: SourceFiles,
    images: str,
    masks: str,
    label: str,
    *,
    decode: Callable[[bytes, str], np.ndarray] = mask_files.binary,
    id_suffix: str = "",
    groups: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Item]:
    """Images with one binary mask each, found as in `paired_files`; the prompt is the class, `label`.

    `decode` takes a mask file's content and name, and returns a (height, width) bool mask. A record's id is the image's
    name and `id_suffix`. `groups` has the patient or sequence by the image's name.

    Raises:
      UserError: as in `paired_files`.
    """

    def load(key: str, image: str, mask: str) -> Content:
        pixels = decode(source.read(mask), mask)
        return binary_masks(source, image, [BinaryMask(mask, pixels, key + id_suffix, label, {LEVEL: (label,)})])

    for key, image, mask in paired_files(source, images, masks):
        yield Item(key, partial(load, key, image, mask), groups.get(key, ""))
