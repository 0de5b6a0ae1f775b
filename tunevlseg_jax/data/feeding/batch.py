"""A batch, and where a step finds it: a pure function of indices and pixels, on the devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax import Array

from tunevlseg_jax.data.feeding import augment


class Batch(NamedTuple):
    """A batch as the network takes it.

    Attributes:
      images: (batch, height, width, 3) uint8, RGB; or (batch / n, ...), each looked at by n neighbouring rows; or what
        a frozen model sees in them, a tree of arrays with a row for each.
      masks: (batch, height, width) bool.
      phrase: (batch,) int32, the row of the token table that an image is asked for.
      weight: (batch,) float32, 1 for a record and 0 for padding.
    """

    images: Any
    masks: Array
    phrase: Array
    weight: Array


class Rows(NamedTuple):
    """Which records a batch holds; see `Records` for how a mask lies in its map.

    Attributes:
      image: (batch / n,) int32, rows of the images; None where the images are the batch's own, in its order.
      map: (batch,) int32, rows of the label maps; None likewise.
      bits: (batch,) uint8, what of its map is a record's.
      value: (batch,) uint8, of the record's pixels in that.
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
    """Where a step finds its batch: among the pixels of a whole set, or in the batch's own.

    Attributes:
      images: (image, height, width, 3) uint8, RGB; or what a frozen model sees in them, a tree of arrays.
      maps: (map, height, width) uint8.
      rows: the records.
      draw: (2,) uint32, the key data from which augmentation draws, or drew what a model has seen already; None for
        pixels as they are.
    """

    images: Any
    maps: Array
    rows: Rows
    draw: Array | None = None


def gather(source: Source) -> Batch:
    """The batch of a source, augmented where it says so; the same whether its pixels are a set's or its own."""
    rows = source.rows
    images = source.images if rows.image is None else jax.tree.map(lambda all: all[rows.image], source.images)
    maps = source.maps if rows.map is None else source.maps[rows.map]
    one = (-1, 1, 1)
    masks = (maps & rows.bits.reshape(one)) == rows.value.reshape(one)
    if source.draw is not None:
        key = jax.random.wrap_key_data(source.draw)
        if jax.tree_util.all_leaves([images]):
            images, masks = augment.augment(key, images, masks)
        else:  # a model saw them augmented
            masks = augment.moved(masks, augment.draw(key, len(jax.tree.leaves(images)[0])))
    return Batch(images, masks, rows.phrase, rows.weight)
