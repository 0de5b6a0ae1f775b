"""Images with their records, as prepared sets hold them."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from tunevlseg_jax.data.images import decode_rgb
from tunevlseg_jax.data.volume_slice import VolumeSlice
from tunevlseg_jax.runtime.errors import UserError

SPLITS = ("train", "val", "test")
VOID = 255
"""Value in a label map of pixels that are neither a class nor background."""
LEVEL = 1
"""The prompt level of sets with one kind of prompt, and of the paper's runs."""


@dataclass(frozen=True)
class Record:
    """One mask of an image and its prompts.

    Attributes:
      id: unique in the split.
      label: name of the class.
      mask: index of the label map.
      value: value of the record's pixels in that map.
      prompts: phrasings by level; training draws one at random, evaluation takes the first.
    """

    id: str
    label: str
    mask: int
    value: int
    prompts: Mapping[int, tuple[str, ...]]

    def phrasings(self, level: int = LEVEL) -> tuple[str, ...]:
        """The phrasings of one level.

        Raises:
          UserError: the record has none of that level.
        """
        if level not in self.prompts:
            raise UserError(f"record {self.id!r} has prompts {sorted(self.prompts)}, got {level}", "prompt-index")
        return self.prompts[level]


@dataclass(frozen=True)
class Example:
    """One image and its records; images are encoded.

    Attributes:
      id: the image's name, unique in the split.
      group: patient or video sequence, "" where unknown.
      image: JPEG or PNG.
      masks: label maps, single-channel PNG of the image's size.
      records: the image's records.
      spacing: millimetres between the centres of neighbouring rows, and of columns; None where unknown.
      slice: of a slice its place in its volume; None for other images, and in sets of earlier versions.
      left_out: classes of records that the clean protocol leaves out; not stored.
    """

    id: str
    group: str
    image: bytes
    masks: tuple[bytes, ...]
    records: tuple[Record, ...]
    spacing: tuple[float, float] | None = None
    slice: VolumeSlice | None = None
    left_out: tuple[str, ...] = ()

    def rgb(self) -> np.ndarray:
        """(height, width, 3) uint8 image, upright.

        Raises:
          UserError: the image is broken.
        """
        return decode_rgb(self.image, f"image {self.id!r}")

    def maps(self) -> tuple[np.ndarray, ...]:
        """(height, width) uint8 label maps.

        Raises:
          UserError: a map is broken.
        """
        decoded = []
        for data in self.masks:
            array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
            if array is None or array.ndim != 2 or array.dtype != np.uint8:
                raise UserError(f"a label map of image {self.id!r} is not a grey PNG of 8 bits", "undecodable")
            decoded.append(array)
        return tuple(decoded)
