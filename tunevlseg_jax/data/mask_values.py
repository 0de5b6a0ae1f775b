"""Values of binary masks: which of them are the object, and whether a set's files agree on it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass
class SeenEncodings:
    """The encodings of the masks read so far, by class.

    Attributes:
      files: the files of each class and encoding, in their order.
    """

    files: dict[str, dict[Encoding, list[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def add(self, label: str, encoding: Encoding | None, name: str) -> None:
        """Adds a file's encoding; files without an object, and those that are cut at a threshold, fit any other."""
        if encoding:
            self.files[label][encoding].append(name)

    def disagreement(self) -> str | None:
        """A line on the files of a class whose values differ, if any do."""
        for label, encodings in self.files.items():
            if len(encodings) > 1:
                listed = "; ".join(
                    f"{' and '.join(('0', *values))} in {_files(names)}"
                    for values, names in sorted(encodings.items(), key=lambda item: -len(item[1]))
                )
                return (
                    f"warning: the masks of {label!r} differ in their values: {listed}. In each file the larger or "
                    "brighter value is taken as the object. If a value means neither, give --ignore-value; if values "
                    "are classes, give --encoding palette or colour with --classes"
                )
        return None


def _files(names: Sequence[str]) -> str:
    return f"{len(names)} file{'s' * (len(names) > 1)}, such as {min(names)}"


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
