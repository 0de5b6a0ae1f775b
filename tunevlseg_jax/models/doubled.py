"""A convolution of size 3 over a grid of twice the rows and columns, with the doubling done last.

The doubling is bilinear, with half-pixel centres. Both are linear, so the products with the kernel's nine matrices may
come first: on a quarter of the cells, with a quarter of the operations.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax


def gather(maps: Sequence[Sequence[Array]]) -> Array:
    """The convolution of the doubled grid, from the products of the grid with the kernel's matrices.

    Args:
      maps: for each row and column of the kernel (batch, rows, columns, outputs): the grid times that matrix.

    Returns:
      (batch, 2 * rows, 2 * columns, outputs), with zeros beyond the borders of the doubled grid.
    """
    return _gather_axis([_gather_axis(row, 2) for row in maps], 1)


def _gather_axis(maps: Sequence[Array], axis: int) -> Array:
    """Doubles an axis of three maps, and adds each cell's neighbour before in the first, itself, and the one after.

    With half-pixel centres a doubled map has x[r-1] / 4 + 3/4 x[r] at cell 2r and 3/4 x[r] + x[r+1] / 4 at 2r + 1; the
    first and the last cell are repeated beyond the ends, while the convolution reads zeros there.
    """
    before, same, after = maps
    size = same.shape[axis]
    cells = jnp.arange(size).reshape([size if number == axis else 1 for number in range(same.ndim)])
    inside, inner = (cells > 0).astype(same.dtype), (cells < size - 1).astype(same.dtype)
    earlier, later = _moved(same, 1, axis), _moved(same, -1, axis)
    even = (
        (3 * _moved(before, 1, axis) + before) * inside + (earlier + 3 * same) + (3 * after + _moved(after, -1, axis))
    )
    odd = (_moved(before, 1, axis) + 3 * before) + (3 * same + later) + (after + 3 * _moved(after, -1, axis)) * inner
    shape = (*same.shape[:axis], 2 * size, *same.shape[axis + 1 :])
    return (jnp.stack([even, odd], axis + 1) / 4).reshape(shape)


def _moved(x: Array, by: int, axis: int) -> Array:
    """`x` one cell later (1) or earlier (-1) along an axis, its first or last cell repeated."""
    size = x.shape[axis]
    first, rest = (0, 1), (0, size - 1)
    if by < 0:
        first, rest = (1, size), (size - 1, size)
    return jnp.concatenate([lax.slice_in_dim(x, *part, axis=axis) for part in (first, rest)], axis)
