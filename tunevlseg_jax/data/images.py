"""Reading and writing image files."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageSequence, TiffImagePlugin

from tunevlseg_jax.data import tiff
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_file

# OpenCV would also print its own message for a file that `read_rgb` reports.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
DEEP = 4096
"""16-bit images whose values all lie below this are taken for exports of 10 or 12 bits."""


def read_rgb(path: Path) -> np.ndarray:
    """(height, width, 3) uint8, RGB, turned upright as its EXIF says; grey is repeated, alpha dropped.

    Raises:
      UserError: the file can't be read, or as in `decode_rgb`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}", "unreadable") from error
    return decode_rgb(data, path)


def decode_rgb(data: bytes, name: Path | str) -> np.ndarray:
    """(height, width, 3) uint8 of an encoded image, as `read_rgb`; `name` is for error messages.

    Raises:
      UserError: it isn't an image, is a TIFF of several pages, or has 16 bits of which only the lowest 12 are used.
    """
    data = tiff.corrected(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # more pixels than OpenCV takes
        image = None
    if image is None:
        raise UserError(f"can't decode {name}: it is not an image, or a broken one", "undecodable")
    check_pages(data, name)
    if image.max() <= DEEP >> 8:  # may be 12 bits in 16, of which OpenCV keeps the upper 8
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if stored is not None and stored.dtype == np.uint16 and 0 < (highest := int(stored.max())) < DEEP:
            raise UserError(f"{name} has 16 bits but no value above {highest}; window it to 8 bits", "almost-black")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_pages(data: bytes, name: Path | str) -> None:
    """Raises a UserError for a TIFF of several pages, of which only the first would be used."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return
    pages = 0
    try:
        for _ in ImageSequence.Iterator(file := TiffImagePlugin.TiffImageFile(io.BytesIO(data))):
            pages += not file.tag_v2.get(254, 0) & 5  # reduced copies and transparency masks don't count
    except (OSError, SyntaxError, TypeError, ValueError, KeyError, struct.error):
        pass  # a later page is broken; the first has been decoded
    if pages > 1:
        raise UserError(f"{name} must hold one image, got {pages} pages; save one image per file", "several-pages")


def encode_png(image: np.ndarray) -> bytes:
    """(height, width) or (height, width, 3) RGB uint8 as a PNG."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image)[1].tobytes()


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes (height, width) or (height, width, 3) RGB uint8 atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(encode_png(image))


def resize(image: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """(height, width, ...) resized to (height, width) with one of OpenCV's interpolations, as in the paper."""
    return cv2.resize(image, size[::-1], interpolation=interpolation)  # OpenCV takes the width first
