"""Statistics of label maps and of the records in them: how much they mark, where, and what is left when resized."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tunevlseg_jax.data.examples import VOID, Record
from tunevlseg_jax.data.images import resize

MODEL_SIZE = (352, 352)
"""Height and width of CLIPSeg's images, the smaller ones of the paper's two models."""


@dataclass(frozen=True)
class RecordStats:
    """A record and how much it marks.

    Attributes:
      record: the record.
      pixels: number of its pixels.
      map_pixels: number of pixels of its label map.
      border: number of its pixels on the map's border.
      border_pixels: number of pixels on the border.
      resized_pixels: number of its pixels when the map is resized to MODEL_SIZE.
      ignored: number of the map's pixels that belong to nothing (void).
    """

    record: Record
    pixels: int = 0
    map_pixels: int = 0
    border: int = 0
    border_pixels: int = 0
    resized_pixels: int = 0
    ignored: int = 0

    @property
    def coverage(self) -> float:
        """Share of the image that it marks."""
        return self.pixels / max(1, self.map_pixels)

    @property
    def has_no_background(self) -> bool:
        """Whether it marks some pixels and all others are ignored."""
        return bool(self.pixels and self.ignored) and self.pixels + self.ignored == self.map_pixels

    @property
    def vanishes(self) -> bool:
        """Whether none of its pixels is left when the map is resized."""
        return self.pixels > 0 and not self.resized_pixels

    @property
    def like_background(self) -> bool:
        """Whether it marks most of the image and nearly all of its border, but not everything."""
        most = 2 * self.pixels > self.map_pixels and self.border >= 0.95 * self.border_pixels
        return most and self.pixels < self.map_pixels

    @property
    def mostly_outside(self) -> bool:
        """Whether it marks most of the image and most of its border, as an object that is cut off rarely does."""
        return 2 * self.pixels > self.map_pixels and 2 * self.border > self.border_pixels


def counts(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(3, 256) int of each (height, width) uint8 map: the pixels of each value, on the border, and when resized."""
    return [np.stack([_count(plane), _count(_border(plane)), _count(_resized(plane))]) for plane in maps]


def record_stats(
    records: Sequence[Record], maps: Sequence[np.ndarray], counted: Sequence[np.ndarray]
) -> tuple[RecordStats, ...]:
    """The statistics of an image's records, from the `counts` of its maps; those without a map have no pixels."""
    return tuple(
        RecordStats(
            record,
            int(counted[record.mask][0, record.value]),
            maps[record.mask].size,
            int(counted[record.mask][1, record.value]),
            int(counted[record.mask][1].sum()),
            int(counted[record.mask][2, record.value]),
            int(counted[record.mask][0, VOID]),
        )
        if record.mask < len(maps)
        else RecordStats(record)
        for record in records
    )


def _count(values: np.ndarray) -> np.ndarray:
    return np.bincount(values.reshape(-1), minlength=256)


def _border(plane: np.ndarray) -> np.ndarray:
    return np.concatenate([plane[0], plane[-1], plane[1:-1, 0], plane[1:-1, -1]])


def _resized(plane: np.ndarray) -> np.ndarray:
    """A map at MODEL_SIZE, as training resizes it."""
    return resize(plane, MODEL_SIZE, cv2.INTER_NEAREST)
