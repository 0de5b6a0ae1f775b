"""The one place where an input file becomes frames: uint8 RGB images, with the size of a pixel where it is known."""

import contextlib
import hashlib
import io
import itertools
import os
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, ImageSequence

from tunevlseg_jax.data import heic, tiff, windows
from tunevlseg_jax.data.broken_image import broken_image
from tunevlseg_jax.data.images import SUFFIXES, decode_deep, decode_rgb, is_deep, read_bytes
from tunevlseg_jax.data.windows import Range, Window
from tunevlseg_jax.runtime import exchange
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_heif

ANIMATED = (".gif",)
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
KNOWN = (*SUFFIXES, *ANIMATED, *VIDEOS)
"""The endings of files that are read from a folder."""
MANY = ("GIF", "HEIF", "PNG", "TIFF", "WEBP")
"""The formats whose further images are frames; those of others, such as MPO, are previews."""
Image.MAX_IMAGE_PIXELS = None  # whole-slide images are large, and no attack
BROKEN = (OSError, SyntaxError, TypeError, ValueError, KeyError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for broken files."""
Take = Literal["first", "all"]


class Frame(NamedTuple):
    """An image of a file.

    Attributes:
      number: from 1 in a file of several frames of which all are taken; None for the one image of a file.
      image: (height, width, 3) uint8, RGB, upright.
      spacing: height and width of a pixel in millimetres; None where they are unknown.
    """

    number: int | None
    image: np.ndarray
    spacing: tuple[float, float] | None = None


@dataclass(frozen=True)
class Opened:
    """A file whose frames can be read.

    Attributes:
      path: of the file.
      images: starts reading its images, (height, width, 3) uint8 RGB each, one after another.
      count: number of frames in the file; of a video, as its header says.
      rate: frames a second of a video; None for images.
      spacing: height and width of a pixel in millimetres; None where they are unknown.
    """

    path: Path
    images: Callable[[], Iterator[np.ndarray]]
    count: int = 1
    rate: float | None = None
    spacing: tuple[float, float] | None = None

    def frames(self, take: Take) -> Iterator[Frame]:
        """The first frame, or all one after another.

        Raises:
          UserError: a frame can't be decoded.
        """
        if self.has_numbers(take):
            yield from (Frame(number, image, self.spacing) for number, image in enumerate(self.images(), 1))
        else:
            yield Frame(None, next(self.images()), self.spacing)

    def has_numbers(self, take: Take) -> bool:
        """Whether the frames are numbered, as several are."""
        return take == "all" and (self.count > 1 or self.is_video)

    @property
    def is_video(self) -> bool:
        """Whether this is a video."""
        return self.rate is not None


def open_file(path: Path, data: bytes | None = None, window: Window | None = None) -> Opened:
    """Opens an image, an animation or a video.

    Args:
      path: of the file.
      data: its bytes if they were read already.
      window: of an image of more than 8 bits; None for that of `windows.default`.

    Raises:
      UserError: the file can't be read, isn't an image or a video, or needs a package that isn't installed.
    """
    if is_video(path):
        return _open_video(path)
    data = read_bytes(path) if data is None else data
    if heic.is_heic(data):
        import_heif(str(path)).register_heif_opener()
    elif is_deep(corrected := tiff.corrected(data)):
        return Opened(path, lambda: iter([_scaled(decode_deep(corrected, path), window)]))
    elif (count := _pages(data)) == 1 and path.suffix.lower() not in ANIMATED:
        return Opened(path, lambda: iter([decode_rgb(data, path)]))
    else:
        return Opened(path, lambda: _of_pillow(data, path), count)
    return Opened(path, lambda: _of_pillow(data, path), _pages(data))


def is_video(path: Path) -> bool:
    """Whether a file's ending is a video's."""
    return path.suffix.lower() in VIDEOS


def first_values(path: Path) -> np.ndarray:
    """(height, width, 3) of a file's only or first frame: uint8, or the values of an image of more than 8 bits.

    Raises:
      UserError: as in `open_file`.
    """
    if not is_video(path) and is_deep(data := tiff.corrected(read_bytes(path))):
        return decode_deep(data, path)
    return next(open_file(path).frames("first")).image


def digest(data: bytes, window: Window | None) -> str:
    """The SHA-256 of an image file, and for images of more than 8 bits of the window that scales them."""
    content = hashlib.sha256(data)
    if is_deep(tiff.corrected(data)):
        content.update(repr(window).encode())
    return content.hexdigest()


def ranges_of(paths: Sequence[Path]) -> list[tuple[str, Range]]:
    """The name and the range of each image of more than 8 bits among the files.

    Several processes read a part of the files each.
    """
    ranges = []
    for path in exchange.block(paths):
        if path.is_file() and not is_video(path) and is_deep(data := tiff.corrected(read_bytes(path))):
            with contextlib.suppress(UserError):  # a broken file is reported when its turn comes
                ranges.append((str(path), windows.value_range(decode_deep(data, path))))
    return list(itertools.chain.from_iterable(exchange.gather(ranges)))


def _scaled(values: np.ndarray, window: Window | None) -> np.ndarray:
    return windows.scaled(values, window or windows.default(windows.value_range(values)))


def _pages(data: bytes) -> int:
    """The number of an image file's frames, one more where it is cut off; 1 for a file that Pillow doesn't read."""
    pages = 0
    try:
        with without_warnings(), Image.open(io.BytesIO(data)) as image:
            if image.format not in MANY:
                return 1
            for page in ImageSequence.Iterator(image):
                pages += _is_page(page)
            return pages + (image.format == "GIF" and not data.rstrip(b"\0").endswith(b";"))
    except BROKEN:
        return pages + 1


def _is_page(page: Image.Image) -> bool:
    """Whether this is an image of its own; reduced copies and transparency masks of a TIFF aren't."""
    return not getattr(page, "tag_v2", {}).get(254, 0) & 5


def _of_pillow(data: bytes, path: Path) -> Iterator[np.ndarray]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            pages = filter(_is_page, ImageSequence.Iterator(image))
            while (page := _next_rgb(pages, path)) is not None:
                yield page
    except BROKEN as error:
        raise error if isinstance(error, UserError) else broken_image(path) from error


def _next_rgb(pages: Iterator[Image.Image], path: Path) -> np.ndarray | None:
    """The next page, upright; None after the last."""
    with without_warnings():
        page = next(pages, None)
        if page is None:
            return None
        if page.mode[0] in "IF":  # Pillow would cut off whatever is above 255
            raise UserError(f"{path} has pages of more than 8 bits; save one image per file", "several-pages")
        return np.asarray(ImageOps.exif_transpose(page).convert("RGB"))


def without_warnings() -> warnings.catch_warnings:
    """A block without Pillow's warnings about broken metadata, such as that of a file that ends early."""
    return warnings.catch_warnings(action="ignore")


def _open_video(path: Path) -> Opened:
    capture = _capture(path)
    count, rate = (capture.get(name) for name in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
    capture.release()
    return Opened(path, lambda: _of_video(path), max(1, round(count)), rate if rate > 0 else 25.0)


def _of_video(path: Path) -> Iterator[np.ndarray]:
    capture = _capture(path)
    try:
        while True:
            more, image = capture.retrieve()
            if not more:
                return
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            if not capture.grab():
                return
    finally:
        capture.release()


def _capture(path: Path) -> cv2.VideoCapture:
    """An opened video that has a first frame, which is grabbed."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg would also print its own message
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened() or not capture.grab():
        raise UserError(
            f"can't decode {path}: it is not a video, or a broken one; copy or convert it again", "undecodable"
        )
    return capture
