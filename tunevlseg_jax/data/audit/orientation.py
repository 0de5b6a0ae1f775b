"""Masks that were drawn on a photo as it is stored, not as its EXIF orientation turns it.

A mask that fits has the image's edges under its outline. The image's gradient across the outline, averaged along it, is
large there, and smaller wherever else the mask is shifted to; the average over all shifts is one correlation.
"""

from collections.abc import Sequence
from enum import Enum

import cv2
import numpy as np
from PIL import Image

from tunevlseg_jax.data import mask_files

SIDE = 128
"""The longer side at which images are compared, in pixels."""
SMOOTHING = 1.0
"""Standard deviation of the Gaussian that gradients are taken of, in pixels."""
STEEP = 80
"""Percentile that steeper gradients are cut to, so that the dark corners of an endoscope's image don't outweigh."""
TIMES = 2.0
"""The turned mask must fit so much better than the mask as it is."""
OF_PEAK = 0.9
"""It must fit nearly as well as after any shift of up to an eighth of the side."""
OF_SHIFTS = 0.99
"""And better than after this share of all shifts."""
CHANCE = 0.06
"""Largest share of masks without an edge in the image that do all this by chance."""


def is_turned(encoded: bytes) -> bool:
    """Whether an image file has an EXIF orientation that turns or flips it."""
    return _turn(encoded) is not None


class Vote(Enum):
    """What a photo with an EXIF orientation says of its masks.

    TURNED: they fit as the orientation turns the photo. STORED: they fit as the file stores it. UNCLEAR: neither.
    """

    TURNED = "turned"
    STORED = "stored"
    UNCLEAR = "unclear"


def vote(encoded: bytes, image: np.ndarray, masks: Sequence[np.ndarray]) -> Vote | None:
    """How masks fit a photo; None if it has no orientation, or one that can't be mistaken.

    Args:
      encoded: the image file.
      image: (height, width, 3) uint8, the image turned upright.
      masks: (height, width) bool each, as they are used.
    """
    turn = _turn(encoded)
    shown = [mask for mask in masks if mask.any() and not mask.all()]
    if turn is None or not shown or any(mask.shape != image.shape[:2] for mask in shown):
        return None
    turned = [np.asarray(Image.fromarray(mask).transpose(turn)) for mask in shown]
    if turned[0].shape != shown[0].shape:  # a quarter turn of a photo that isn't square
        return None
    gradient = _gradient(_resized(image))
    steepness = np.linalg.norm(gradient, axis=0, keepdims=True)
    gradient *= np.minimum(1, np.percentile(steepness, STEEP) / (steepness + 1e-6))
    fits = [np.sum([_fit(gradient, _resized(mask.astype(np.uint8))) for mask in group], 0) for group in (shown, turned)]
    as_is, drawn = fits
    if _fits_better(drawn, as_is):
        return Vote.STORED
    return Vote.TURNED if _fits_better(as_is, drawn) else Vote.UNCLEAR


def unturned(votes: Sequence[Vote | None]) -> list[int]:
    """The images whose masks fit the photo as it is stored, unless there are no more such than chance explains."""
    stored = [number for number, one in enumerate(votes) if one is Vote.STORED]
    by_chance = CHANCE * sum(one is Vote.UNCLEAR for one in votes)
    return stored if len(stored) > by_chance + 2 * by_chance**0.5 else []


def _fits_better(fit: np.ndarray, other: np.ndarray) -> bool:
    """Whether a mask fits clearly where it is, and better than the other, given the fits after each shift."""
    here = _near(fit, 1).max()
    is_peak = here >= OF_PEAK * _near(fit, SIDE // 8).max()
    return bool(here > TIMES * _near(other, 1).max() and is_peak and (fit < here).mean() >= OF_SHIFTS)


def _turn(encoded: bytes) -> Image.Transpose | None:
    return mask_files.TURNS.get(mask_files.tag_of(encoded))


def _resized(array: np.ndarray) -> np.ndarray:
    """(height, width, channel) float32, with the longer side SIDE and at least 16 pixels a side."""
    height, width = array.shape[:2]
    scale = SIDE / max(height, width)
    size = max(16, round(width * scale)), max(16, round(height * scale))
    small = cv2.resize(array, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.atleast_3d(cv2.GaussianBlur(small.astype(np.float32), (0, 0), SMOOTHING))


def _gradient(array: np.ndarray) -> np.ndarray:
    """(2, height, width, channel), down and to the right; 0 at the border."""
    steps = np.zeros((2, *array.shape), np.float32)
    steps[0, 1:-1] = array[2:] - array[:-2]
    steps[1, :, 1:-1] = array[:, 2:] - array[:, :-2]
    return steps


def _fit(gradient: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(height, width): the image's mean gradient across the outline after each cyclic shift of the mask."""
    outline = _gradient(mask)
    spectrum = np.fft.rfft2(gradient, axes=(1, 2)) * np.conj(np.fft.rfft2(outline, axes=(1, 2)))
    flux = np.fft.irfft2(spectrum.sum(0), s=mask.shape[:2], axes=(0, 1))
    return np.linalg.norm(flux, axis=-1) / (np.linalg.norm(outline, axis=0).sum() + 1e-6)


def _near(fit: np.ndarray, radius: int) -> np.ndarray:
    """The fits after shifts of up to `radius` pixels."""
    shifts = np.arange(-radius, radius + 1)
    return fit.take(shifts, axis=0, mode="wrap").take(shifts, axis=1, mode="wrap")
