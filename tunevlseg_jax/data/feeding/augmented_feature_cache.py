"""Features of augmented training batches, computed once and shared by all trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array

from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.data.feeding.batch import Source, gather
from tunevlseg_jax.data.feeding.feature_cache import allocate, store
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.feeding.scratch import free

SHARE = 0.5
"""Largest share of the free space on the cache folder's disk that is used."""


class AugmentedFeatureCache:
    """A training split whose augmented batches are encoded by a frozen model, and stored for reuse.

    Only whole epochs are stored, in unnamed files, in the order of use until the room is full.
    """

    def __init__(self, feed: Feed, encode_images: Callable[[Array], Any], room: float):
        """Starts with an empty cache.

        Args:
          feed: the split's feed, of images rather than features.
          encode_images: from (batch, height, width, 3) uint8 to features, a tree of arrays with a row for each image,
            whose `len` is the number of images.
          room: bytes that may be stored.
        """
        self.feed, self.encode_images, self.room = feed, encode_images, room
        self.stored: dict[tuple[int, int, int], Any] = {}

    def training(self, batch_size: int, seed: int, epoch: int) -> Iterator[Source]:
        """The augmented batches of `Feed.training`, with features in place of images."""
        key = batch_size, seed, epoch
        if key in self.stored:
            yield from self.feed.training(*key, augment=True, features=self.stored[key])
            return
        steps = batching.num_batches(self.feed.records, batch_size)
        storing = None
        for number, source in enumerate(self.feed.training(*key, augment=True)):
            features = self.encode_images(_images(source))
            yield source._replace(images=features, rows=source.rows._replace(image=None))
            # Stored after the step has been dispatched, so that the step doesn't wait for it.
            if number == 0 and steps * _bytes(features) <= min(self.room, SHARE * free()):
                storing = allocate(steps * len(features), features)
            if storing is not None:
                store(features, storing, number * len(features))
        if storing is not None:
            self.stored[key] = storing
            self.room -= _bytes(storing)


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


_images = jax.jit(lambda source: gather(source).images)
