"""Negatives: questions for things that an image doesn't show, whose answer is an empty mask."""

import dataclasses
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Negatives:
    """What training may ask about each image although the image doesn't show it.

    A thing is a class of the split, or one of `words`.

    Attributes:
      share: of the records of a batch that ask for an absent thing instead of their own.
      words: names of things that no image shows.
      allowed: (image, thing) bool, whether an image may be asked for a thing.
      phrases: for each thing the rows of `Records.phrases` that ask for it.
    """

    share: float
    words: tuple[str, ...]
    allowed: np.ndarray
    phrases: tuple[np.ndarray, ...]

    def take(self, images: np.ndarray) -> "Negatives":
        """Those of the images in these rows."""
        return dataclasses.replace(self, allowed=self.allowed[images])
