"""Augmented views: fixed copies of a split, augmented once."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from tunevlseg_jax.data.feeding import augment
from tunevlseg_jax.data.feeding.scratch import scratch
from tunevlseg_jax.data.records import Records, packed
from tunevlseg_jax.runtime import progress_bar

BATCH = 16
"""Images, or masks, augmented together."""

_images = jax.jit(augment.augmented)
_matrices = jax.jit(augment.affine_of, static_argnums=(1, 2))
_masks = jax.jit(jax.vmap(lambda mask, matrix: augment.warp_masks(mask[None], matrix)[0]))


def view(records: Records, number: int, seed: int) -> Records:
    """One of a split's augmented views.

    Args:
      records: the split, at the model's size.
      number: the view's number, from 1.
      seed: a view depends only on this and `number`.

    Returns:
      The same records with augmented pixels, stored in unnamed files.

    Raises:
      UserError: the cache folder's disk is full.
    """
    images, (height, width) = records.images, records.images.shape[1:3]
    draws = augment.draw(jax.random.fold_in(jax.random.key(seed), number), len(images))
    augmented = scratch(images.shape, images.dtype)
    for start in progress_bar.track(range(0, len(images), BATCH), f"making augmented view {number}"):
        rows = slice(start, start + BATCH)
        augmented[rows] = _whole_batch(_images, images[rows], draws[rows])
    matrices = _matrices(draws, height, width)[records.image]
    masks = scratch((len(records), height, width), np.dtype(bool))
    for start in range(0, len(records), BATCH):
        rows = range(start, min(start + BATCH, len(records)))
        taken = np.stack([records.mask(row) for row in rows])
        masks[start : rows.stop] = _whole_batch(_masks, taken, matrices[start : rows.stop])
    return dataclasses.replace(records, images=augmented, **packed(masks))


def _whole_batch(function, pixels: np.ndarray, others: jax.Array) -> np.ndarray:
    """`function` of both arrays, compiled for BATCH rows; a shorter batch is padded and the padding is cut off."""
    short = (0, BATCH - len(pixels))
    filled = (np.pad(rows, [short] + [(0, 0)] * (rows.ndim - 1), mode="edge") for rows in (pixels, np.asarray(others)))
    return np.asarray(function(*filled))[: len(pixels)]
