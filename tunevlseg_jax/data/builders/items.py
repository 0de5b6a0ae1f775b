"""Images of a source that haven't been read yet, and their conversion to examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders import seeded_splits
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.prepared import LEVEL, SPLITS, Example, Record
from tunevlseg_jax.runtime.errors import UserError

Progress = Callable[[str, Sequence["Item"]], Iterable["Item"]]
"""Iterates over the items of a split and shows the progress."""


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
    load: Callable[[], Example]
    group: str = ""
    stratum: str = ""
    splits: tuple[str, ...] = SPLITS
    records: int = 1


def assign_splits(
    items: Sequence[Item], shares: Mapping[str, float], seed: int, progress: Progress
) -> dict[str, Iterable[Example]]:
    """The examples of seeded splits, within the splits that each item allows; files are read during iteration.

    Empty splits are left out.
    """
    parts = [seeded_splits.Part(item.group, item.stratum, item.splits, item.records) for item in items]
    assigned: dict[str, list[Item]] = {}
    for item, split in zip(items, seeded_splits.seeded(parts, shares, seed), strict=True):
        assigned.setdefault(split, []).append(item)
    return {split: loaded(split, assigned[split], progress) for split in SPLITS if split in assigned}


def loaded(split: str, items: Sequence[Item], progress: Progress) -> Iterator[Example]:
    """The examples of a split, one after the other."""
    for item in progress(split, items):
        yield item.load()


def single(
    source: SourceFiles,
    image: str,
    mask: str,
    decode: Callable[[bytes, str], np.ndarray],
    *,
    key: str,
    record: str,
    label: str,
    group: str = "",
) -> Example:
    """An image with one binary mask and one record, whose prompt is its class.

    Args:
      source: where the files are.
      image: file in the source.
      mask: file in the source.
      decode: from a mask file's content and name to a (height, width) bool mask.
      key: the image's name.
      record: the record's id.
      label: the class.
      group: patient or sequence.

    Raises:
      UserError: a file is broken, or the mask has another size.
    """
    encoded, size = mask_files.image(source.read(image), image)
    pixels = decode(source.read(mask), mask)
    mask_files.check_size(pixels, size, mask, image)
    return Example(
        key,
        group,
        encoded,
        (encode_png(pixels.astype(np.uint8)),),
        (Record(record, label, 0, 1, {LEVEL: (label,)}),),
    )


def pairs(source: SourceFiles, images: str, masks: str) -> Iterator[tuple[str, str, str]]:
    """(key, image, mask) of the files that two patterns of `Source.find` match; their first groups are the keys.

    Raises:
      UserError: an image has no mask, or two.
    """
    found: dict[str, str] = {}
    for name, match in source.find(masks):
        if match[1] in found:
            raise UserError(f"{source} has two masks for {match[1]!r}: {found[match[1]]} and {name}", "duplicate-mask")
        found[match[1]] = name
    for name, match in source.find(images):
        if match[1] not in found:
            raise UserError(f"{name} in {source} has no mask", "mask-missing")
        yield match[1], name, found[match[1]]
