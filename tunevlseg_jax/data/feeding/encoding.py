"""Features of images from a frozen model, in memory-mapped files."""

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
"""Images encoded together."""


def encode_all(images: np.ndarray, encode_images: Callable[[Array], Any], mesh: Mesh) -> Any:
    """The features of each image.

    Args:
      images: (image, height, width, 3) uint8, RGB.
      encode_images: from (batch, height, width, 3) uint8 to features, a tree of arrays with a row for each image.
      mesh: the devices that compute.

    Returns:
      A tree of features with a row for each image, in unnamed files that disappear with the process.

    Raises:
      UserError: the cache folder's disk is full.
    """
    size = sharding.round_up(min(BATCH, len(images)), mesh)
    stored = None
    for start in progress_bar.track(range(0, len(images), size), "encoding images"):
        # The last image is repeated to fill its batch, so that there is one program.
        padded = np.asarray(images[np.minimum(np.arange(start, start + size), len(images) - 1)])
        features = sharding.gather_to_host(encode_images(sharding.shard_batch(jnp.asarray(padded), mesh)))
        if stored is None:
            stored = allocate(len(images), features)
        store(features, stored, start)
    return stored


def allocate(images: int, features: Any) -> Any:
    """Zeros in unnamed files for the features of `images` images, shaped and typed like the batch `features`.

    Raises:
      UserError: the cache folder's disk is full.
    """
    return jax.tree.map(lambda leaf: scratch((images, *leaf.shape[1:]), leaf.dtype), features)


def store(features: Any, stored: Any, start: int) -> None:
    """Writes a batch's features from row `start` on; rows beyond the last one are padding and are dropped."""
    for rows, leaf in zip(jax.tree.leaves(stored), jax.tree.leaves(features), strict=True):
        rows[start : start + len(leaf)] = np.asarray(leaf)[: len(rows) - start]


def num_bytes(tree: Any) -> int:
    """Bytes of a tree's arrays or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
