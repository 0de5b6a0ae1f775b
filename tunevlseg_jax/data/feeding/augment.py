"""The paper's augmentation, on the device: small affine maps, brightness and contrast (section 4.3)."""

import jax
import jax.numpy as jnp
from jax import Array

PROBABILITY = 0.2
"""Of the affine map, and of the change in brightness and contrast; the two are drawn independently."""
SCALE = 0.02
TRANSLATION = 0.02
"""Of the image's width and height."""
ROTATION = 5.0
"""Degrees, in either direction."""
BRIGHTNESS = 0.1
"""Of the range of values."""
CONTRAST = 0.1

CUBIC = -0.75
"""The parameter `a` of the bicubic kernel, OpenCV's and torch's."""


def augment(key: Array, images: Array, masks: Array) -> tuple[Array, Array]:
    """Augments images (image, height, width, 3) uint8, and masks (image * n, height, width) bool, n for each image.

    An image's random numbers depend on the key and on its row, not on the number of images.
    """
    draws = draw(key, len(images))
    return augmented(images, draws), moved(masks, draws)


def draw(key: Array, count: int) -> Array:
    """(count, 8) uniform in [0, 1), the random numbers of each image's augmentation."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    return jax.vmap(lambda key: jax.random.uniform(key, (8,)))(keys)


def affine_of(draws: Array, height: int, width: int) -> Array:
    """(image, 2, 3) the affine map of each image; see `affine`."""
    return jax.vmap(affine, (0, None, None))(draws[:, :5], height, width)


def augmented(images: Array, draws: Array) -> Array:
    """(image, height, width, 3) uint8 images, warped and recoloured by `draws` (image, 8)."""
    _, height, width, _ = images.shape
    return jax.vmap(recolour)(jax.vmap(warp)(images, affine_of(draws, height, width)), draws[:, 5:])


def moved(masks: Array, draws: Array) -> Array:
    """(image * n, height, width) masks, n for each image, warped by `draws` (image, 8)."""
    _, height, width = masks.shape
    grouped = masks.reshape(len(draws), -1, height, width)
    return jax.vmap(warp_masks)(grouped, affine_of(draws, height, width)).reshape(masks.shape)


def affine(draws: Array, height: int, width: int) -> Array:
    """(2, 3) float32 from output to input pixels (x, y): a scaling and a rotation about the middle, then a shift.

    Args:
      draws: (5,) uniform in [0, 1): whether the map is applied, scale, rotation, shift to the right, shift down.
      height: of the image.
      width: of the image.
    """
    spread = 2 * draws - 1
    scale = 1 + SCALE * spread[1]
    angle = jnp.deg2rad(ROTATION * spread[2])
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    x, y = (width - 1) / 2, (height - 1) / 2
    right, down = x + TRANSLATION * width * spread[3], y + TRANSLATION * height * spread[4]
    drawn = jnp.stack(
        [
            jnp.stack([cos, -sin, x - cos * right + sin * down]),
            jnp.stack([sin, cos, y - sin * right - cos * down]),
        ]
    )
    return jnp.where(draws[0] < PROBABILITY, drawn, jnp.eye(2, 3))


def warp(image: Array, matrix: Array) -> Array:
    """(height, width, channels) uint8, warped by `matrix`, bicubic, borders replicated; as OpenCV's warpAffine.

    Args:
      image: (height, width, channels) uint8.
      matrix: (2, 3) from output to input pixels (x, y).
    """
    height, width, channels = image.shape
    x, y = _lookup(matrix, height, width)
    left, top = jnp.floor(x), jnp.floor(y)
    columns = [jnp.clip(left.astype(jnp.int32) + tap, 0, width - 1) for tap in range(-1, 3)]
    rows = [jnp.clip(top.astype(jnp.int32) + tap, 0, height - 1) * width for tap in range(-1, 3)]
    across, down = _cubic(x - left), _cubic(y - top)
    pixels = image.reshape(height * width, channels)
    total = jnp.zeros(image.shape, jnp.float32)
    for row, weight in zip(rows, down, strict=True):
        line = sum(
            pixels[row + column].astype(jnp.float32) * share[..., None]
            for column, share in zip(columns, across, strict=True)
        )
        total += line * weight[..., None]
    return _rounded(total)


def warp_masks(masks: Array, matrix: Array) -> Array:
    """(mask, height, width) warped by `matrix`, nearest neighbour, borders replicated; arguments as in `warp`."""
    _, height, width = masks.shape
    x, y = (jnp.floor(position + 0.5).astype(jnp.int32) for position in _lookup(matrix, height, width))
    return masks[:, jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)]


def recolour(image: Array, draws: Array) -> Array:
    """Changes the contrast and brightness of a uint8 image.

    Args:
      image: (height, width, channels) uint8.
      draws: (3,) uniform in [0, 1): whether the change is applied, contrast, brightness.
    """
    spread = 2 * draws - 1
    changed = image * (1 + CONTRAST * spread[1]) + 255 * BRIGHTNESS * spread[2]
    return jnp.where(draws[0] < PROBABILITY, _rounded(changed), image)


def _lookup(matrix: Array, height: int, width: int) -> tuple[Array, Array]:
    """The input position of each output pixel: x and y, (height, width) float32."""
    x = jax.lax.broadcasted_iota(jnp.float32, (height, width), 1)
    y = jax.lax.broadcasted_iota(jnp.float32, (height, width), 0)
    first, second = (row[0] * x + row[1] * y + row[2] for row in matrix)
    return first, second


def _cubic(offset: Array) -> tuple[Array, Array, Array, Array]:
    """Weights of the four pixels around a position, `offset` in [0, 1) after the second pixel (Keys 1981)."""

    def near(d: Array) -> Array:
        return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1

    def far(d: Array) -> Array:
        return ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC

    return far(1 + offset), near(offset), near(1 - offset), far(2 - offset)


def _rounded(values: Array) -> Array:
    """As uint8, saturated."""
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)
