"""Reading image and mask files in all supported encodings, and converting them for prepared sets."""

import io
import struct
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import ExifTags, Image

from tunevlseg_jax.data import deep_colours, heic, tiff
from tunevlseg_jax.data.broken_image import broken_image
from tunevlseg_jax.data.examples import VOID
from tunevlseg_jax.data.images import TIFF, check_pages, decode_deep, decode_rgb, encode_png, is_deep
from tunevlseg_jax.data.mask_values import BinaryRule, distinct, encoding
from tunevlseg_jax.data.seen_encodings import SeenEncodings
from tunevlseg_jax.runtime.errors import UserError

Image.MAX_IMAGE_PIXELS = None  # whole-slide images are large, and no attack
KEPT = ("JPEG", "MPO", "PNG")
LOSSY = ("HEIF", "JPEG", "MPO", "WEBP")
NOISE = 8
"""Largest value that compression leaves in the black areas of a lossy file."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns an image upright, by its EXIF orientation."""
BACK = {6: 8, 8: 6}
"""The orientation that undoes another; the others undo themselves."""
Colour = tuple[int, int, int]


def whole(data: bytes, name: str) -> Image.Image:
    """An image that decodes completely; OpenCV accepts truncated files.

    Raises:
      UserError: it isn't an image, or a broken one, or as in `decode_rgb`.
    """
    data = tiff.corrected(data)
    if heic.is_heic(data):
        return heic.opened(data, name)
    try:
        opened = Image.open(io.BytesIO(data))
        opened.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise broken_image(name) from error
    check_pages(data, name)
    if opened.format == "GIF" and getattr(opened, "n_frames", 1) > 1:
        raise UserError(f"{name} must hold one image, got a GIF of several; save one image per file", "several-pages")
    return opened


def image(data: bytes, name: str) -> tuple[bytes, tuple[int, int]]:
    """An image as `Example` holds it, and its upright (height, width): JPEG and PNG as they are, others as PNG.

    An image of more than 8 bits stays as it is; `data/builders/writer.py` scales it by the window of the whole set.

    Raises:
      UserError: it isn't an image, or it is broken or truncated.
    """
    data = tiff.corrected(data)
    if is_deep(data):
        if data[:4] not in TIFF:  # Pillow knows few types of TIFF
            whole(data, name)
        return data, decode_deep(data, name).shape[:2]
    opened = whole(data, name)
    pixels = decode_rgb(data, name)  # decoded as in training; other libraries may read the orientation differently
    return data if opened.format in KEPT else as_png(pixels, tag_of(data)), pixels.shape[:2]


def as_png(pixels: np.ndarray, tag: int) -> bytes:
    """Upright pixels as a PNG of the same EXIF orientation, by which `check` sees how the photo was stored.

    Args:
      pixels: (height, width, 3) uint8, RGB.
      tag: the orientation, which turns the stored pixels upright; 1 is upright.
    """
    if tag not in TURNS:
        return encode_png(pixels)
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = tag
    Image.fromarray(pixels).transpose(TURNS[BACK.get(tag, tag)]).save(file, "PNG", exif=exif)
    return file.getvalue()


def tag_of(data: bytes) -> int:
    """The EXIF orientation of an image file, 1 without one."""
    try:
        opened = Image.open(io.BytesIO(tiff.corrected(data)))
    except (OSError, SyntaxError, ValueError):  # a type that Pillow doesn't know, such as a TIFF of 64 bits
        return 1
    if opened.format == "TIFF":  # which Pillow turns when it decodes
        tag = getattr(opened, "tag_v2", {}).get(ExifTags.Base.Orientation, 1)
        return tag if tag in TURNS else 1
    turn = turn_of(opened)
    return next((tag for tag, other in TURNS.items() if other == turn), 1)


def values(data: bytes, name: str) -> tuple[np.ndarray, bool]:
    """A mask file's stored values, upright, and whether it is lossless.

    A palette's indices rather than its colours: (height, width) uint8; grey (height, width), 0 and 1 if it has 1 bit;
    colours (height, width, 3) uint8, without alpha.

    Raises:
      UserError: it isn't an image, is broken, or its transparent pixels are at least as bright as the others.
    """
    opened, lossless = _upright(data, name)
    return _stored(opened, name), lossless


def binary(data: bytes, name: str, threshold: int | None = None) -> np.ndarray:
    """(height, width) bool of a binary mask; of colours, the brightest channel.

    In a lossless file with two values the object is the larger one; a single value is the object unless it is 0. With
    two palette colours it is the brighter one, or the larger index if both are equally bright. Other files are cut in
    the middle of the range or at `threshold`, which is compared with palette indices. A lossy file of black and faint
    noise has no object.

    Raises:
      UserError: as in `values`, or it is unclear which pixels are the object.
    """
    opened, lossless = _upright(data, name)
    return _object(opened, _stored(opened, name), lossless, name, threshold)


