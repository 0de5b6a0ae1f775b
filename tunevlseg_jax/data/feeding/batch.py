"""A batch, and the pixels and indices that a step gathers it from on the devices."""

from typing import Any, NamedTuple

import jax
from jax import Array

from tunevlseg_jax.data.feeding import augment


class WithFeatures(NamedTuple):
    """Images beside a frozen model's features of them, for a learner that changes features and compares them.

    Attributes:
      images: (batch, height, width, 3) uint8, RGB.
      features: a tree of arrays with a row for each image.
    """

    images: Array
    features: Any


class Batch(NamedTuple):
    """The network's inputs and targets.

    Attributes:
      images: (batch, height, width, 3) uint8, RGB; or (batch / n, ...), each shared by n neighbouring rows; or a frozen
        model's features of them, a tree of arrays with a row for each image; or both, `WithFeatures`.
      masks: (batch, height, width) bool.
      phrase: (batch,) int32, rows of the token table.
      weight: (batch,) float32, 1 for a record and 0 for padding.
    """

    images: Any
    masks: Array
    phrase: Array
    weight: Array


class Rows(NamedTuple):
    """The records of a batch.

    Attributes:
      image: (batch / n,) int32, rows of the images; None if the source's images are those of the batch, in its order.
      map: (batch,) int32, rows of the label maps; None likewise.
      bits: (batch,) uint8, see `Records`.
      value: (batch,) uint8, see `Records`.
      phrase: (batch,) int32.
      weight: (batch,) float32.
    """

    image: Array | None
    map: Array | None
    bits: Array
    value: Array
    phrase: Array
    weight: Array


class Source(NamedTuple):
    """The pixels of a whole split or of one batch, and the records that a step gathers from them.

    Attributes:
      images: (image, height, width, 3) uint8, RGB; or a frozen model's features of them, a tree of arrays; or
        `WithFeatures`, unless they are augmented.
      maps: (map, height, width) uint8.
      rows: the records.
      draw: (2,) uint32, key data of the augmentation, None without. Features are of images augmented with this key.
    """

    images: Any
    maps: Array
    rows: Rows
    draw: Array | None = None


def gather(source: Source) -> Batch:
    """The batch of a source, augmented if `draw` is set."""
    rows = source.rows
    images = source.images if rows.image is None else jax.tree.map(lambda all: all[rows.image], source.images)
    maps = source.maps if rows.map is None else source.maps[rows.map]
    shape = (-1, 1, 1)
    masks = (maps & rows.bits.reshape(shape)) == rows.value.reshape(shape)
    if source.draw is not None:
        key = jax.random.wrap_key_data(source.draw)
        if jax.tree_util.all_leaves([images]):
            images, masks = augment.augment(key, images, masks)
        else:  # features of augmented images
            masks = augment.moved(masks, augment.draw(key, len(jax.tree.leaves(images)[0])))
    return Batch(images, masks, rows.phrase, rows.weight)
