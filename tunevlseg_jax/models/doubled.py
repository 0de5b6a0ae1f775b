"""A convolution of size 3 over a grid of twice the rows and columns, with the doubling done last.

Both are linear, so the products with the kernel's nine matrices may come first: on a quarter of the cells, with a
quarter of the operations.
"""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from jax import Array, lax

Doubling = Literal["bilinear", "nearest"]
"""Bilinear with half-pixel centres, or each cell twice."""


def gather(maps: Sequence[Sequence[Array]], doubling: Doubling) -> Array:
    """The convolution of the doubled grid, from the products of the grid with the kernel's matrices.

    Args:
      maps: for each row and column of the kernel (batch, rows, columns, outputs): the grid times that matrix.
      doubling: of the grid.

    Returns:
      (batch, 2 * rows, 2 * columns, outputs), with zeros beyond the borders of the doubled grid.
    """
    gather_axis = _bilinear if doubling == "bilinear" else _nearest
    return gather_axis([gather_axis(row, 2) for row in maps], 1)


def _bilinear(maps: Sequence[Array], axis: int) -> Array:
    """Doubles an axis of three maps, and adds each cell's neighbour before in the first, itself, and the one after.

    With half-pixel centres a doubled map has x[r-1] / 4 + 3/4 x[r] at cell 2r and 3/4 x[r] + x[r+1] / 4 at 2r + 1; the
    first and the last cell are repeated beyond the ends, while the convolution reads zeros there.
    """
    before, same, after = maps
    inside, inner = _within(same, axis)
    earlier, later = _moved(same, 1, axis), _moved(same, -1, axis)
    even = (
        (3 * _moved(before, 1, axis) + before) * inside + (earlier + 3 * same) + (3 * after + _moved(after, -1, axis))
    )
    odd = (_moved(before, 1, axis) + 3 * before) + (3 * same + later) + (after + 3 * _moved(after, -1, axis)) * inner
    return _alternating(even, odd, axis) / 4


def _nearest(maps: Sequence[Array], axis: int) -> Array:
    """As `_bilinear`, of doubled maps that have x[r] at the cells 2r and 2r + 1."""
    before, same, after = maps
    inside, inner = _within(same, axis)
    even = _moved(before, 1, axis) * inside + same + after
    odd = before + same + _moved(after, -1, axis) * inner
    return _alternating(even, odd, axis)


def _within(x: Array, axis: int) -> tuple[Array, Array]:
    """1 for the cells along an axis that have one before them, and for those that have one after them; 0 otherwise."""
    size = x.shape[axis]
    cells = jnp.arange(size).reshape([size if number == axis else 1 for number in range(x.ndim)])
    return (cells > 0).astype(x.dtype), (cells < size - 1).astype(x.dtype)


def _alternating(even: Array, odd: Array, axis: int) -> Array:
    """The cells of two grids in turn along an axis."""
    shape = (*even.shape[:axis], 2 * even.shape[axis], *even.shape[axis + 1 :])
    return jnp.stack([even, odd], axis + 1).reshape(shape)


def _moved(x: Array, by: int, axis: int) -> Array:
    """`x` one cell later (1) or earlier (-1) along an axis, its first or last cell repeated."""
    size = x.shape[axis]
    first, rest = (0, 1), (0, size - 1)
    if by < 0:
        first, rest = (1, size), (size - 1, size)
    return jnp.concatenate([lax.slice_in_dim(x, *part, axis=axis) for part in (first, rest)], axis)