def object_map(
    data: bytes,
    name: str,
    rule: BinaryRule,
    *,
    label: str = "",
    seen: SeenEncodings | None = None,
    many_values: bool = False,
) -> np.ndarray:
    """(height, width) uint8 of a binary mask: 1 is the object, VOID an ignored pixel.

    Args:
      data: the file's content.
      name: the file's name.
      rule: which values are the object.
      label: the mask's class.
      seen: where the file's values are noted.
      many_values: whether a lossless file may have more than two values without a threshold.

    Raises:
      UserError: as in `binary`, or there are more values.
    """
    opened, lossless = _upright(data, name)
    stored = _stored(opened, name)
    if rule.ignored and not lossless:
        raise UserError(
            f"mask {name} is compressed with loss, so that its values aren't exact; --ignore-value needs PNG or TIFF",
            "options-conflict",
        )
    void = _void(stored, rule.ignored)
    array = _without(stored, void)
    levels = distinct(array if array.ndim == 2 else _packed(array))
    if not many_values and rule.threshold is None and lossless and len(levels) > 2:
        listed = f": {', '.join(map(str, levels.tolist()))}" if array.ndim == 2 and len(levels) < 10 else ""
        raise UserError(
            f"mask {name} has {len(levels)} {'values' if array.ndim == 2 else 'colours'}{listed}, and isn't binary; "
            "give --encoding with --classes, --threshold, or --ignore-value",
            "mask-not-binary",
        )
    if seen is not None:
        seen.add(label, encoding(opened, array, lossless), name)
    pixels = _object(opened, array, lossless, name, rule.threshold, void) != rule.inverted
    return pixels.astype(np.uint8) if void is None else np.where(void, np.uint8(VOID), pixels.astype(np.uint8))


def _object(
    opened: Image.Image,
    array: np.ndarray,
    lossless: bool,
    name: str,
    threshold: int | None,
    void: np.ndarray | None = None,
) -> np.ndarray:
    """(height, width) bool of the object among a file's stored values, as in `binary`."""
    if opened.mode == "P" and threshold is None and len(distinct(array)) <= 2:
        coloured = opened.convert("RGBA")
        bright = _without(np.asarray(coloured)[..., :3].max(-1), void)
        if len(distinct(bright)) == len(distinct(array)):  # else only the indices differ
            array = _without(_stored(coloured, name), void)
    if array.ndim == 3:
        colours, array = array, array.max(-1)
        if array.min() == array.max() and (colours != colours[0, 0]).any():
            raise UserError(
                f"mask {name} has equally bright colours; give --encoding colour with --classes, or use white on black",
                "mask-unclear",
            )
    if threshold is not None:
        if array.dtype != bool and threshold >= (largest := np.iinfo(array.dtype).max):
            raise UserError(f"mask {name} has no value above {largest}; --threshold is {threshold}", "out-of-range")
        return array > threshold
    levels = distinct(array)
    if lossless and len(levels) <= 2:
        return array > (levels[0] if len(levels) == 2 else 0)
    highest = int(levels[-1])
    middle = 127 if highest <= 255 else 32767
    if highest <= middle and (lossless or highest > NOISE):
        raise UserError(
            f"mask {name} has no value above {middle}, so no object; save it white on black, or give --threshold",
            "almost-black",
        )
    return array > middle


def _void(stored: np.ndarray, ignored: Sequence[int]) -> np.ndarray | None:
    """(height, width) bool of the pixels whose value, or whose shade of grey, is ignored; None if none can be."""
    if not ignored:
        return None
    if stored.ndim == 2:
        return np.isin(stored, ignored)
    return np.isin(stored[..., 0], ignored) & (stored == stored[..., :1]).all(-1)


def _without(array: np.ndarray, void: np.ndarray | None) -> np.ndarray:
    """The values with those of ignored pixels replaced by the darkest of the others, or 0 if there are no others."""
    if void is None or not void.any():
        return array
    others = array[~void]
    brightness = others if others.ndim == 1 else others.max(-1)
    replaced = array.copy()
    replaced[void] = others[brightness.argmin()] if len(others) else 0
    return replaced


