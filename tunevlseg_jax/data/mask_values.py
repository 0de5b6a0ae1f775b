"""Values of binary masks: which of them are the object, and how a file writes it."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

Encoding = tuple[str, ...]
"""The values of a mask's pixels other than black, as their user writes them, such as ("255",) or ("#ff0000",)."""
WHITE = 255


@dataclass(frozen=True)
class BinaryRule:
    """How the values of a set's binary masks are read.

    Attributes:
      threshold: the object is above this value; None: as in `mask_files.binary`.
      inverted: whether the object is everything else.
      ignored: values of pixels that are neither object nor background.
    """

    threshold: int | None = None
    inverted: bool = False
    ignored: tuple[int, ...] = ()


def encoding(opened: Image.Image, stored: np.ndarray, lossless: bool) -> Encoding | None:
    """The encoding of a mask file; None if it is lossy or has more than two values, which a threshold cuts.

    Args:
      opened: the file, for its palette.
      stored: its values, (height, width) or (height, width, 3).
      lossless: whether the file stores them exactly.
    """
    if not lossless:
        return None
    packed = stored if stored.ndim == 2 else stored.astype(np.int32) @ (1 << 16, 1 << 8, 1)
    levels = distinct(packed)
    if len(levels) > 2:
        return None
    if opened.mode == "1":
        return (str(WHITE),) * bool(levels.any())
    if opened.mode == "P":
        palette = np.asarray(opened.getpalette("RGB"), np.uint8).reshape(-1, 3)
        colours = palette[[min(level, len(palette) - 1) for level in levels.tolist()]]
        if (colours != colours[:, :1]).any() or len(np.unique(colours[:, 0])) < len(levels):
            return tuple(f"{level} (palette)" for level in levels.tolist() if level)
        levels = np.unique(colours[:, 0])
    elif stored.ndim == 3:
        return tuple(_colour(level) for level in levels.tolist() if level)
    return tuple(str(level) for level in levels.tolist() if level)


def _colour(packed: int) -> str:
    """A colour as #rrggbb, or its value if it is grey."""
    text = f"{packed:06x}"
    return str(packed & 255) if text[:2] == text[2:4] == text[4:] else f"#{text}"


def distinct(array: np.ndarray) -> np.ndarray:
    """The distinct values, sorted, of an array of whole numbers from 0 to 2^24; faster than np.unique."""
    present = np.zeros(int(array.max(initial=0)) + 1, bool)
    present[array] = True
    return np.flatnonzero(present)
