"""Intensity windows: how images of more than 8 bits become 8-bit ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunevlseg_jax.runtime.errors import UserError, nearest

Window = tuple[float, float] | Literal["percentile", "dicom"]
"""The values that become 0 and 255, or a rule that finds them in each image or volume."""
RULES = ("percentile", "dicom")
PERCENTILES = (0.5, 99.5)
"""Of an image's or volume's values, the ones that "percentile" maps to 0 and 255."""
BITS = (8, 10, 12, 14, 16, 32)
"""Depths that scanners and cameras have."""

NARROW = 0.1
"""An image that uses a smaller share of a window is nearly of one shade afterwards."""


@dataclass(frozen=True)
class Range:
    """The smallest and the largest finite value of some images, and whether all values are whole numbers."""

    low: float
    high: float
    whole: bool


def parse(given: Sequence[str], *, dicom: bool = False) -> Window | None:
    """The window in `--window`: two numbers, a rule, or None if nothing is given.

    Args:
      given: the option's values.
      dicom: whether the files are DICOM, which may have windows of their own.

    Raises:
      UserError: it is none of these.
    """
    if not given:
        return None
    rules = [rule for rule in RULES if dicom or rule != "dicom"]
    if len(given) == 1 and given[0] in rules:
        return "dicom" if given[0] == "dicom" else "percentile"
    try:
        low, high = map(float, given)
    except ValueError as error:
        hint = nearest(given[0], rules) if len(given) == 1 else ""
        raise UserError(
            f"--window must be LOW HIGH or {' or '.join(rules)}, got {' '.join(given)}{hint}", "wrong-window"
        ) from error
    return checked((low, high), "--window")


def checked(window: Window | None, name: str = "window") -> Window | None:
    """The window, unless its numbers are out of order.

    Raises:
      UserError: LOW isn't below HIGH, or one isn't finite, or there is no such rule.
    """
    if window is None or (isinstance(window, str) and window in RULES):
        return window
    try:
        low, high = map(float, window)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be (low, high) or {RULES[0]!r}, got {window!r}", "wrong-window") from error
    if not (np.isfinite([low, high]).all() and low < high):
        raise UserError(f"{name} must have a LOW below its HIGH, both finite, got {low:g} {high:g}", "wrong-window")
    return low, high


def value_range(values: np.ndarray) -> Range:
    """The range of an array; NaN and infinite values don't count."""
    whole = values.dtype.kind in "bui"
    finite = values if whole else values[np.isfinite(values)]
    if not finite.size:
        return Range(0, 0, whole)
    return Range(float(finite.min()), float(finite.max()), whole)


def joined(ranges: Iterable[Range]) -> Range:
    """The range of several images together."""
    ranges = list(ranges)
    return Range(min(one.low for one in ranges), max(one.high for one in ranges), all(one.whole for one in ranges))


def default(values: Range) -> tuple[float, float]:
    """The window of deep images without a given one, from the range of all of them.

    It is one for all of a set's images, so equal values stay equal. Whole numbers from 0 on take the smallest of 8, 10,
    12, 14, 16 and 32 bits that holds them; fractions from 0 to 1 take 0 to 1; others their own range.
    """
    low, high, whole = values.low, values.high, values.whole
    if low >= 0:
        if whole:
            return 0.0, float(2 ** next(bits for bits in BITS if high < 2**bits) - 1)
        if high <= 1:
            return 0.0, 1.0
    return (low, high) if low < high else (low, low + 1)


def flattened(ranges: Sequence[tuple[str, Range]], window: Window) -> str:
    """A line on the images of which a window leaves nearly one shade, "" if there are none.

    Args:
      ranges: the name and the range of each image.
      window: the values that become 0 and 255; a rule fits each image.
    """
    if isinstance(window, str):
        return ""
    low, high = window
    flat = [one for one in ranges if min(one[1].high, high) - max(one[1].low, low) < NARROW * (high - low)]
    if not flat:
        return ""
    name, values = flat[0]
    return (
        f"{len(flat)} of {len(ranges)} images of more than 8 bits use less than a tenth of the window {low:g} to "
        f"{high:g}, such as {name!r} with values from {values.low:g} to {values.high:g}: they are nearly of one shade, "
        "perhaps of another depth; --window percentile scales each by itself"
    )


def scaled(values: np.ndarray, window: Window) -> np.ndarray:
    """The values as uint8: `window` becomes 0 to 255, values beyond it are 0 or 255, NaN is 0."""
    values = values.astype(np.float32) if values.dtype.itemsize <= 2 else values.astype(np.float64)
    if isinstance(window, str):
        finite = values[np.isfinite(values)]
        # Values that occur, so that grey repeated to three channels has the same percentiles.
        ends = np.percentile(finite, PERCENTILES, method="inverted_cdf") if finite.size else (0.0, 1.0)
        low, high = map(float, ends)
    else:
        low, high = window
    if low >= high:  # an image of one value
        high = low + 1
    shares = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low)
    return (np.clip(shares, 0, 1) * 255).round().astype(np.uint8)


def described(window: Window) -> str:
    """The window in words, such as "0 to 4095 become 0 to 255"."""
    if window == "percentile":
        low, high = PERCENTILES
        return f"of each image or volume the percentiles {low} to {high} become 0 to 255"
    if window == "dicom":
        return "each series' own window becomes 0 to 255"
    return f"{window[0]:g} to {window[1]:g} become 0 to 255"
