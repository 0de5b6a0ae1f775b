"""Statistics of an image for the audit: faults, a hash of its content, a thumbnail and a difference hash."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.audit import map_stats, orientation
from tunevlseg_jax.data.audit.map_stats import RecordStats
from tunevlseg_jax.data.audit.orientation import Vote
from tunevlseg_jax.data.examples import Example
from tunevlseg_jax.data.images import resize
from tunevlseg_jax.runtime.errors import UserError

THUMBNAIL = 32
HASH = 16
"""Side of the difference hash: 256 bits."""


@dataclass(frozen=True)
class ImageStats:
    """Statistics of an example.

    Attributes:
      split: split in which it is stored.
      index: index in that split.
      id: the image's name.
      group: patient or video sequence, "" where unknown.
      content: sha256 of the encoded image.
      thumbnail: (32, 32, 3) uint8, or None where the image can't be read.
      bits: (4,) uint64, the difference hash: whether the brightness grows, from each cell of a grid to the next.
      records: the statistics of its records.
      values: values in the label maps.
      faults: (kind, details) of each fault of its files.
      vote: whether its masks fit the photo as its EXIF orientation turns it.
    """

    split: str
    index: int
    id: str
    group: str
    content: str
    thumbnail: np.ndarray | None
    bits: np.ndarray
    records: tuple[RecordStats, ...]
    values: frozenset[int]
    faults: tuple[tuple[str, str], ...]
    vote: Vote | None = None

    @property
    def key(self) -> tuple[str, int]:
        """(split, index)."""
        return self.split, self.index

    def __str__(self) -> str:
        return f"{self.split}/{self.id}"


def image_stats(split: str, index: int, example: Example) -> ImageStats:
    """The statistics of an example, stored in a split at an index."""
    faults: list[tuple[str, str]] = []
    image, maps = None, ()
    try:
        mask_files.whole(example.image, example.id)
        image = example.rgb()
    except UserError as error:
        faults.append(("unreadable", str(error)))
    try:
        maps = example.maps()
    except UserError as error:
        faults.append(("unreadable", str(error)))
    counts = map_stats.counts(maps)
    records = map_stats.record_stats(example.records, maps, counts)
    for array in maps:
        if image is not None and array.shape != image.shape[:2]:
            faults.append(("another size", f"{array.shape} against {image.shape[:2]}"))
    vote = None
    if image is not None and orientation.is_turned(example.image):
        masks = [maps[record.mask] == record.value for record in example.records if record.mask < len(maps)]
        vote = orientation.vote(example.image, image, masks)
    return ImageStats(
        split,
        index,
        example.id,
        example.group,
        hashlib.sha256(example.image).hexdigest(),
        None if image is None else resize(image, (THUMBNAIL, THUMBNAIL), cv2.INTER_AREA),
        np.zeros(HASH * HASH // 64, np.uint64) if image is None else difference_hash(image),
        records,
        frozenset(int(value) for count in counts for value in np.flatnonzero(count[0])),
        tuple(faults),
        vote,
    )


def difference_hash(image: np.ndarray) -> np.ndarray:
    """(4,) uint64 of (height, width, 3): whether each cell of a 16 x 16 grid is darker than its right neighbour."""
    grey = resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (HASH, HASH + 1), cv2.INTER_AREA).astype(np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)
