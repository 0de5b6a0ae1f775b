"""Masks of the shapes that annotation tools draw."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from tunevlseg_jax.data.builders import rle
from tunevlseg_jax.data.builders.user_files import Draw, Mask, Size
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_pycocotools

FURTHEST = 10
"""A point may lie this many image sizes away; further ones are in other units, and slow to draw."""
CORNERS = 180
"""Corners of the polygon that stands for an ellipse."""


def mask(where: str, label: Any, draw: Draw, size: Size | None = None) -> Mask:
    """A shape of a class, which asks for it by its name.

    Args:
      where: the entry and its file, for error messages.
      label: the class's name.
      draw: the shape's pixels in an image of a size.
      size: (height, width) of the image, as the annotations say.

    Raises:
      UserError: the name isn't a text, or is empty.
    """
    if not isinstance(label, str) or not label.strip():
        raise UserError(f"{where} has no class name, got {label!r}", "missing-field")
    return Mask(where, label.strip(), (label.strip(),), draw if size is None else partial(_sized, where, draw, size))


def _sized(where: str, draw: Draw, stated: Size, size: Size) -> np.ndarray:
    if stated != size:
        turned = "; it may be turned by its EXIF orientation: annotate it upright" if stated == size[::-1] else ""
        raise UserError(
            f"{where} is drawn on an image of {stated[1]}x{stated[0]}, but the image has {size[1]}x{size[0]}{turned}",
            "mask-size",
        )
    return draw(size)


def ring(points: Any, where: str) -> np.ndarray:
    """(point, 2) float64, x and y in pixels, of a polygon's points as pairs or in one row.

    Raises:
      UserError: they aren't finite numbers, or fewer than three points.
    """
    try:
        array = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} must have points of two numbers, got {str(points)[:80]}", "wrong-json") from error
    if array.ndim == 1 and array.size % 2 == 0:
        array = array.reshape(-1, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise UserError(f"{where} must have points of two numbers, got {str(points)[:80]}", "wrong-json")
    if not np.isfinite(array).all():
        raise UserError(f"{where} has a point that is infinite or not a number", "out-of-range")
    if len(array) < 3:
        raise UserError(f"{where} is a polygon of {len(array)} points; it must have at least 3", "too-few-points")
    return array


def numbers(values: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Finite float64 numbers of a shape.

    Raises:
      UserError: they aren't.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} must have numbers, got {str(values)[:80]}", "wrong-json") from error
    if array.shape != shape:
        raise UserError(f"{where} must have {math.prod(shape)} numbers, got {str(values)[:80]}", "wrong-json")
    if not np.isfinite(array).all():
        raise UserError(f"{where} has a point that is infinite or not a number", "out-of-range")
    return array


def place(values: Any, where: str) -> tuple[int, int]:
    """(x, y) of a pixel.

    Raises:
      UserError: they aren't two numbers, or too large.
    """
    x, y = numbers(values, (2,), where).round().clip(-(2**31), 2**31).astype(int).tolist()
    return x, y


def rectangle(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    """The corners of a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def ellipse(centre: Sequence[float] | np.ndarray, radii: Sequence[float] | np.ndarray) -> np.ndarray:
    """(point, 2) corners on an ellipse."""
    angles = np.linspace(0, 2 * math.pi, CORNERS, endpoint=False)
    return np.asarray(centre) + np.stack([np.cos(angles) * radii[0], np.sin(angles) * radii[1]], -1)


def rotated(points: Any, degrees: float, around: Sequence[float] | np.ndarray) -> np.ndarray:
    """Points turned clockwise, as images have their y axis downwards."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (np.asarray(points) - np.asarray(around)) @ np.asarray([[cos, sin], [-sin, cos]]) + np.asarray(around)


def polygons(where: str, rings: Sequence[np.ndarray], holes: Sequence[np.ndarray] = ()) -> Draw:
    """The insides of rings together, without their holes; the parts outside of an image are cut off."""
    return partial(_fill, where, rings, holes)


def _fill(where: str, rings: Sequence[np.ndarray], holes: Sequence[np.ndarray], size: Size) -> np.ndarray:
    limits = np.asarray(size[::-1])
    for points in (*rings, *holes):
        if (np.abs(points) > limits * FURTHEST).any():
            furthest = points[np.abs(points / limits).max(1).argmax()].tolist()
            raise UserError(f"{where} has the point {furthest}, far outside of {size[1]}x{size[0]}", "outside-image")
    if all((points.max(0) <= 0).any() or (points.min(0) >= limits).any() for points in rings):
        raise UserError(f"{where} lies outside of its image of {size[1]}x{size[0]}", "outside-image")
    filled = _inside(rings, size)
    return filled & ~_inside(holes, size) if holes else filled


def _inside(rings: Sequence[np.ndarray], size: Size) -> np.ndarray:
    coco = import_pycocotools("drawing polygons")
    merged = coco.merge(coco.frPyObjects([points.ravel().tolist() for points in rings], *size))
    return rle.decode(rle.counts(merged["counts"]), size)  # pycocotools's decode warns under NumPy 2


def runs(where: str, counts: Any, size: Size, *, by_rows: bool = False) -> np.ndarray:
    """(height, width) bool of run lengths, background first, down the columns as in COCO or along the rows.

    pycocotools reads on behind the end of a text that is cut off, so it doesn't decode here.

    Raises:
      UserError: they aren't run lengths, or cover another number of pixels.
    """
    try:
        lengths = rle.counts(counts) if isinstance(counts, str) else [int(count) for count in counts]
        return rle.decode(lengths, (size[1], size[0])).T if by_rows else rle.decode(lengths, size)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where} has broken run lengths: {error}", "undecodable") from error


def pasted(where: str, patch: np.ndarray, origin: tuple[int, int]) -> Draw:
    """A (height, width) bool patch whose first pixel lies at (x, y); what lies outside of the image is cut off."""
    return partial(_paste, where, patch, origin)


def _paste(where: str, patch: np.ndarray, origin: tuple[int, int], size: Size) -> np.ndarray:
    pixels = np.zeros(size, bool)
    left, top = origin
    target = pixels[max(top, 0) : max(top + patch.shape[0], 0), max(left, 0) : max(left + patch.shape[1], 0)]
    if not target.size:
        raise UserError(f"{where} lies outside of its image of {size[1]}x{size[0]}", "outside-image")
    inside = patch[max(-top, 0) :, max(-left, 0) :]
    target[:] = inside[: target.shape[0], : target.shape[1]]
    return pixels
