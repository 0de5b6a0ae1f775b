"""Corruptions of images on the devices: six kinds from blur to brightness, each at five strengths."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

KINDS = {
    "blur": (0.005, 0.01, 0.015, 0.02, 0.03),
    "noise": (0.04, 0.08, 0.12, 0.18, 0.26),
    "contrast": (0.7, 0.5, 0.35, 0.2, 0.1),
    "jpeg": (25.0, 18.0, 15.0, 10.0, 7.0),
    "resolution": (2.0, 3.0, 4.0, 6.0, 8.0),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
}
"""The value of each strength. Blur: standard deviation of a Gaussian, as a share of the shorter side. Noise: standard
deviation of Gaussian noise, as a share of the range. Contrast: factor of the differences from the image's mean. JPEG:
quality. Resolution: pixels that become one, along each side. Brightness: addition, as a share of the range."""
NAMES = ("clean", *KINDS)
"""The numbers of the kinds for `corrupt`."""
STRENGTHS = 5
BLOCK = 8
"""Pixels of a side of JPEG's blocks."""

_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
_TABLES = np.stack([np.array(text.split(), np.float32).reshape(BLOCK, BLOCK) for text in (_LUMA, _CHROMA, _CHROMA)])
"""(channel, 8, 8), the quantisation at quality 50 of ITU-T T.81, annex K."""
_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
"""From RGB to luma and two chromas."""


def corrupt(images: Array, kind: Array, value: Array, key: Array) -> Array:
    """Corrupts a batch; kind and strength are values, so that one program does for all.

    Args:
      images: (batch, height, width, 3) uint8, RGB.
      kind: int32 scalar, a row of NAMES; 0 leaves the images.
      value: float32 scalar, see KINDS.
      key: of the noise.

    Returns:
      The corrupted images, uint8.
    """
    functions = (_same, _blur, _noise, _contrast, _jpeg, _resolution, _brightness)
    changed = jax.lax.switch(kind, functions, images.astype(jnp.float32), value, key)
    return jnp.clip(jnp.round(changed), 0, 255).astype(jnp.uint8)


def _same(images: Array, value: Array, key: Array) -> Array:
    del value, key
    return images


def _blur(images: Array, value: Array, key: Array) -> Array:
    """At the border the kernel's part inside the image counts."""
    del key
    sigma = value * min(images.shape[1:3])

    def weights(side: int) -> Array:
        apart = jnp.arange(side)[:, None] - jnp.arange(side)[None]
        return jnp.exp(-0.5 * (apart / sigma) ** 2)

    return _mixed(images, weights)


def _noise(images: Array, value: Array, key: Array) -> Array:
    return images + 255 * value * jax.random.normal(key, images.shape)


def _contrast(images: Array, value: Array, key: Array) -> Array:
    del key
    mean = images.mean((1, 2, 3), keepdims=True)
    return mean + value * (images - mean)


def _brightness(images: Array, value: Array, key: Array) -> Array:
    del key
    return images + 255 * value


def _resolution(images: Array, value: Array, key: Array) -> Array:
    """Each square of pixels becomes its mean."""
    del key

    def weights(side: int) -> Array:
        cell = jnp.floor((jnp.arange(side) + 0.5) / value)
        return (cell[:, None] == cell[None]).astype(jnp.float32)

    return _mixed(images, weights)


def _jpeg(images: Array, value: Array, key: Array) -> Array:
    """Quantises the cosine transform of luma and chroma, as JPEG does without subsampling of chroma."""
    del key
    scale = jnp.where(value < 50, jnp.floor(5000 / value), 200 - 2 * value)
    tables = jnp.clip(jnp.floor((_TABLES * scale + 50) / 100), 1, 255)
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), mode="edge")
    rows, columns = (side // BLOCK for side in padded.shape[1:3])
    exact = jax.lax.Precision.HIGHEST  # a wrong rounding moves a whole block
    middle = jnp.asarray([128.0, 0.0, 0.0])[None, None, None]
    channels = jnp.round(jnp.einsum("bhwc,kc->bhwk", padded, _YCC, precision=exact)) - middle
    blocks = channels.reshape(-1, rows, BLOCK, columns, BLOCK, 3)
    cosine = jnp.asarray(_cosines())
    spectrum = jnp.einsum("ui,bricjk,vj->brcuvk", cosine, blocks, cosine, precision=exact)
    quantum = jnp.moveaxis(tables, 0, -1)[None, None, None]
    spectrum = jnp.round(spectrum / quantum) * quantum
    blocks = jnp.einsum("ui,brcuvk,vj->bricjk", cosine, spectrum, cosine, precision=exact)
    channels = blocks.reshape(padded.shape) + middle
    return jnp.einsum("bhwc,kc->bhwk", channels, np.linalg.inv(_YCC), precision=exact)[:, :height, :width]


def _cosines() -> np.ndarray:
    """(frequency, pixel), the orthonormal cosine transform."""
    frequency, pixel = np.arange(BLOCK)[:, None], np.arange(BLOCK)
    waves = np.cos(np.pi * (2 * pixel + 1) * frequency / (2 * BLOCK)) / 2
    return (waves * np.where(frequency == 0, 0.5**0.5, 1.0)).astype(np.float32)


def _mixed(images: Array, weights: Callable[[int], Array]) -> Array:
    """Each pixel a mean of those of its row and column, by (side, side) weights."""
    height, width = (weights(side) for side in images.shape[1:3])
    height, width = (matrix / matrix.sum(axis=1, keepdims=True) for matrix in (height, width))
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("ih,bhwc,jw->bijc", height, images, width, precision=exact)
