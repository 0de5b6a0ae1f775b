"""Evaluation targets: the masks of each image, at the model's size or at the image's own size."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tunevlseg_jax.data.examples import VOID, Example
from tunevlseg_jax.data.records import WHOLE, Records


class Target(NamedTuple):
    """One image's masks.

    Attributes:
      masks: (record, height, width) bool, in the order of the image's records.
      void: (height, width) bool, pixels that are neither a class nor background.
    """

    masks: np.ndarray
    void: np.ndarray


def rows_by_image(records: Records) -> list[np.ndarray]:
    """The rows of each image's records."""
    assert (np.diff(records.image) >= 0).all(), "records must be in the order of their images"
    return np.split(np.arange(len(records)), np.searchsorted(records.image, np.arange(1, len(records.images))))


def stored(records: Records) -> Iterator[Target]:
    """Each image's masks at the size that the records have."""
    for rows in rows_by_image(records):
        masks = [records.mask(row) for row in rows]
        whole = [row for row in rows if records.bits[row] == WHOLE]
        maps = [records.maps[records.map[row]] for row in whole]
        yield _target(masks, maps, records.maps.shape[1:])


def original(examples: Iterable[Example]) -> Iterator[Target]:
    """Each image's masks at the image's own size."""
    for example in examples:
        maps = example.maps()
        masks = [maps[record.mask] == record.value for record in example.records]
        yield _target(masks, maps, maps[0].shape if maps else example.rgb().shape[:2])


def _target(masks: Sequence[np.ndarray], maps: Sequence[np.ndarray], size: tuple[int, ...]) -> Target:
    void = np.zeros(size, bool)
    for plane in maps:
        void |= plane == VOID
    return Target(np.stack(masks) if masks else np.zeros((0, *size), bool), void)
