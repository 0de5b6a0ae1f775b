"""Overlays: the mask drawn into its image, as a picture or as a video."""

import contextlib
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from tunevlseg_jax.prediction.exports import Prediction
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_file

COLOUR = (255, 64, 64)
OPACITY = 0.4
TINTED = (np.arange(256)[None, :, None] * (1 - OPACITY) + np.asarray(COLOUR) * OPACITY).round().astype(np.uint8)
"""(1, 256, 3): the tinted value of each value and channel. A table, because float copies of a photograph are large."""


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (height, width, 3) with the mask (height, width) tinted and outlined, in uint8 throughout."""
    drawn = np.array(image, order="C")
    np.copyto(drawn, cv2.LUT(drawn, TINTED), where=mask[..., None])
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(mask.shape) / 400))
    return cv2.drawContours(drawn, outlines, -1, COLOUR, width)


class OverlayVideos:
    """Writes a video of the overlays for each video and prompt."""

    def __init__(self, output: Path):
        """`output` is the folder of the masks."""
        self._output = output
        self._source: Path | None = None
        self._writers: dict[Path, cv2.VideoWriter] = {}
        self._files = contextlib.ExitStack()

    def add(self, prediction: Prediction) -> None:
        """Adds a frame of a video; the masks of other files are not for this."""
        if prediction.opened.path != self._source:
            self.close(self._output)
            self._source = prediction.opened.path
        if prediction.opened.rate is None or prediction.frame.number is None:
            return
        path = self._output / f"{Path(prediction.name).parent}_overlay.mp4"
        height, width = prediction.mask.shape
        if path not in self._writers:
            temporary = self._files.enter_context(atomic_file(path))
            code = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(temporary), code, prediction.opened.rate, (width, height))
            if not writer.isOpened():
                raise UserError(f"can't write {path}: OpenCV has no encoder for it", "unwritable")
            self._writers[path] = writer
        drawn = overlay(prediction.frame.image, prediction.mask)
        self._writers[path].write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))

    def close(self, output: Path) -> None:
        """Ends the videos of the last file, which then get their names."""
        for writer in self._writers.values():
            writer.release()
        self._writers.clear()
        self._files.close()
        self._files = contextlib.ExitStack()

    def __enter__(self) -> "OverlayVideos":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error, no half video is left."""
        self._writers.clear()
        self._files.__exit__(kind, error, trace)
