"""Arrays in unnamed temporary files: they may be larger than memory, and disappear with the process."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tunevlseg_jax.runtime import cache
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
