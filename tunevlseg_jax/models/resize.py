"""Resizing as in PyTorch, with one matrix for each axis: exact and differentiable."""

import math
from typing import Literal

import numpy as np
from jax import Array
from jax import numpy as jnp

Method = Literal["bilinear", "bicubic"]


def _cubic(distance: np.ndarray) -> np.ndarray:
    """The cubic kernel of Keys 1981 with PyTorch's a = -0.75; `jax.image.resize` has a = -0.5."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - distance)


def resize_matrix(
    source: int, target: int, method: Method, *, shift: int = 0, align_corners: bool = False
) -> np.ndarray:
    """The matrix that resizes an axis, with replicated borders and no antialiasing.

    Args:
      source: length of the axis before.
      target: length after.
      method: "bilinear" or "bicubic".
      shift: row i of the result is row i + shift of the unshifted matrix, or its first or last row beyond the ends. A
        sum of products with such matrices is a resize followed by a convolution with replicated borders.
      align_corners: whether the first and last samples keep their places (True) or the ends of the axis do (False,
        half-pixel centres).

    Returns:
      (target, source) float32, each row summing to 1.
    """
    kernel, reach = (_cubic, 2) if method == "bicubic" else (_linear, 1)
    rows = np.clip(np.arange(target) + shift, 0, target - 1)
    step = (source - 1) / max(target - 1, 1)
    position = rows * step if align_corners else (rows + 0.5) * source / target - 0.5
    if method == "bilinear":  # PyTorch clamps the position itself here, and only the taps for bicubic
        position = np.maximum(position, 0.0)
    left = np.floor(position).astype(int)
    matrix = np.zeros((target, source))
    for offset in range(1 - reach, reach + 1):
        taps = np.clip(left + offset, 0, source - 1)
        np.add.at(matrix, (np.arange(target), taps), kernel(np.abs(position - (left + offset))))
    return matrix.astype(np.float32)


def resize_grid(grid: Array, size: tuple[int, int], method: Method, *, align_corners: bool = False) -> Array:
    """Resizes (..., height, width, channels) to (..., *size, channels) in the grid's type."""
    height, width = (
        jnp.asarray(resize_matrix(source, target, method, align_corners=align_corners), grid.dtype)
        for source, target in zip(grid.shape[-3:-1], size, strict=True)
    )
    return jnp.einsum("hi,wj,...ijc->...hwc", height, width, grid)


def resize_positions(stored: Array, grid: tuple[int, int]) -> Array:
    """Position embeddings of a square grid, (side * side, width), for another grid, by PyTorch's bicubic resize.

    Returns:
      (rows * columns, width), in the type of `stored`.
    """
    side = math.isqrt(len(stored))
    if grid == (side, side):
        return stored
    resized = resize_grid(stored.reshape(side, side, -1).astype(jnp.float32), grid, "bicubic")
    return resized.reshape(grid[0] * grid[1], -1).astype(stored.dtype)
