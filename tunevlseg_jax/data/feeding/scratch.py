"""Arrays in unnamed temporary files: they may be larger than memory, and disappear with the process."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tunevlseg_jax.runtime import cache, progress_bar
from tunevlseg_jax.runtime.files import as_user_error

CHUNK = 2**24


def scratch(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of zeros in the cache folder.

    Raises:
      UserError: the disk is full.
    """
    with _folder() as folder, tempfile.TemporaryFile(dir=folder) as file:
        # Reserves the disk space now, instead of a bus error later if the disk is full.
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS, which has no such call
            for start in range(0, size, CHUNK):
                file.write(bytes(min(CHUNK, size - start)))
            file.flush()
        return np.memmap(file, dtype, "r+", shape=shape)


def allocate(rows: int, batch: Any) -> Any:
    """Arrays of zeros in the cache folder, like a batch's but with `rows` rows; raises as `scratch` does."""
    return jax.tree.map(lambda leaf: scratch((rows, *leaf.shape[1:]), leaf.dtype), batch)


def store(batch: Any, stored: Any, start: int) -> None:
    """Writes a batch's rows from row `start` on; rows beyond the last one are padding and are dropped."""
    for rows, leaf in zip(jax.tree.leaves(stored), jax.tree.leaves(batch), strict=True):
        rows[start : start + len(leaf)] = np.asarray(leaf)[: len(rows) - start]


def map_batches(function: Callable[[np.ndarray], Any], count: int, size: int, description: str) -> Any:
    """A function of row numbers, computed batch by batch into unnamed files.

    Args:
      function: from `size` row numbers to a tree of arrays with a row for each of them.
      count: number of rows.
      size: rows of a batch; the last row is repeated to fill the last batch, so that there is one program.
      description: of the progress bar.

    Returns:
      The tree of all rows.

    Raises:
      UserError: the disk is full.
    """
    stored = None
    for start in progress_bar.track(range(0, count, size), description):
        batch = function(np.minimum(np.arange(start, start + size), count - 1))
        if stored is None:
            stored = allocate(count, batch)
        store(batch, stored, start)
    return stored


def num_bytes(tree: Any) -> int:
    """Bytes of a tree's arrays or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def free() -> int:
    """Free bytes on the cache folder's disk.

    Raises:
      UserError: the folder can't be created.
    """
    with _folder() as folder:
        return shutil.disk_usage(folder).free


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """The cache folder, for a block that writes to it."""
    folder = cache.folder()
    with as_user_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
