"""Tests of overlays: their values, and the memory that they take of a large photograph."""

import tracemalloc

import numpy as np
from numpy.testing import assert_array_equal

from tunevlseg_jax.prediction.overlay import COLOUR, OPACITY, overlay

SIDE = 1200


def test_values():
    """Every value of a channel is mixed with the colour, to the nearest; the rest of the image stays."""
    image = np.repeat(np.arange(256, dtype=np.uint8), 3 * 20).reshape(256, 20, 3).transpose(1, 0, 2)
    mask = np.zeros((20, 256), bool)
    mask[5:, :] = True
    drawn = overlay(image, mask)
    mixed = image * (1 - OPACITY) + np.asarray(COLOUR) * OPACITY
    inside = drawn[8:17, 4:-4]
    assert np.abs(inside - mixed[8:17, 4:-4]).max() <= 0.5
    assert_array_equal(drawn[:4], image[:4])
    assert_array_equal(drawn[5, 40], COLOUR)  # the outline


def test_memory_of_a_photograph():
    """The overlay, its tinted copy and the mask: less than eight bytes a pixel, which no float array fits in."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    mask = np.ones((SIDE, SIDE), bool)
    tracemalloc.start()
    try:
        overlay(image, mask)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 3 * SIDE**2 < peak < 8 * SIDE**2, f"{peak / SIDE**2:.1f} bytes a pixel"
