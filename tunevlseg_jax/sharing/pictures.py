"""Pictures of a run at work: a test image beside the image with the mask that the run draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tunevlseg_jax.data.images import decode_rgb, encode_png, resize, size_with_side
from tunevlseg_jax.demonstration.examples import ShownExample
from tunevlseg_jax.prediction.overlay import overlay
from tunevlseg_jax.run import Run

LONGEST = 512
"""Pixels of the longer side of an image in a picture."""
GAP = 4
"""White pixels between the two images."""


class Picture(NamedTuple):
    """A picture of the page: its path in the folder, and the phrase that was asked for."""

    path: str
    phrase: str


def write(folder: Path, run: Run, examples: Sequence[ShownExample]) -> list[Picture]:
    """Writes a picture of each example; their names are numbers, since an image's own name may be a patient's."""
    if examples:
        (folder / "examples").mkdir()
    pictures = []
    for number, example in enumerate(examples, 1):
        path, phrase = f"examples/{number}.png", example.phrases[0]
        image = _reduced(decode_rgb(example.image, path))
        marked = overlay(image, run.predict(image, phrase))
        gap = np.full((len(image), GAP, 3), 255, np.uint8)
        (folder / path).write_bytes(encode_png(np.concatenate((image, gap, marked), 1)))
        pictures.append(Picture(path, phrase))
    return pictures


def _reduced(image: np.ndarray) -> np.ndarray:
    """A (height, width, 3) image, whose longer side is at most `LONGEST`."""
    height, width = image.shape[:2]
    if max(height, width) <= LONGEST:
        return image
    return resize(image, size_with_side((height, width), LONGEST), cv2.INTER_AREA)
