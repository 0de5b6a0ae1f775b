"""Orbax checkpoints of everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path
from typing import TypeVar, cast

import jax
import orbax.checkpoint as ocp

from tunevlseg_jax.errors import UserError

Tree = TypeVar("Tree")

ROOM = 4 << 20
"""Bytes that a checkpoint may take beyond its arrays."""


class Checkpoints:
    """The checkpoints of one run, numbered by epoch, the last two kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs, traceback and all, what it raises as well
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, cleanup_tmp_directories=True, enable_async_checkpointing=False
        )
        try:
            self.manager = ocp.CheckpointManager(folder.absolute(), options=options)
        except OSError as error:
            raise UserError(f"can't make {folder}: {error.strerror or error}") from error

    @property
    def latest(self) -> int:
        """The last epoch that was saved, 0 for none."""
        return self.manager.latest_step() or 0

    def save(self, epoch: int, tree: object) -> None:
        """Saves a tree of arrays, whole or not at all; the earlier checkpoint stays until the new one is whole.

        Raises:
          UserError: it can't be written, such as on a full disk.
        """
        try:
            _check_room(self.folder, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + ROOM)
            self.manager.save(epoch, args=ocp.args.StandardSave(tree))
        except Exception as error:  # Orbax passes on whatever the file system's layers raise
            kept = f"; the checkpoint of epoch {self.latest} is kept" if self.latest else ""
            raise UserError(f"can't save a checkpoint in {self.folder}: {_first_line(error)}{kept}") from error

    def restore(self, like: Tree) -> Tree:
        """The latest checkpoint, with the types, shapes and shardings of `like`.

        Raises:
          UserError: it can't be read, or isn't of this shape.
        """
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return cast(Tree, self.manager.restore(self.latest, args=ocp.args.StandardRestore(shapes)))
        except Exception as error:  # as in `save`
            raise UserError(f"can't read checkpoint {self.folder / str(self.latest)}: {_first_line(error)}") from error

    def close(self) -> None:
        """Frees what Orbax holds."""
        self.manager.close()


def _check_room(folder: Path, size: int) -> None:
    """Raises an OSError where a disk is full: TensorStore's threads would tell stderr so, each with a traceback."""
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
