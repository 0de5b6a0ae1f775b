"""The contract of an output format beside the masks: it gets every mask, and writes its files at the end."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from tunevlseg_jax.prediction.frames import Frame, Opened


class Prediction(NamedTuple):
    """A mask, and where it comes from.

    Attributes:
      opened: the input file.
      frame: the image of it.
      prompt: the name of the object.
      mask: (height, width) bool.
      name: of the mask's file, without "_mask.png", below the output folder.
      row: of the table, the columns `table.COLUMNS`.
    """

    opened: Opened
    frame: Frame
    prompt: str
    mask: np.ndarray
    name: str
    row: dict[str, Any]


class Export(Protocol):
    """An output format, such as a video of overlays.

    `predict` makes its exports in `Session`. Each gets the masks of an image for all prompts, then those of the next
    image, in the order of the files and frames; also the masks that are kept from an earlier call.
    """

    def add(self, prediction: Prediction) -> None:
        """Takes the next mask."""
        ...

    def close(self, output: Path) -> None:
        """Writes what is left into the output folder, when all masks were added."""
        ...
