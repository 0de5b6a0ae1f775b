"""Square windows of a grid of tokens, within which attention is cheap (Li et al. 2022, section 3)."""

import jax.numpy as jnp
from jax import Array


def partition(x: Array, grid: tuple[int, int], side: int) -> Array:
    """Divides a grid into windows; the last ones are filled up with zeros.

    Args:
      x: (batch, rows * columns, width).
      grid: its rows and columns.
      side: rows and columns of a window.

    Returns:
      (batch, windows, side * side, width).
    """
    batch, _, width = x.shape
    rows, columns = grid
    down, across = -(-rows // side), -(-columns // side)
    x = x.reshape(batch, rows, columns, width)
    x = jnp.pad(x, ((0, 0), (0, down * side - rows), (0, across * side - columns), (0, 0)))
    x = x.reshape(batch, down, side, across, side, width).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, down * across, side * side, width)


def join(windows: Array, grid: tuple[int, int], side: int) -> Array:
    """The inverse of `partition`, without what filled up the last windows."""
    batch, width = windows.shape[0], windows.shape[-1]
    rows, columns = grid
    down, across = -(-rows // side), -(-columns // side)
    x = windows.reshape(batch, down, across, side, side, width).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, down * side, across * side, width)[:, :rows, :columns]
    return x.reshape(batch, rows * columns, width)
