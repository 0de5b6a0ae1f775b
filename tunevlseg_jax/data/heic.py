"""HEIC and HEIF files, the photographs of phones, which pillow-heif reads."""

import io
from pathlib import Path

from PIL import Image

from tunevlseg_jax.data.broken_image import broken_image
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_heif


def is_heic(data: bytes) -> bool:
    """Whether an encoded image is HEIC or HEIF, by its header."""
    return data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif", b"msf")


def opened(data: bytes, name: Path | str) -> Image.Image:
    """A HEIC file's one image, decoded, and upright: pillow-heif turns the pixels and resets the EXIF orientation.

    Raises:
      UserError: pillow-heif isn't installed, or the file is broken or has several images.
    """
    import_heif(str(name)).register_heif_opener()
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise broken_image(name) from error
    if (count := getattr(image, "n_frames", 1)) > 1:
        raise UserError(f"{name} must hold one image, got {count}; save one image per file", "several-pages")
    return image
