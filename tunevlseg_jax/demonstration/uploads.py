"""Images that a browser sends: decoded in memory, within limits, and never written to disk."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tunevlseg_jax.data import heic
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.prediction import frames
from tunevlseg_jax.prediction.frames import Opened
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_heif

NAME = Path("the image")
"""Of an upload in messages; without an ending, because its content decides the format."""
MOST_FRAMES = 64
"""Of an animation, of which the first is taken; more are refused, because reading a file counts them."""


class Limits(NamedTuple):
    """What an upload may hold at most.

    Attributes:
      bytes: of the file.
      pixels: of the decoded image.
    """

    bytes: int
    pixels: int


def check(data: bytes, limits: Limits) -> None:
    """Refuses what isn't an image or is too large, by its header, before it is decoded.

    Raises:
      UserError: the file is empty or no image, or has more bytes, pixels or frames than the limits.
    """
    if not data:
        raise UserError(f"{NAME} is empty; choose an image file", "no-images")
    if len(data) > limits.bytes:
        size, most = len(data) / 2**20, limits.bytes / 2**20
        raise UserError(f"{NAME} has {size:.1f} MiB, and at most {most:.0f} are taken; save it smaller", "out-of-range")
    if heic.is_heic(data):
        import_heif(str(NAME)).register_heif_opener()
    try:
        with frames.without_warnings(), Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            count = getattr(image, "n_frames", 1)
    except Exception as error:  # Pillow raises nearly anything for headers that are made to mislead
        raise UserError(f"can't decode {NAME}: it is not an image, or a broken one", "undecodable") from error
    if width * height > limits.pixels:
        megapixels, most = width * height / 1e6, limits.pixels / 1e6
        raise UserError(
            f"{NAME} has {megapixels:.0f} megapixels, and at most {most:.0f} are taken; save it smaller", "out-of-range"
        )
    if count > MOST_FRAMES:
        raise UserError(f"{NAME} has {count} frames, and at most {MOST_FRAMES} are taken", "out-of-range")


def opened(data: bytes, window: Window | None) -> Opened:
    """A checked upload as prediction opens a file.

    Raises:
      UserError: the file is broken.
    """
    return frames.open_file(NAME.with_suffix(".gif") if data[:3] == b"GIF" else NAME, data, window)


def decode(data: bytes, window: Window | None) -> np.ndarray:
    """(height, width, 3) uint8, RGB, upright: the first frame of a checked upload.

    Raises:
      UserError: the file is broken.
    """
    try:
        return next(opened(data, window).frames("first")).image
    except UserError:
        raise
    except Exception as error:  # as in `check`
        raise UserError(f"can't decode {NAME}: it is not an image, or a broken one", "undecodable") from error
