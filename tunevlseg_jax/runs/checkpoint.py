"""Orbax checkpoints of everything that a run needs to resume exactly."""

import errno
import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from jax import Array

from tunevlseg_jax.runtime import multihost, sharding
from tunevlseg_jax.runtime.errors import UserError

if TYPE_CHECKING:  # Orbax loads late, since only training needs it
    import orbax.checkpoint as ocp

Tree = TypeVar("Tree")

REMOVED = "removed"
"""Folder into which a checkpoint is moved before it is deleted, so that no checkpoint is ever half deleted."""
ROOM = 4 << 20
"""Bytes that a checkpoint may take beyond its arrays."""


class Checkpoints:
    """The last two checkpoints of a run, numbered by the steps done.

    They hold whole arrays, and only process 0 reads and writes them: a run can resume on any number of devices and
    processes, whose hosts needn't share a disk.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs the errors that it raises, with tracebacks
        self.manager = _manager(folder) if multihost.is_primary() else None

    @property
    def kept(self) -> str:
        """A phrase about the latest checkpoint; empty if there is none, or in another process than the first."""
        latest = None if self.manager is None else self.manager.latest_step()
        return "" if latest is None else f"the checkpoint after step {latest} is kept"

    def save(self, steps: int, tree: object) -> None:
        """Saves a tree of arrays, whole or not at all, unless there is a checkpoint after so many steps.

        Raises:
          UserError: the checkpoint can't be written, such as on a full disk.
        """
        import orbax.checkpoint as ocp

        tree = _without_empty(sharding.gather_to_host(tree))
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
        """The latest checkpoint, with the types, shapes and shardings of `like`; `like` itself if there is none.

        Raises:
          UserError: the checkpoint can't be read, or has other shapes.
        """
        if not multihost.broadcast_from_primary(np.asarray(bool(self.kept))):
            return like
        restored = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        with multihost.sync_errors():
            if self.manager is not None:
                restored = _read(self.manager, self.folder, restored)
        restored = multihost.broadcast_from_primary(restored)
        return jax.tree.map(
            lambda leaf, x: sharding.place(x, leaf.sharding) if isinstance(leaf, Array) else x, like, restored
        )

    def close(self) -> None:
        """Closes Orbax's manager."""
        if self.manager is not None:
            self.manager.close()


def _manager(folder: Path) -> "ocp.CheckpointManager":
    import orbax.checkpoint as ocp
    from orbax.checkpoint.options import MultiprocessingOptions

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


def _read(manager: "ocp.CheckpointManager", folder: Path, like: Any) -> Any:
    import orbax.checkpoint as ocp

    latest = manager.latest_step()
    try:
        restored = manager.restore(latest, args=ocp.args.StandardRestore(_without_empty(like)))
        return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(restored))
    except Exception as error:  # as in `save`
        before = [step for step in manager.all_steps() if latest is not None and step < latest]
        remedy = f"delete {folder} to train from the start"
        if before:
            remedy = f"delete {folder / str(latest)} to go on from the one before, after step {max(before)}"
        raise UserError(
            f"can't read checkpoint {folder / str(latest)}: {_first_line(error)}; {remedy}", "unreadable"
        ) from error


def _without_empty(tree: Any) -> Any:
    """The tree without the empty fields of NamedTuples that have a default, which earlier versions lack.

    The order of the arrays stays the same.
    """
    if not hasattr(tree, "_fields"):
        return tree
    fields = {
        name: _without_empty(value)
        for name, value in tree._asdict().items()
        if name not in tree._field_defaults or jax.tree.leaves(value)
    }
    return namedtuple(type(tree).__name__, fields)(**fields)


def _check_room(folder: Path, size: int) -> None:
    """Raises an OSError if the disk is full; TensorStore's threads would each print a traceback."""
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
