"""What every data set is once it is in memory: images, masks, and the prompts that ask for them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Records:
    """One split of a data set; a record is an image, the mask of one thing in it, and a prompt for that thing.

    An image is stored once, however many records look at it. A record's prompt is a row of `prompts`, each a
    tuple of phrasings of the same request: training draws one at random, evaluation takes the first.

    Attributes:
      name: the data set's name, such as "scenes/photo".
      split: "train", "val" or "test".
      images: (image, height, width, 3) uint8, RGB.
      masks: (record, height, width) bool.
      image: (record,) int32, the row of `images` that a record looks at.
      prompt: (record,) int32, the row of `prompts` that a record asks for.
      prompts: the distinct requests, each one phrasing or more.
      ids: a name for each record, unique within the split.
    """

    name: str
    split: str
    images: np.ndarray
    masks: np.ndarray
    image: np.ndarray
    prompt: np.ndarray
    prompts: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def phrases(self) -> tuple[str, ...]:
        """Every phrasing of every prompt, prompt by prompt."""
        return tuple(phrase for phrasings in self.prompts for phrase in phrasings)

    @property
    def prompts_per_image(self) -> int:
        """How many records each image has, where it is the same number for all and they stand together; else 1."""
        number = len(self.image) // len(self.images)
        together = np.repeat(np.arange(len(self.images)), number)
        return number if number > 1 and np.array_equal(self.image, together) else 1

    def fingerprint(self) -> str:
        """sha256 of everything that a model sees: pixels, masks and prompts, in their order."""
        digest = hashlib.sha256()
        for array in (self.images, np.packbits(self.masks), self.image, self.prompt):
            digest.update(np.ascontiguousarray(array).data)
        digest.update(repr(self.prompts).encode())
        return digest.hexdigest()
