"""Reading and writing image files."""

import contextlib
import io
import struct
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageSequence, TiffImagePlugin

from tunevlseg_jax.data import heic, tiff, windows
from tunevlseg_jax.data.broken_image import broken_image
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_file

# OpenCV would also print its own message for a file that `read_rgb` reports.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

SUFFIXES = (".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of TIFF and BigTIFF files."""


def read_rgb(path: Path, window: Window | None = None) -> np.ndarray:
    """(height, width, 3) uint8, RGB, turned upright as its EXIF says; grey is repeated, alpha dropped.

    Args:
      path: the file.
      window: of an image of more than 8 bits; None for that of `windows.default`. Others are taken as they are.

    Raises:
      UserError: the file can't be read, or as in `decode_rgb`.
    """
    values = read_values(path)
    if values.dtype == np.uint8:
        return values
    return windows.scaled(values, window or windows.default(windows.value_range(values)))


def read_values(path: Path) -> np.ndarray:
    """(height, width, 3) as `read_rgb`, but an image of more than 8 bits has the type and values of the file."""
    data = tiff.corrected(read_bytes(path))
    return decode_deep(data, path) if is_deep(data) else decode_rgb(data, path)


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
      UserError: it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}", "unreadable") from error


def is_deep(data: bytes) -> bool:
    """Whether an encoded image has more than 8 bits a sample, or signed or floating-point samples; by its header."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[24:25] == b"\x10"
    tags = _tiff_tags(data)
    return max(tags.get(tiff.BITS, (1,)), default=1) > 8 or max(tags.get(tiff.SAMPLE_FORMAT, (1,)), default=1) in (2, 3)


def decode_deep(data: bytes, name: Path | str) -> np.ndarray:
    """(height, width, 3) values of an image that `is_deep`, with the type of the file; otherwise as `decode_rgb`.

    Raises:
      UserError: it can't be decoded, has no finite value, or is a TIFF of several pages.
    """
    values = None
    for how in (cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, cv2.IMREAD_UNCHANGED):  # the first takes fewer types
        with contextlib.suppress(cv2.error):
            values = cv2.imdecode(np.frombuffer(data, np.uint8), how) if values is None else values
    if values is None:
        raise broken_image(name)
    check_pages(data, name)
    if values.dtype.kind == "f" and not np.isfinite(values).any():
        message = f"{name} has no value but NaN and infinity; save it again, or leave it out"
        raise UserError(message, "undecodable")
    if values.ndim == 2 or values.shape[2] < 3:
        return np.repeat(values.reshape(*values.shape[:2], -1)[..., :1], 3, axis=2)
    return np.ascontiguousarray(values[..., 2::-1])  # BGR or BGRA


def decode_rgb(data: bytes, name: Path | str) -> np.ndarray:
    """(height, width, 3) uint8 of an encoded image, as `read_rgb`; `name` is for error messages.

    Of 16 bits the upper 8 are kept, for prepared sets of earlier versions; new sets hold 8 bits.

    Raises:
      UserError: it isn't an image, is a TIFF or HEIC file of several, or is HEIC without pillow-heif.
    """
    data = tiff.corrected(data)
    if heic.is_heic(data):
        return np.asarray(heic.opened(data, name).convert("RGB"))
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # more pixels than OpenCV takes
        image = None
    if image is None:
        raise broken_image(name)
    check_pages(data, name)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_pages(data: bytes, name: Path | str) -> None:
    """Raises a UserError for a TIFF of several pages, of which only the first would be used."""
    if data[:4] not in TIFF:
        return
    pages = 0
    try:
        for _ in ImageSequence.Iterator(file := TiffImagePlugin.TiffImageFile(io.BytesIO(data))):
            pages += not file.tag_v2.get(254, 0) & 5  # reduced copies and transparency masks don't count
    except (OSError, SyntaxError, TypeError, ValueError, KeyError, struct.error):
        pass  # a later page is broken; the first has been decoded
    if pages > 1:
        raise UserError(f"{name} must hold one image, got {pages} pages; save one image per file", "several-pages")


def _tiff_tags(data: bytes) -> dict[int, Any]:
    """BitsPerSample and SampleFormat of a TIFF's first page."""
    if data[:4] not in TIFF:
        return {}
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])
        (file := io.BytesIO(data)).seek(tags.next)
        with warnings.catch_warnings(action="ignore"):  # Pillow's, of a file that ends early
            tags.load(file)
        return {tag: tags[tag] for tag in (tiff.BITS, tiff.SAMPLE_FORMAT) if tag in tags}
    except (OSError, SyntaxError, TypeError, ValueError, KeyError, struct.error):
        return {}  # broken, as decoding will say


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


def size_with_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """A (height, width) scaled to a longer side."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
