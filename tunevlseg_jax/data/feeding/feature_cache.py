"""What a frozen model sees in the images of a split, computed once and kept in a memory-mapped file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from tunevlseg_jax.data.feeding.scratch import scratch
from tunevlseg_jax.runtime import progress_bar, sharding

BATCH = 16
"""Images looked at together."""


def seen_once(images: np.ndarray, see: Callable[[Array], Any], mesh: Mesh) -> Any:
    """What `see` makes of each image.

    Args:
      images: (image, height, width, 3) uint8, RGB.
      see: from (batch, height, width, 3) to a tree of arrays with a row for each image.
      mesh: the devices that look.

    Returns:
      Such a tree with a row for every image, in a file without a name: it is gone with the process.

    Raises:
      UserError: there is no room for it in the cache folder.
    """
    size = sharding.round_up(min(BATCH, len(images)), mesh)
    kept = None
    for start in progress_bar.track(range(0, len(images), size), "looking at every image once"):
        taken = np.asarray(images[start : start + size])
        padded = np.pad(taken, ((0, size - len(taken)), (0, 0), (0, 0), (0, 0)), mode="edge")
        found = sharding.gather_to_host(see(sharding.shard_batch(jnp.asarray(padded), mesh)))
        if kept is None:
            kept = room_for(len(images), found)
        keep(found, kept, start)
    return kept


def room_for(images: int, found: Any) -> Any:
    """Room for what is seen in so many images, of which `found` is a batch, in files without a name.

    Raises:
      UserError: there is none in the cache folder.
    """
    return jax.tree.map(lambda leaf: scratch((images, *leaf.shape[1:]), leaf.dtype), found)


def keep(found: Any, kept: Any, start: int) -> None:
    """Writes what is seen in a batch from row `start` on; what goes beyond the last row is padding."""
    for rows, leaf in zip(jax.tree.leaves(kept), jax.tree.leaves(found), strict=True):
        rows[start : start + len(leaf)] = np.asarray(leaf)[: len(rows) - start]


def bytes_of_one(images: np.ndarray, see: Callable[[Array], Any]) -> int:
    """Bytes of what is seen in one image; nothing is computed."""
    found = jax.eval_shape(see, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(found))
