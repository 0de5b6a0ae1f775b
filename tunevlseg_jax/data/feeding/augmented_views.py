"""Augmented views: copies of a split that are augmented once."""

import dataclasses

import jax
import numpy as np

from tunevlseg_jax.data.feeding import augment
from tunevlseg_jax.data.feeding.scratch import map_batches
from tunevlseg_jax.data.records import Records, packed

BATCH = 16
"""Images, or masks, augmented together."""

_images = jax.jit(augment.augmented)
_matrices = jax.jit(augment.affine_of, static_argnums=(1, 2))
_masks = jax.jit(jax.vmap(lambda mask, matrix: augment.warp_masks(mask[None], matrix)[0]))


def view(records: Records, number: int, seed: int) -> Records:
    """The records with augmented pixels, stored in unnamed files.

    Args:
      records: the split, at the model's size.
      number: of the view, from 1.
      seed: augmentation depends only on this and `number`.

    Raises:
      UserError: the cache folder's disk is full.
    """
    images, (height, width) = records.images, records.images.shape[1:3]
    draws = augment.draw(jax.random.fold_in(jax.random.key(seed), number), len(images))
    matrices = _matrices(draws, height, width)[records.image]

    def augment_images(rows: np.ndarray) -> jax.Array:
        return _images(images[rows], draws[rows])

    def augment_masks(rows: np.ndarray) -> jax.Array:
        return _masks(np.stack([records.mask(row) for row in rows]), matrices[rows])

    augmented = map_batches(augment_images, len(images), BATCH, f"making augmented view {number}")
    masks = map_batches(augment_masks, len(records), BATCH, f"making the masks of augmented view {number}")
    return dataclasses.replace(records, images=augmented, **packed(masks))
