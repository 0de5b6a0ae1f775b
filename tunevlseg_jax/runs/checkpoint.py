"""Orbax checkpoints of everything that a run needs to resume exactly."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax import Array
from orbax.checkpoint.options import MultiprocessingOptions

from tunevlseg_jax.runtime import multihost, sharding
from tunevlseg_jax.runtime.errors import UserError

Tree = TypeVar("Tree")

REMOVED = "removed"
"""Folder beside the checkpoints, into which one goes whole before it is deleted: none is ever found half deleted."""
ROOM = 4 << 20
"""Bytes that a checkpoint may take beyond its arrays."""


class Checkpoints:
    """The checkpoints of one run, numbered by the steps that had been done, the last two kept.

    They hold whole arrays, and process 0 alone reads and writes them: a checkpoint goes on on any number of devices and
    processes, whose hosts needn't share a disk.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs, traceback and all, what it raises as well
        self.manager = _manager(folder) if multihost.is_primary() else None

    @property
    def kept(self) -> str:
        """Which one is the latest, in words, as far as this process knows; nothing if there is none."""
        latest = None if self.manager is None else self.manager.latest_step()
        return "" if latest is None else f"the checkpoint after step {latest} is kept"

    def save(self, steps: int, tree: object) -> None:
        """Saves a tree of arrays, whole or not at all; the earlier checkpoint stays until the new one is whole.

        Where there is one after so many steps already, it stays.

        Raises:
          UserError: it can't be written, such as on a full disk.
        """
        tree = sharding.gather_to_host(tree)
        if self.manager is None:
            return
        try:
            _check_room(self.folder, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + ROOM)
            self.manager.save(steps, args=ocp.args.StandardSave(tree))
            shutil.rmtree(self.folder / REMOVED, ignore_errors=True)
        except Exception as error:  # Orbax passes on whatever the file system's layers raise
            message = f"can't save a checkpoint in {self.folder}: {_first_line(error)}"
            raise UserError("; ".join(filter(None, (message, self.kept))), "unwritable") from error

    def restore(self, like: Tree) -> Tree:
        """The latest checkpoint, with the types, shapes and shardings of `like`; `like` itself where there is none.

        Raises:
          UserError: it can't be read, or isn't of this shape.
        """
        if not multihost.broadcast_from_primary(np.asarray(bool(self.kept))):
            return like
        found = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        with multihost.sync_errors():
            if self.manager is not None:
                found = _read(self.manager, self.folder, found)
        found = multihost.broadcast_from_primary(found)
        return jax.tree.map(
            lambda leaf, value: sharding.place(value, leaf.sharding) if isinstance(leaf, Array) else value, like, found
        )

    def close(self) -> None:
        """Frees what Orbax holds."""
        if self.manager is not None:
            self.manager.close()


def _manager(folder: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2,
        todelete_subdir=REMOVED,
        cleanup_tmp_directories=True,
        enable_async_checkpointing=False,
        multiprocessing_options=MultiprocessingOptions(primary_host=0, active_processes={0}),
        create=False,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / REMOVED, ignore_errors=True)
        return ocp.CheckpointManager(folder.absolute(), options=options)
    except OSError as error:
        raise UserError(f"can't make {folder}: {error.strerror or error}", "unwritable") from error


def _read(manager: ocp.CheckpointManager, folder: Path, like: Any) -> Any:
    latest = manager.latest_step()
    try:
        return manager.restore(latest, args=ocp.args.StandardRestore(like))
    except Exception as error:  # as in `save`
        raise UserError(f"can't read checkpoint {folder / str(latest)}: {_first_line(error)}", "unreadable") from error


def _check_room(folder: Path, size: int) -> None:
    """Raises an OSError where a disk is full: TensorStore's threads would tell stderr so, each with a traceback."""
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
