"""Rotary position embeddings of a grid: queries and keys are rotated by their column and row (Su et al. 2021)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

BASE = 10000.0


class Rotation(NamedTuple):
    """The rotation of each position, for each pair of neighbouring channels of a head.

    Attributes:
      cosine: (length, head width / 2) float32.
      sine: like `cosine`.
    """

    cosine: np.ndarray
    sine: np.ndarray


def axial_rotation(rows: int, columns: int, head_width: int, step: float = 1.0, without: int = 0) -> Rotation:
    """The rotation of the cells of a grid, row by row.

    The first half of a head's channels turns by the column, the second half by the row, both at the same frequencies.

    Args:
      rows: of the grid.
      columns: of the grid.
      head_width: a multiple of 4.
      step: position of a cell, counted in cells of the first training.
      without: number of tokens behind the cells that stay as they are.

    Returns:
      A rotation of rows * columns + `without` positions.
    """
    frequencies = BASE ** (-np.arange(0, head_width // 2, 2) / (head_width // 2))
    down, across = np.divmod(np.arange(rows * columns), columns)
    angles = np.concatenate([np.outer(across * step, frequencies), np.outer(down * step, frequencies)], axis=1)
    angles = np.concatenate([angles, np.zeros((without, head_width // 2))])
    return Rotation(np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))


def rotate(x: Array, rotation: Rotation) -> Array:
    """Rotates (batch, length, heads, head width), in float32; the result has the type of `x`."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    cosine, sine = (part[None, :, None] for part in rotation)
    first, second = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