def by_colour(data: bytes, name: str, table: Mapping[Colour, int], *, nearest: bool | None = None) -> np.ndarray:
    """(height, width) uint8 label map of a colour-coded mask.

    Args:
      data: the file's content.
      name: the file's name, for error messages.
      table: the value of each colour.
      nearest: whether other colours count as the nearest one in the table; None allows this only for lossy files.

    Raises:
      UserError: as in `values`, or a lossless file has a colour that the table lacks.
    """
    opened, lossless = _upright(data, name)
    packed = _packed(np.asarray(opened.convert("RGB")))
    colours = distinct(packed)
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1)
    distances = np.square(channels[:, None] - np.asarray(list(table))[None]).sum(-1)
    furthest = int(distances.min(1).argmax())
    if (lossless if nearest is None else not nearest) and distances[furthest].min():
        raise UserError(
            f"{name} has the colour {tuple(channels[furthest].tolist())}, not of {sorted(table)}; give it a class in "
            "--classes, or void to ignore it",
            "unknown-class",
        )
    numbers = np.zeros(colours.max() + 1, np.uint8)
    numbers[colours] = np.asarray(list(table.values()), np.uint8)[distances.argmin(1)]
    return numbers[packed]


def _upright(data: bytes, name: str) -> tuple[Image.Image, bool]:
    """A mask file, decoded and turned as OpenCV turns images, and whether it is lossless."""
    opened = whole(data, name)
    lossless = opened.format not in LOSSY or data[12:16] == b"VP8L"  # a WebP may be lossless
    turn, exact = turn_of(opened), deep_colours.exact(opened, data, name)
    return exact if turn is None else exact.transpose(turn), lossless


def turn_of(opened: Image.Image) -> Image.Transpose | None:
    """The operation that turns an opened image upright, by its EXIF orientation; None if it is upright."""
    exif = Image.Exif()
    try:
        with warnings.catch_warnings(action="ignore"):  # of blocks that end too soon
            exif.load(opened.info.get("exif", b""))  # not getexif, which looks into XMP as well
            return TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, struct.error):  # a broken block is ignored
        return None


def _stored(opened: Image.Image, name: str) -> np.ndarray:
    """The values of an opened mask, as in `values`."""
    if opened.mode in ("L", "P", "1", "F") or opened.mode.startswith("I"):
        array = np.asarray(opened)
        array = whole_numbers(array, name) if opened.mode == "F" else array
        if array.min() < 0 or array.max() > 65535:
            raise UserError(f"mask {name} must be from 0 to 65535, got {array.min()} to {array.max()}", "out-of-range")
        return array.astype(np.uint8) if array.dtype == bool else array
    array = np.asarray(opened.getchannel(0) if opened.mode in ("LA", "PA") else opened.convert("RGB"))
    if "A" in opened.getbands():
        alpha, bright = np.asarray(opened.getchannel("A")), array if array.ndim == 2 else array.max(-1)
        clear = alpha <= (int(alpha.min()) + int(alpha.max())) // 2
        if not clear.all() and bright[clear].max() >= bright[~clear].max():
            raise UserError(
                f"mask {name} is at least as bright where transparent; save it without transparency, white on black",
                "mask-unclear",
            )
    return array


def whole_numbers(array: np.ndarray, name: str) -> np.ndarray:
    """An array of whole numbers that may be stored as floating-point numbers, as integers.

    Raises:
      UserError: a number isn't whole; the message has the first such number.
    """
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind != "f":
        raise UserError(f"mask {name} must hold whole numbers, got {array.dtype}", "wrong-type")
    fractions = array[~np.isfinite(array) | (array != np.rint(array))]
    if len(fractions):
        raise UserError(f"mask {name} must hold whole numbers, got {fractions[0]:g}", "wrong-type")
    if np.abs(array).max(initial=0) > 65535:
        raise UserError(f"mask {name} must be from 0 to 65535, got {array.min():g} to {array.max():g}", "out-of-range")
    return array.astype(np.int32)


def _packed(colours: np.ndarray) -> np.ndarray:
    """(height, width) int32 of (height, width, 3) uint8: one number for each colour."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def check_size(mask: np.ndarray, size: tuple[int, int], name: str, image_name: str) -> None:
    """Raises a UserError if a mask's size differs from its image's."""
    if mask.shape[:2] != size:
        height, width = mask.shape[:2]
        message = f"mask {name} is {width}x{height}, its image {image_name} {size[1]}x{size[0]}"
        if mask.shape[:2] == size[::-1]:
            message += "; a photo is turned as its EXIF says, and its mask must be turned as well"
        raise UserError(message, "mask-size")


def check_values(mask: np.ndarray, allowed: Sequence[int], name: str) -> None:
    """Raises a UserError if a label map has a value that isn't allowed."""
    if unknown := sorted(set(distinct(mask).tolist()) - set(allowed)):
        message = f"mask {name} has the value {unknown[0]}; the classes have {sorted(allowed)}"
        raise UserError(f"{message}; give it a class in --classes, or void to ignore it", "unknown-class")
